"""What holds a job back, and what it goes on from: pause and resume, quiet hours, not-before, and what the clock starts."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from circle import Circle, chat_rows, read_json, read_lines
from ends import assert_one_release
from stages import CONTENT, MANY_STEPS, training


def say(circle: Circle, *words: str) -> str:
    """A command that is obeyed. Returns what it says."""
    done = circle.lorad(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def goes_back(circle: Circle) -> tuple[str, Path]:
    """Wait until the job in training is in the queue again. Returns its id and its resume point."""
    job = circle.wait_state("queued")
    point = circle.resume_point(job)
    assert point is not None
    assert circle.facts(job)["checkpoint"] == str(point.relative_to(circle.home / "runs" / job)), "the newest one"
    assert circle.facts(job)["attempts"] == 0
    assert not circle.children("trainer")
    return job, point


def test_a_paused_training_leaves_a_checkpoint_and_goes_on_from_it_whatever_becomes_of_the_daemon(circle: Circle) -> None:
    with training(circle):
        assert "writes a checkpoint" in say(circle, "jobs", "pause", circle.job(), "--reason", "a game")
        job, point = goes_back(circle)
    assert circle.facts(job)["paused"].endswith(": a game")
    assert str(point) in say(circle, "jobs", "show", job)
    say(circle, "jobs", "pause", "--reason", "the whole evening")
    circle.daemon.kill()
    circle.start_daemon()
    say(circle, "jobs", "resume", job)
    assert circle.facts(job)["paused"] == ""
    assert read_json(circle.home / "paused.json")["reason"] == "the whole evening"
    assert list(circle.jobs().values()) == ["queued"], "the queue is paused still"
    assert "goes on" in say(circle, "jobs", "resume")
    assert_one_release(circle, CONTENT)
    assert read_json(circle.runs(job, "train")[1] / "spec.json")["checkpoint"] == str(point)
    told = [(line["action"], line.get("reason", "")) for line in read_lines(circle.home / "journal.jsonl") if line["action"].startswith("command.")]
    assert told == [("command.pause", "a game"), ("command.pause", "the whole evening"), ("command.resume", ""), ("command.resume", "")]


@pytest.mark.full
def test_a_training_that_quiet_hours_overtake_writes_a_checkpoint_and_goes_on_when_they_end(circle: Circle) -> None:
    days = ",".join(f"{datetime.now(UTC) + timedelta(days=ahead):%a}".lower() for ahead in (0, 1))  # the test may see midnight
    with training(circle):
        circle.configure(training=MANY_STEPS, schedule={"time_zone": "UTC", "quiet_hours": [f"{days} 00:00-24:00"]})
        say(circle, "reload")
        job, point = goes_back(circle)
    assert "quiet hours" in circle.facts(job)["reason"]
    listed = json.loads(say(circle, "schedule", "list", "--format", "json"))
    assert "quiet hours" in listed["closed"]
    circle.configure(training=MANY_STEPS)
    say(circle, "reload")
    assert_one_release(circle, CONTENT)
    assert read_json(circle.runs(job, "train")[1] / "spec.json")["checkpoint"] == str(point)


def test_a_drop_says_how_urgent_it_is_and_when_it_may_be_trained_and_cancel_names_what_is_left(circle: Circle) -> None:
    circle.start_daemon()
    file = circle.root / "later.jsonl"
    file.write_bytes(CONTENT)
    assert circle.lorad("drop", "--not-before", "soon", str(file)).returncode == 3
    say(circle, "drop", "--priority", "high", "--not-before", "2999-01-01T00:00+01:00", str(file))
    job = circle.wait_state("queued")
    assert read_json(circle.job_folders()[job] / "job.json")["priority"] == 10
    assert circle.facts(job)["not_before"] == "2998-12-31T23:00:00Z"
    say(circle, "jobs", "cancel", job)
    circle.wait_state("cancelled")
    refused = circle.lorad("jobs", "pause", job)
    assert (refused.returncode, f"job {job} is cancelled already" in refused.stderr) == (2, True)


def test_the_schedule_trains_an_adapter_anew_on_all_that_it_was_given(circle: Circle) -> None:
    entry = {"does": "train", "adapter": "default/main", "every_s": 3}
    circle.configure(schedule={"entries": {"again": entry}})
    circle.start_both()
    circle.wait(lambda: "schedule.skipped" in circle.told(), "nothing was accepted yet")
    circle.drop(chat_rows(), "first.jsonl")
    circle.wait_ended(0)
    again = circle.wait_ended(1)
    first, second = (read_json(circle.job_folders()[job] / "job.json") for job in list(circle.jobs())[:2])
    assert (second["id"], second["drop"]) == (again, first["drop"])
    fired = [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] == "schedule.fired" and line.get("job")]
    assert fired[0]["job"] == again
    coming = json.loads(say(circle, "schedule", "next", "--count", "3", "--format", "json"))
    assert [row["entry"] for row in coming] == ["again"] * 3
