"""Children that the warm trainer forks: the same files and the same guarantees as those that the daemon starts itself."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import index_of
from warm_cases import STUB, ended, is_warm, look, new_run, steps_of, wait_until

from core.config import Config
from core.endings import cause, ran_out_of_memory
from core.exits import ChildExit
from daemon import cores, machine, warming
from daemon.children import Children
from daemon.warming import wanted
from store.locks import is_locked, take_lock
from store.paths import Box, Home
from store.seals import check_seal

LONG = {"epochs": 2000.0}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trainers start cold elsewhere")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def cold(home: Home) -> Iterator[Children]:
    made = Children(home, 1)
    yield made
    made.kill_all()
    made.warm.close()


@pytest.fixture
def children(cold: Children) -> Children:
    """With a warm trainer that is ready."""
    wait_until(lambda: is_warm(cold), "the warm trainer")
    return cold


def pid_of(children: Children) -> int:
    return children._running["job-1"].process.pid


def start(children: Children, run: Path) -> psutil.Process:
    """The child that trains in this run, at work."""
    children.start("job-1", run, ["trainer"], 0, 1)
    wait_until(lambda: steps_of(run) or not look(children, run).alive, "a first step")
    return psutil.Process(pid_of(children))


def parent_of(children: Children) -> int:
    return psutil.Process(pid_of(children)).ppid()


def files_of(run: Path) -> dict[str, bytes]:
    """All that a run leaves, but for what tells of time, memory and itself."""
    told = {"spec.json", "progress.jsonl", "heartbeat", "log.txt", "exit.json"}
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in told}


def test_a_job_trains_through_it_and_leaves_what_a_cold_one_leaves(home: Home, children: Children) -> None:
    warm, cold = new_run(home, "01-train"), new_run(home, "02-train")
    children.start("job-1", warm, ["trainer"], 0, 1)
    assert parent_of(children) == children.warm.pid
    assert ended(children, warm).status == ChildExit.DONE
    children.warm.close()
    children.start("job-1", cold, ["trainer"], 0, 1)
    assert parent_of(children) == os.getpid()
    assert ended(children, cold).status == ChildExit.DONE
    assert files_of(warm) == files_of(cold)
    notes = [json.loads((run / "exit.json").read_bytes()) for run in (warm, cold)]
    for note in notes:
        for key in ("ended_at", "memory_mb", "seconds"):
            del note[key]
    assert notes[0] == notes[1]
    told = [[line.split(" ", 2)[2] for line in (run / "log.txt").read_text().splitlines()] for run in (warm, cold)]
    assert told[0] == told[1], "the log too"


def test_two_jobs_one_after_another_are_two_processes_in_sessions_of_their_own(home: Home, children: Children) -> None:
    seen = []
    for name in ("01-train", "02-train"):
        run = new_run(home, name)
        children.start("job-1", run, ["trainer"], 0, 1)
        child = psutil.Process(pid_of(children))
        assert os.getsid(child.pid) == child.pid
        seen.append(child)
        assert ended(children, run).status == ChildExit.DONE
        wait_until(lambda child=child: not child.is_running(), "its end, and with it that of all memory it held")  # type: ignore[misc]
    assert seen[0] != seen[1]
    assert psutil.Process(children.warm.pid).children() == []


def test_the_slot_is_locked_exactly_while_the_child_lives_and_names_it(home: Home, children: Children) -> None:
    lock, run = home.slot_lock(0), new_run(home, **LONG)
    child = start(children, run)
    assert (machine.has_open(child.pid, lock), machine.has_open(children.warm.pid or 0, lock)) == (True, False)
    assert is_locked(lock)
    named = machine.Identity.of(json.loads(lock.read_text()))
    assert named == machine.identify(child.pid)
    child.kill()
    seen = ended(children, run)
    assert (seen.signal, seen.parent_lost, ran_out_of_memory(seen)) == (signal.SIGKILL, False, True)
    assert not is_locked(lock)
    assert children.warm.is_ready, "it goes on"


def test_a_child_that_has_ended_keeps_its_number_until_the_daemon_has_heard_of_it(home: Home, children: Children) -> None:
    child = start(children, new_run(home, **LONG))
    child.kill()
    wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE, "its end")
    wait_until(lambda: not is_locked(home.slot_lock(0)), "its lock is free already")
    assert child.status() == psutil.STATUS_ZOMBIE


def test_term_seals_a_resume_point(home: Home, children: Children) -> None:
    run = new_run(home, **LONG)
    start(children, run)
    children.stop("job-1")
    seen = ended(children, run)
    assert (seen.status, seen.killed) == (ChildExit.STOPPED, False)
    note = json.loads((run / "exit.json").read_bytes())
    check_seal(run / note["checkpoint"])


def test_the_warm_trainer_itself_obeys_no_term_as_its_children_have_something_to_save(home: Home, children: Children) -> None:
    run = new_run(home, **LONG)
    start(children, run)
    os.kill(children.warm.pid or 0, signal.SIGTERM)
    step = steps_of(run)
    wait_until(lambda: steps_of(run) > step, "the training goes on")
    assert children.warm.is_ready


def test_a_warm_trainer_killed_in_mid_training_is_found_named_and_replaced(
    home: Home, children: Children, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = new_run(home, **LONG), children.warm.pid
    child = start(children, run)
    os.kill(before or 0, signal.SIGKILL)
    seen = ended(children, run)
    assert not machine.session_members(child.pid)
    assert not is_locked(home.slot_lock(0))
    assert (seen.signal, seen.parent_lost, ran_out_of_memory(seen)) == (signal.SIGKILL, True, False)
    assert cause(seen) == "the train child ended with the warm trainer that had started it, which somebody killed; see runs/…/01-train/log.txt"
    assert ran_out_of_memory(replace(seen, memory_kill=True)), "the kernel's own kill is told as what it is"
    with caplog.at_level(logging.WARNING):
        children.warm.keep(STUB)
    assert "the warm trainer ended with SIGKILL; trainers start cold meanwhile" in caplog.text
    assert not is_warm(children), "not at once"
    monkeypatch.setattr(children.warm, "_not_before_s", 0.0)
    wait_until(lambda: is_warm(children), "the next one")
    assert children.warm.pid != before


def test_one_that_does_not_answer_is_ended_and_the_job_starts_cold(home: Home, children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "ANSWER_S", 0.2)
    held, run = psutil.Process(children.warm.pid), new_run(home)
    held.suspend()
    children.start("job-1", run, ["trainer"], 0, 1)
    assert parent_of(children) == os.getpid()
    assert not held.is_running()
    assert ended(children, run).status == ChildExit.DONE


def test_a_child_that_hangs_is_ended_with_its_session(home: Home, children: Children) -> None:
    run = new_run(home, **LONG)
    child = start(children, run)
    child.suspend()
    children.stop("job-1", hung="so the test says")
    seen = ended(children, run)
    assert seen.hung == "so the test says"
    assert not machine.session_members(child.pid)


DAEMON = """
import sys, time
from pathlib import Path
from store.paths import Home
from warm_cases import is_warm, new_run, steps_of, wait_until
from daemon.children import Children
home = Home(Path(sys.argv[1]))
children = Children(home, 1)
wait_until(lambda: is_warm(children), "the warm trainer")
run = new_run(home, epochs=2000.0)
children.start("job-1", run, ["trainer"], 0, 1)
wait_until(lambda: steps_of(run), "a first step")
print(children.warm.pid, children._running["job-1"].process.pid, flush=True)
time.sleep(600)
"""


def test_when_the_daemon_is_killed_nobody_is_left_over_and_the_slot_is_free(home: Home) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.getcwd()])}
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(home.root)], stdout=subprocess.PIPE, env=environment)
    assert daemon.stdout is not None
    left = [psutil.Process(int(word)) for word in daemon.stdout.readline().split()]
    assert len(left) == 2
    assert is_locked(home.slot_lock(0))
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    for process in left:
        wait_until(lambda process=process: machine.identify(process.pid) is None, "its end")  # type: ignore[misc]
    wait_until(lambda: not is_locked(home.slot_lock(0)), "the slot is free")


def test_another_base_gets_another_warm_trainer_once_the_child_of_this_one_has_ended(home: Home, children: Children) -> None:
    run, before, other = new_run(home, **LONG), children.warm.pid, replace(STUB, sha256="another base")
    start(children, run)
    children.warm.keep(other)
    assert children.warm.pid == before, "not under a training"
    children.stop("job-1")
    ended(children, run)
    children.warm.keep(other)
    assert children.warm.pid != before
    children.warm.keep(None)
    assert children.warm.pid is None


def test_one_that_cannot_be_made_ready_is_not_tried_again_and_again(home: Home, cold: Children, caplog: pytest.LogCaptureFixture) -> None:
    unfit = replace(STUB, backend="abacus")
    cold.warm.keep(unfit)
    wait_until(lambda: (is_warm(cold, unfit), cold.warm.pid is None)[1], "its end")
    assert "could not be made ready and ended with status 1" in caplog.text
    cold.warm._not_before_s = 0.0
    cold.warm.keep(unfit)
    assert cold.warm.pid is None


def test_a_child_of_another_backend_starts_cold(home: Home, children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_backend_of", lambda run: "mlx")
    run = new_run(home)
    children.start("job-1", run, ["trainer"], 0, 1)
    assert parent_of(children) == os.getpid()
    ended(children, run)


# ---------------------------------------------------------------- when it is wanted, and how many cores a training takes


def test_it_is_wanted_for_a_real_backend_with_its_base_and_unless_config_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(tmp_path)
    assert wanted(index) is None, "the stub has nothing to load"
    index.backend = type(index.backend)(name="peft", why="a test")
    index.base_sha256 = None
    assert wanted(index) is None, "there is no base yet"
    index.base_sha256 = "b" * 64
    key = wanted(index)
    assert key is not None
    assert (key.backend, key.sha256) == ("peft", "b" * 64)
    monkeypatch.setattr(machine, "LINUX", False)
    assert wanted(index) is None
    monkeypatch.undo()
    index.config = index.config.model_copy(update={"training": index.config.training.model_copy(update={"warm": False})})
    assert wanted(index) is None


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """A config with a local target, on a machine of eight cores."""
    monkeypatch.setattr(cores, "cores_here", lambda: 8)

    def make(**training: int) -> Config:
        return Config.model_validate({"deploy": {"targets": [{"name": "here", "path": str(tmp_path / "box")}]}, "training": training})

    return make


def test_one_core_is_left_to_serving_while_it_runs_here(served: Callable[..., Config], tmp_path: Path) -> None:
    config = served()
    assert cores.threads_for(config) == 0, "nobody serves: torch takes every core"
    lock = take_lock(Box(tmp_path / "box").lock, "serving", "the box", hint="")
    try:
        assert (cores.threads_for(config), cores.threads_for(served(threads=5))) == (7, 5)
    finally:
        os.close(lock)
    assert cores.threads_for(config) == 0


def test_slots_share_what_serving_leaves(served: Callable[..., Config], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daemon import devices

    monkeypatch.setattr(devices, "cores_here", lambda: 8)
    lock = take_lock(Box(tmp_path / "box").lock, "serving", "the box", hint="")
    try:
        both = [devices.Devices(home, slots) for slots in (1, 3)]
        for one in both:
            one.look(served(), set)
        assert [(one.threads(0, 0), one.threads(0, 4)) for one in both] == [(7, 4), (2, 4)]
    finally:
        os.close(lock)
