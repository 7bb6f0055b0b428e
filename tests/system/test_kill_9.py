"""kill -9 of the daemon, of each child and of the serving process, in every stage: after a restart the end is the same."""

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from circle import Circle, read_json
from ends import assert_one_drop, assert_one_release
from processes import lives, wait_until
from stages import CONTENT, MANY_STEPS, STAGES, Stage, gating, live_unheard, pushed, training, wished

# One of each kind of stage; the others are killed at random moments (crash/test_random_kills.py) and, one by one, in the full suite.
IN_SHORT = ["gating", "training, resume point sealed", "ranking, order", "releasing, pushed", "releasing, live but unheard"]


@pytest.mark.parametrize("stage", [pytest.param(name, marks=[] if name in IN_SHORT else pytest.mark.full) for name in STAGES])
def test_the_daemon_killed_in_any_stage_goes_on_after_a_restart(circle: Circle, stage: str) -> None:
    with STAGES[stage](circle):
        circle.daemon.kill()
    circle.start_daemon()
    assert_one_release(circle, CONTENT)
    assert circle.facts(circle.job())["attempts"] == 0, "the daemon's death is no child's fault"
    assert_no_sealed_step_was_trained_again(circle)


def test_a_killed_trainer_is_retried_from_its_last_sealed_checkpoint(circle: Circle) -> None:
    with training(circle):
        (trainer,) = circle.children("trainer")
        trainer.kill()
    job = circle.job()
    circle.wait(lambda: len(circle.runs(job, "train")) == 2, "the trainer is started again")
    assert circle.facts(job)["attempts"] == 1
    assert_one_release(circle, CONTENT)
    assert_no_sealed_step_was_trained_again(circle)
    judged = read_json(circle.runs(job, "train")[1] / "exit.json")["candidates"]
    assert len(judged) == MANY_STEPS["checkpoints"], "the checkpoints of both runs"


def assert_no_sealed_step_was_trained_again(circle: Circle) -> None:
    """Each training goes on from the newest resume point that the one before had sealed; the last one reached the end."""
    runs = circle.runs(circle.job(), "train")
    for before, after in pairwise(runs):
        points = sorted(path.parent for path in before.glob("resume/step_*/SEALED"))
        named = read_json(after / "spec.json")["checkpoint"]
        assert named == (str(points[-1]) if points else None)
    note = read_json(runs[-1] / "exit.json")
    assert 0 < note["steps"] == note["total_steps"]


@pytest.mark.parametrize(
    "kind", ["train", "rank-order", "link", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("score-dev", "score-gate", "rank-verdict", "pack"))]
)
def test_a_child_killed_before_it_did_anything_is_started_again(circle: Circle, kind: str) -> None:
    circle.brake(kind)
    circle.start_both()
    circle.drop(CONTENT)
    circle.kill_held(kind)
    assert_one_release(circle, CONTENT)


def test_a_killed_gate_is_started_again(circle: Circle) -> None:
    with gating(circle):
        os.kill(circle.wait_held("gate"), signal.SIGKILL)
    assert_one_release(circle, CONTENT)


def test_a_file_that_kills_the_gate_twice_is_rejected(circle: Circle) -> None:
    circle.brake("gate")
    circle.start_daemon()
    circle.drop(CONTENT)
    circle.wait(circle.in_gate, "the drop is in the gate")
    circle.wait_held("gate")
    circle.brake("gate")
    circle.kill_held("gate")
    circle.kill_held("gate")
    folder, report = circle.rejected("rows.jsonl")
    assert report["findings"][0]["id"] == "GATE_CRASH"
    assert (folder / "rows.jsonl").read_bytes() == CONTENT
    circle.drop(CONTENT, "again.jsonl", sidecar={"training": {"epochs": 100}})
    circle.wait_state("training")


@pytest.mark.full
def test_three_kills_of_the_trainer_fail_the_job_and_retry_makes_another(circle: Circle) -> None:
    circle.start_both()
    for _ in range(3):
        circle.brake("train")
        if not circle.jobs():
            circle.drop(CONTENT)
        circle.kill_held("train")
    job = circle.wait_state("failed")
    facts = circle.facts(job)
    assert (facts["code"], facts["attempts"]) == ("OUT_OF_MEMORY", 3)
    assert "lorad jobs retry" in facts["hint"]
    circle.wait(lambda: (circle.status()["error"] or {}).get("code") == "OUT_OF_MEMORY", "status tells the failure")
    assert circle.lorad("jobs", "retry", job).returncode == 0
    again = circle.wait_state("released", 1)
    assert circle.jobs() == {job: "failed", again: "released"}
    assert read_json(circle.job_folders()[again] / "job.json")["retry_of"] == job
    assert circle.went_live() == [circle.facts(again)["release"]]
    assert_one_drop(circle, CONTENT)


@pytest.mark.parametrize("stage", [pytest.param(wished, id="before the push", marks=pytest.mark.full), pytest.param(pushed, id="while releasing")])
def test_serving_killed_before_it_judged_the_wish_carries_it_out_after_a_restart(circle: Circle, stage: Stage) -> None:
    with stage(circle):
        circle.serving.kill()
    circle.start_serving()
    assert_one_release(circle, CONTENT)


def test_serving_killed_after_live_serves_the_same_release_again(circle: Circle) -> None:
    with live_unheard(circle):
        circle.serving.kill()
        for link in circle.children("deploy", "link"):
            link.resume()
    circle.start_serving()
    assert_one_release(circle, CONTENT)
    assert [line["event"] for line in circle.ledger()] == ["live", "restored"]


def test_everything_killed_at_once_comes_back(circle: Circle) -> None:
    with pushed(circle):
        circle.daemon.kill()
        circle.serving.kill()
    circle.start_both()
    assert_one_release(circle, CONTENT)


SLOW_FORK = """
import os, sys, time
import daemon.children
begin, os.setsid = os.setsid, lambda: (open(sys.argv[1], "w").close(), time.sleep(0.3), begin())
daemon.children.spawn(["http.server", "0", "--bind", "127.0.0.1"], stdout=open(os.devnull, "wb"))
"""


def test_a_child_that_was_being_forked_when_the_daemon_was_killed_does_not_outlive_it(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", SLOW_FORK, str(tmp_path / "forked")])
    wait_until((tmp_path / "forked").exists, "the child is between fork and exec")
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    try:
        wait_until(lambda: not lives(child), "the child has ended", 10)
    finally:
        if lives(child):
            child.kill()
