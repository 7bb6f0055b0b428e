"""What people may decide about a job and a release: cancel, retry, approve, refuse, roll back; and the daemon's own stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from circle import Circle, chat_rows, read_json, read_lines
from ends import assert_one_drop
from processes import pause
from stages import CONTENT, STAGES, held, training

FEW = chat_rows(60)  # nine gate groups: too weak to judge by
BETTER = {"training": {"epochs": 5}}  # more steps than the release before: the stub's made-up loss falls further


def say(circle: Circle, *words: str) -> str:
    """A command that is obeyed. Returns what it says."""
    done = circle.lorad(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "stage", ["training, resume point sealed", *(pytest.param(stage, marks=pytest.mark.full) for stage in ("queued", "ranking, scores on dev"))]
)
def test_a_cancelled_job_ends_and_can_be_tried_again(circle: Circle, stage: str) -> None:
    with STAGES[stage](circle):
        job = circle.job()
        say(circle, "jobs", "cancel", job)
        circle.wait_state("cancelled")
    assert circle.facts(job)["by"] == "person"
    assert not circle.children("trainer")
    assert not circle.went_live()
    refused = circle.lorad("jobs", "cancel", job)
    assert refused.returncode == 2
    assert f"job {job} is cancelled already" in refused.stderr
    say(circle, "jobs", "retry", job)
    again = circle.wait_state("released", 1)
    assert circle.jobs() == {job: "cancelled", again: "released"}
    assert read_json(circle.job_folders()[again] / "job.json")["retry_of"] == job
    assert_one_drop(circle, CONTENT)


def test_a_job_that_is_too_weak_to_judge_is_held_and_released_once_a_person_approves(circle: Circle) -> None:
    circle.start_both()
    circle.drop(FEW, "few.jsonl")
    job = circle.wait_state("held")
    assert "too few to judge by" in circle.facts(job)["reason"]
    assert [circle.lorad("jobs", "verdict", one).returncode for one in (job, "nothing")] == [2, 3]
    assert circle.ask().headers["x-lorad-release"] == "base"
    say(circle, "jobs", "approve", job, "--reason", "I read the answers")
    circle.wait_state("released")
    assert circle.ask().headers["x-lorad-release"] == circle.facts(job)["release"]
    (entry,) = [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] == "command.approve"]
    assert entry["reason"] == "I read the answers"
    assert entry["actor"]


def test_a_refused_job_sets_its_drop_aside(circle: Circle) -> None:
    circle.start_both()
    file = circle.root / "few.jsonl"
    file.write_bytes(FEW)
    done = circle.lorad("drop", "--wait", str(file))
    assert done.returncode == 2, done.stderr
    assert "held" in done.stdout
    job = circle.wait_state("held")
    say(circle, "jobs", "refuse", job, "--reason", "wrong tone")
    circle.wait_state("refused")
    assert circle.facts(job)["reason"] == "wrong tone"
    (few,) = circle.drops("accepted")
    assert "wrong tone" in read_json(few / "accepted.json")["set_aside"]
    circle.drop(chat_rows(start=1000), "next.jsonl")
    second = circle.wait_state("released", 1)
    card = read_json(circle.job_folders()[second] / "job.json")
    assert few.name not in [drop["id"] for drop in card["drops"]], "later jobs do not train on it"


@contextmanager
def asking(circle: Circle) -> Iterator[list[httpx.Response]]:
    """Requests one after another, for as long as the context lasts. Yields their answers."""
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            body = {"model": "default/main", "messages": [{"role": "user", "content": "are you there"}]}
            while not stop.is_set():
                answers.append(client.post(f"{circle.address}/v1/chat/completions", json=body))
                stop.wait(0.02)  # leaves the processor to those who are watched

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield answers
    finally:
        stop.set()
        asker.join(60)


def test_a_rollback_goes_to_any_earlier_release_while_requests_go_on(circle: Circle) -> None:
    circle.start_both()
    with asking(circle) as answers:
        circle.drop(CONTENT, "first.jsonl")
        first = circle.facts(circle.wait_state("released", 0))["release"]
        circle.drop(chat_rows(start=1000), "second.jsonl", sidecar=BETTER)
        second = circle.facts(circle.wait_state("released", 1))["release"]
        assert first[:12] in say(circle, "adapters", "rollback", "default/main")
        assert circle.ask().headers["x-lorad-release"] == first
        assert "the base model" in say(circle, "adapters", "rollback", "default/main", "--to", "base")
        assert circle.ask().headers["x-lorad-release"] == "base"
        say(circle, "adapters", "rollback", "default/main", "--to", "v2")
        assert circle.ask().headers["x-lorad-release"] == second
        unknown = circle.lorad("adapters", "rollback", "default/main", "--to", "v9")
        assert (unknown.returncode, "RELEASE_UNKNOWN" in unknown.stderr) == (3, True)
    assert circle.went_live() == [first, second, first, None, second]
    assert list(circle.jobs().values()) == ["released", "released"], "a rollback changes the release, never the job"
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-lorad-release"] for answer in answers} >= {"base", first, second}


def test_the_first_term_stops_the_trainer_with_a_resume_point_and_a_restart_goes_on(circle: Circle) -> None:
    with training(circle):
        circle.daemon.stop()
    job = circle.job()
    assert circle.jobs() == {job: "queued"}
    facts = circle.facts(job)
    assert (facts["attempts"], facts["reason"]) == (0, "interrupted")
    (first,) = circle.runs(job, "train")
    assert read_json(first / "exit.json")["code"] == 40
    point = circle.resume_point(job)
    assert point is not None
    circle.start_daemon()
    circle.wait_state("released")
    spec = read_json(circle.runs(job, "train")[1] / "spec.json")
    assert Path(spec["checkpoint"]) == point
    trained = read_json(circle.runs(job, "train")[1] / "exit.json")
    assert trained["steps"] == trained["total_steps"]
    assert circle.facts(job)["attempts"] == 0


def is_asked_to_stop(process: psutil.Process) -> bool:
    """Whether a TERM waits for the suspended process."""
    (pending,) = [line.split()[1] for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("ShdPnd:")]
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_second_term_kills_what_does_not_stop(circle: Circle) -> None:
    with training(circle):
        (trainer,) = circle.children("trainer")
        pause(trainer)  # it cannot obey
        circle.daemon.terminate()
        circle.wait(lambda: is_asked_to_stop(trainer), "the daemon has asked it to stop")
        assert circle.daemon.lives()
        circle.daemon.stop()
    job = circle.job()
    assert not trainer.is_running()
    circle.start_daemon()
    circle.wait_state("released")
    assert circle.facts(job)["attempts"] == 0, "ended by our own stop: not an attempt"
    assert len(circle.runs(job, "train")) == 2


@pytest.mark.full
def test_term_while_ranking_goes_on_after_a_restart(circle: Circle) -> None:
    with held(circle, kind="score-gate", state="ranking"):
        circle.daemon.stop()
    job = circle.job()
    assert circle.jobs() == {job: "ranking"}
    circle.start_daemon()
    circle.wait_state("released")
    assert len(circle.runs(job, "train")) == 1
    assert len(circle.went_live()) == 1
