"""Who holds a home, and what becomes of the children of a dead daemon. Real processes, no daemon."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import LockHeldError
from daemon import machine, pids
from daemon.pids import PIDManager, end_orphans
from store.paths import Home

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)
    return value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `python -c CODE WORDS` in a session of its own; what still lives at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str, *words: object, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, *map(str, words)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=pass_fds, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


HOLD_HOME = """
import sys, time
from pathlib import Path
from daemon.pids import PIDManager
from store.paths import Home
PIDManager(Home(Path(sys.argv[1]))).acquire()
print("held", flush=True)
time.sleep(600)
"""


def holder(start: Start, home: Home) -> "subprocess.Popen[bytes]":
    process = start(HOLD_HOME, home.root)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_home_that_is_held_is_refused_with_the_pid_at_once(home: Home, start: Start) -> None:
    other = holder(start, home)
    began = time.monotonic()
    with pytest.raises(LockHeldError, match=f"pid {other.pid}$") as refusal:
        PIDManager(home).acquire()
    assert (refusal.value.code, refusal.value.exit_status) == ("DAEMON_RUNS", 75)
    assert time.monotonic() - began < 2


def test_after_a_kill_9_the_home_is_free_whatever_its_text_says(home: Home, start: Start) -> None:
    other = holder(start, home)
    other.kill()
    other.wait()
    assert json.loads(home.lock.read_text())["pid"] == other.pid
    with PIDManager(home) as mine:
        assert mine.still_mine()
        found = mine.holder()
        assert found is not None
        assert found.pid == os.getpid()


def stranger(**changes: Any) -> dict[str, Any]:
    """The identity of a living process that is no daemon: ours."""
    own = machine.identify(os.getpid())
    assert own is not None
    return {"pid": own.pid, "started": own.started, "boot": own.boot} | changes


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(stranger()),
        json.dumps(stranger(started=1.0)),
        json.dumps(stranger(boot="another")),
        json.dumps({"pid": os.getpid()}),
        "",
        "not JSON",
        "[1]",
        '{"pid": "x"',
    ],
    ids=["a living stranger", "a number used again", "another boot", "an older lorad", "empty", "not JSON", "a list", "torn"],
)
def test_a_stale_text_never_blocks_a_start(home: Home, text: str) -> None:
    home.lock.write_text(text)
    began = time.monotonic()
    with PIDManager(home) as mine:
        assert mine.still_mine()
    assert time.monotonic() - began < 1


def test_a_holder_with_a_stale_text_is_named_by_the_kernel(home: Home, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pids, "ACQUIRE_PATIENCE_S", 0.2)
    other = holder(start, home)
    home.lock.write_text("nonsense")
    with pytest.raises(LockHeldError, match=f"pid {other.pid}$"):
        PIDManager(home).acquire()


def test_a_daemon_that_is_just_ending_is_waited_for(home: Home) -> None:
    fd = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    end = threading.Timer(0.3, os.close, [fd])
    end.start()
    with PIDManager(home) as mine:
        assert mine.still_mine()
        assert end.finished.is_set()


def test_a_deleted_lock_file_is_noticed_and_lets_nobody_else_in(home: Home, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pids, "ACQUIRE_PATIENCE_S", 0.2)
    other = holder(start, home)
    home.lock.unlink()
    with pytest.raises(LockHeldError, match=f"pid {other.pid}$"):
        PIDManager(home).acquire()
    other.kill()
    other.wait()
    with PIDManager(home) as mine:
        home.lock.unlink()
        assert not mine.still_mine()
        home.lock.write_text("another file")
        assert not mine.still_mine()


def test_a_child_does_not_inherit_the_home(home: Home, start: Start) -> None:
    mine = PIDManager(home)
    mine.acquire()
    child = start("import time; time.sleep(600)")
    mine.release()
    assert not machine.has_open(child.pid, home.lock)
    assert not machine.has_open(child.pid, home.root)
    with PIDManager(home):
        pass


# ---------------------------------------------------------------- orphans

ENDS_ON_TERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "w").close(), sys.exit(0)))
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""
DEAF = ENDS_ON_TERM.replace("sys.exit(0)", "None")
LEAVES_A_CHILD = """
import os, sys, time
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def take_slot(home: Home, slot: int = 0) -> int:
    fd = os.open(home.slot_lock(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def orphan(start: Start, home: Home, code: str, *words: object, slot: int = 0) -> "tuple[subprocess.Popen[bytes], bytes]":
    """A child that holds the slot as the daemon gave it to it, and whose daemon is gone; and its first line."""
    fd = take_slot(home, slot)
    child = start(code, *words, pass_fds=(fd,))
    found = machine.identify(child.pid)
    assert found is not None
    os.pwrite(fd, json.dumps({"pid": found.pid, "started": found.started, "boot": found.boot, "run": "x"}).encode(), 0)
    os.close(fd)
    assert child.stdout is not None
    return child, child.stdout.readline()


def is_free(home: Home, slot: int = 0) -> bool:
    try:
        os.close(take_slot(home, slot))
    except BlockingIOError:
        return False
    return True


def test_an_orphan_is_asked_to_stop_and_waited_for(home: Home, start: Start, tmp_path: Path) -> None:
    child, _ = orphan(start, home, ENDS_ON_TERM, tmp_path / "obeyed", slot=3)
    end_orphans(home)
    assert (tmp_path / "obeyed").exists()
    assert child.wait() == 0
    assert is_free(home, 3), "also in a slot that the config has no more"


def test_an_orphan_that_is_held_still_obeys_too(home: Home, start: Start, tmp_path: Path) -> None:
    child, _ = orphan(start, home, ENDS_ON_TERM, tmp_path / "obeyed")
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: machine.is_stopped(child.pid), "it stands still")
    end_orphans(home)
    assert child.wait() == 0


def test_a_deaf_orphan_is_killed(home: Home, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pids, "ORPHAN_PATIENCE_S", 0.3)
    child, _ = orphan(start, home, DEAF, tmp_path / "asked")
    end_orphans(home)
    assert (tmp_path / "asked").exists()
    assert child.wait() == -signal.SIGKILL
    assert is_free(home)


def test_what_an_orphan_has_started_is_ended_though_it_is_gone_itself(home: Home, start: Start) -> None:
    child, line = orphan(start, home, LEAVES_A_CHILD)
    child.wait()
    left = psutil.Process(int(line))
    end_orphans(home)
    assert is_free(home)
    wait_until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "it has ended")


def test_a_foreign_process_that_holds_a_slot_is_left_alone(home: Home, start: Start) -> None:
    fd = take_slot(home)
    other = start("import time; print(1, flush=True); time.sleep(600)", pass_fds=(fd,))
    assert other.stdout is not None
    other.stdout.readline()
    os.pwrite(fd, json.dumps(stranger(pid=other.pid, started=1.0)).encode(), 0)
    os.close(fd)
    end_orphans(home)
    assert other.poll() is None
    assert not is_free(home), "its slot stays taken, and nothing starts in it"


def test_a_foreign_process_with_the_number_of_a_dead_child_is_left_alone(home: Home, start: Start) -> None:
    other = start("import time; time.sleep(600)")
    fd = take_slot(home)
    os.pwrite(fd, json.dumps(stranger(pid=other.pid, started=1.0)).encode(), 0)
    end_orphans(home)
    os.close(fd)
    assert other.poll() is None
