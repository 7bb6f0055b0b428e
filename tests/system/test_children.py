"""Children that hang, run out of memory, outlive their daemon or get too hot; and the devices under their slots."""

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from circle import Circle, chat_rows, read_json, read_lines
from processes import lives, pause, wait_until
from stages import CONTENT, training

LONG = {"epochs": 200, "checkpoints": 20}
HANG_S = 3.0


def train(circle: Circle, **training: Any) -> str:
    """Start the daemon, drop, and wait until the trainer has told of its steps. Returns the job."""
    circle.configure(training=LONG | training)
    circle.start_daemon()
    circle.drop(CONTENT)
    job = circle.wait_state("training")
    circle.wait(lambda: told(circle, job, "train"), "the trainer is at work")
    return job


def told(circle: Circle, job: str, stage: str, run: int = 0) -> list[dict[str, Any]]:
    """Lines of one stage in the progress of a training run."""
    runs = circle.runs(job, "train")
    return [line for line in read_lines(runs[run] / "progress.jsonl") if line["stage"] == stage] if len(runs) > run else []


def trainer(circle: Circle) -> psutil.Process:
    (found,) = circle.children("trainer")
    return found


# ---------------------------------------------------------------- hangs


def test_a_trainer_that_is_held_still_is_ended_with_its_stack_kept_and_goes_on_from_its_checkpoint(circle: Circle) -> None:
    job = train(circle, hang_s=HANG_S)
    circle.wait(lambda: circle.resume_point(job), "a resume point is sealed")
    pause(trainer(circle))
    began = time.monotonic()
    circle.wait(lambda: told(circle, job, "train", 1), "it is tried again")
    assert time.monotonic() - began < HANG_S + 20
    first, second = circle.runs(job, "train")
    assert "stub.py" in (first / "stack.txt").read_text()
    assert read_json(second / "spec.json")["checkpoint"] is not None
    (queued,) = [line for line in read_lines(circle.home / "status.jsonl") if line["action"] == "job.queued" and line.get("event") == "stopped"]
    assert queued["reason"].startswith("hung: no sign of life for ")
    assert circle.facts(job)["attempts"] == 1


@pytest.mark.full
def test_a_trainer_that_hangs_each_time_fails_its_job_and_the_hint_says_where_it_stood(circle: Circle) -> None:
    circle.configure(training=LONG | {"hang_s": 1.0, "max_attempts": 1})
    circle.brake("train")
    circle.start_daemon()
    circle.drop(CONTENT)
    job = circle.wait_state("failed")
    facts = circle.facts(job)
    assert (facts["code"], facts["attempts"]) == ("HUNG", 1)
    assert facts["reason"].startswith("hung: no sign of life for ")
    assert "before its first step" in facts["reason"]
    assert "hold (" in facts["hint"]
    assert "sitecustomize.py" in facts["hint"]


def test_without_py_spy_the_trainer_writes_its_stack_itself(circle: Circle, tmp_path: Path) -> None:
    """A trainer whose only thread of Python stands still in C, as far as it is seen from outside, still hears signals."""
    from daemon import machine, vigil
    from daemon.children import Children
    from store.paths import Home

    home = Home(tmp_path / "other")
    home.prepare()
    run = home.runs("job") / "01-train"
    run.mkdir(parents=True)
    (tmp_path / "sleeper.py").write_text(
        "import sys, time\nfrom pathlib import Path\nfrom core.exits import ChildExit\nfrom store.child import run_child\n"
        "def stand_still(folder):\n    print('here', flush=True)\n    time.sleep(600)\n"
        "sys.exit(run_child(Path(sys.argv[1]), stand_still, unfit=ChildExit.BAD_SPEC))\n"
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(machine, "read_stack", lambda pid, into: None)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getcwd()]))
    children = Children(home, 1)
    try:
        children.start("job", run, ["sleeper"], 0, 0)
        wait_until(lambda: "here" in (run / "log.txt").read_text(), "it stands still")
        ref = _ref(run.name)
        children.stop("job", hung="so the test says")
        seen = wait_until(lambda: (one := children.look("job", ref)) and not one.alive and one, "it is ended")
        assert (seen.hung, seen.killed) == ("so the test says", False)
        assert any("stand_still" in call for call in seen.stack)
        assert "sleeper.py" in (run / vigil.STACK).read_text()
    finally:
        patch.undo()
        children.kill_all()


def _ref(run: str) -> Any:
    from core.records import ChildRef, Kind

    return ChildRef(run=run, kind=Kind.TRAIN, instance="here", slot=0, started_at=datetime.fromisoformat("2026-03-01T00:00:00Z"))


# ---------------------------------------------------------------- memory


def test_out_of_memory_is_tried_again_with_half_the_rows_in_a_pass(circle: Circle) -> None:
    (circle.brakes / "train.oom").touch()
    circle.start_daemon()
    circle.drop(CONTENT)
    job = circle.wait_state("ranking")
    first, second = circle.runs(job, "train")
    assert (read_json(first / "spec.json")["micro_batch"], read_json(second / "spec.json")["micro_batch"]) == (None, 8)
    assert read_json(second / "exit.json")["total_steps"] == read_json(second / "exit.json")["steps"] > 0
    (line, *_) = told(circle, job, "train", 1)
    assert line["micro_batch"] == 8


def test_a_trainer_killed_from_outside_is_tried_again_smaller_and_at_last_fails_as_out_of_memory(circle: Circle) -> None:
    job = train(circle, max_attempts=2, checkpoints=1)
    trainer(circle).kill()
    circle.wait(lambda: told(circle, job, "train", 1), "it is tried again")
    assert read_json(circle.runs(job, "train")[1] / "spec.json")["micro_batch"] == 8
    trainer(circle).kill()
    circle.wait_state("failed")
    facts = circle.facts(job)
    assert (facts["code"], facts["attempts"]) == ("OUT_OF_MEMORY", 2)
    assert facts["reason"].startswith("out of memory: the train child was killed by signal 9, which lorad did not send")
    assert "max_length" in facts["hint"]


# ---------------------------------------------------------------- orphans, locks


def test_a_trainer_that_outlives_its_daemon_is_ended_before_the_next_training(circle: Circle) -> None:
    (circle.brakes / "no-deathsig").touch()
    with training(circle):
        orphan = trainer(circle)
        circle.daemon.kill()
        assert lives(orphan), "else this test shows nothing"
    circle.start_daemon()
    circle.wait(lambda: not lives(orphan), "the orphan ends")
    job = circle.job()
    circle.wait(lambda: told(circle, job, "train", 1), "the training goes on")
    first, second = circle.runs(job, "train")
    ended_at = datetime.fromisoformat(read_json(first / "exit.json")["ended_at"]).timestamp()
    assert ended_at < (second / "spec.json").stat().st_mtime, "no moment in which two trained"
    assert read_json(first / "exit.json")["code"] == 40, "it was asked, and sealed what it had"
    assert circle.facts(job)["attempts"] == 0


def test_a_deleted_lock_file_ends_the_daemon_and_never_lets_two_train(circle: Circle) -> None:
    train(circle)
    first = trainer(circle)
    (circle.home / "lorad.lock").unlink()
    second = circle.start("daemon")
    circle.daemon.ends = True
    assert circle.daemon.exit_status() == 75
    assert "LOCK_LOST" in circle.daemon.said
    circle.daemon = second
    circle.wait(circle.daemon_is_ready, "the second daemon is ready")
    assert not lives(first)
    circle.wait(lambda: circle.children("trainer"), "the training goes on")
    assert len(circle.children("trainer")) == 1


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.full)])
def test_of_many_daemons_at_once_one_runs_and_the_others_name_it(circle: Circle, count: int) -> None:
    circle.start_daemon()  # makes home and keys
    circle.daemon.kill()
    many = [circle.start("daemon") for _ in range(count)]
    for one in many:
        one.ends = True
    winner = circle.wait(lambda: next((one for one in many if f"(pid {one.pid}," in one.said), None), "one is ready")
    losers = [one for one in many if one is not winner]
    began = time.monotonic()
    assert {one.exit_status() for one in losers} == {75}
    assert time.monotonic() - began < 5 * max(1, count / 6), "on two busy cores the starts themselves take turns"
    assert winner.lives()
    said = circle.daemon.log.read_text()
    assert said.count(f"pid {winner.pid}\n") == len(losers)


# ---------------------------------------------------------------- devices


def sensors(circle: Circle, *gpus: dict[str, Any], **cpu: Any) -> None:
    """What the machine of this test says of itself from now on."""
    path = circle.root / "sensors.json"
    circle.env["LORAD_SENSORS"] = str(path)
    (circle.root / "sensors.part").write_text(json.dumps({"gpus": gpus, "cpu": cpu}))
    (circle.root / "sensors.part").replace(path)


def gpu(uuid: str, **what: Any) -> dict[str, Any]:
    return {"uuid": uuid, "name": "RTX 4090", "free_mb": 20000, "total_mb": 24564, "celsius": 60} | what


def test_training_pauses_while_the_gpu_is_too_hot_and_goes_on_by_itself(circle: Circle) -> None:
    sensors(circle, gpu("GPU-a"))
    job = train(circle, hang_s=HANG_S)
    sensors(circle, gpu("GPU-a", celsius=92))
    held = circle.wait(lambda: told(circle, job, "hold"), "the trainer pauses")
    assert held[0]["held"] == "cuda:0 RTX 4090 has 92 °C: paused above 88, goes on below 78"
    step = held[-1]["step"]
    circle.wait(lambda: (circle.status()["current"] or {}).get("held") == held[0]["held"], "status tells that it pauses")
    assert circle.status()["devices"][0]["celsius"] == 92
    sensors(circle, gpu("GPU-a", celsius=80))
    circle.wait(lambda: len(told(circle, job, "hold")) > HANG_S + 2, "a pause longer than what is taken for a hang")
    assert told(circle, job, "hold")[-1]["step"] == step
    sensors(circle, gpu("GPU-a", celsius=70))
    circle.wait(lambda: told(circle, job, "train")[-1]["step"] > step, "it goes on")
    assert len(circle.runs(job, "train")) == 1
    assert [action for action in circle.told() if action.startswith("slot.")] == ["slot.paused", "slot.goes_on"]
    steps = [line["step_s"] for line in told(circle, job, "train") if "step_s" in line]
    assert max(steps) < 1, "a pause is not part of a step"


def test_a_job_waits_while_a_stranger_holds_the_gpu_and_names_it(circle: Circle) -> None:
    sensors(circle, gpu("GPU-a", free_mb=10, holders=[{"pid": os.getpid(), "name": "python", "mb": 24000}]))
    circle.start_daemon()
    circle.drop(CONTENT)
    job = circle.wait_state("queued")

    def why() -> str:
        rows = json.loads(circle.lorad("jobs", "list", "--format", "json").stdout)
        return next((row["reason"] for row in rows if row["id"] == job), "")

    circle.wait(lambda: f"pid {os.getpid()} (python) with 24000 MiB" in why(), "the job says why it waits")
    assert circle.jobs() == {job: "queued"}
    sensors(circle, gpu("GPU-a"))
    circle.wait(lambda: circle.runs(job, "train"), "it starts")


def test_two_slots_train_two_jobs_at_once_each_on_its_own_device(circle: Circle) -> None:
    sensors(circle, gpu("GPU-a"), gpu("GPU-b"))
    circle.configure(training=LONG, slots=2)
    circle.start_daemon()
    circle.drop(CONTENT, "a/one.jsonl")
    circle.drop(chat_rows(start=1000), "b/two.jsonl")
    circle.wait(lambda: list(circle.jobs().values()) == ["training", "training"], "both train")
    both = circle.wait(lambda: len(found := circle.children("trainer")) == 2 and found, "two trainers")
    assert {child.environ()["CUDA_VISIBLE_DEVICES"] for child in both} == {"GPU-a", "GPU-b"}
    assert {child.environ()["OMP_NUM_THREADS"] for child in both} == {str(max(1, (os.cpu_count() or 1) // 2))}


@pytest.mark.full
def test_two_slots_on_one_device_take_turns_where_memory_is_short(circle: Circle) -> None:
    sensors(circle, free_mb=100, total_mb=100)
    circle.configure(training=LONG, slots=2)
    circle.start_daemon()
    circle.drop(CONTENT, "a/one.jsonl")
    circle.drop(chat_rows(start=1000), "b/two.jsonl")
    circle.wait(lambda: sorted(circle.jobs().values()) == ["queued", "training"], "one trains")
    circle.wait(lambda: told(circle, circle.job(), "train"), "it is well under way")
    sensors(circle, free_mb=100, total_mb=200)
    circle.wait(lambda: list(circle.jobs().values()) == ["training", "training"], "both train")


# ---------------------------------------------------------------- network


@pytest.mark.skipif(os.geteuid() != 0, reason="whether a user may make namespaces hangs on the machine")
def test_a_trainer_lives_in_a_network_of_its_own(circle: Circle) -> None:
    job = train(circle)
    child = trainer(circle)
    assert os.readlink(f"/proc/{child.pid}/ns/net") != os.readlink(f"/proc/{circle.daemon.pid}/ns/net")
    assert told(circle, job, "load")[0]["network"] == "none"


@pytest.mark.full
def test_a_trainer_may_use_the_network_where_the_config_says_so(circle: Circle) -> None:
    job = train(circle, network=True)
    child = trainer(circle)
    assert os.readlink(f"/proc/{child.pid}/ns/net") == os.readlink(f"/proc/{circle.daemon.pid}/ns/net")
    assert told(circle, job, "load")[0]["network"] == "open"
