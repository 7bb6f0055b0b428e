"""The port to the operating system, and its weaker fall-backs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemon import machine
from daemon.machine import Identity

DEADLINE_S = 20.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)
    return value


@pytest.fixture(params=["linux", "elsewhere"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of asking; the weaker one where the system is not Linux."""
    if request.param == "elsewhere":
        monkeypatch.setattr(machine, "LINUX", False)
        monkeypatch.setattr(machine, "_prctl", None)
    elif sys.platform != "linux":
        pytest.skip("only on Linux")
    return str(request.param)


def test_a_process_is_known_by_number_start_and_boot(system: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        found = machine.identify(child.pid)
        assert found is not None
        assert found.lives()
        assert not Identity(pid=found.pid, started=found.started - 100, boot=found.boot).lives()
        assert not Identity(pid=found.pid, started=found.started, boot="another").lives()
        child.kill()
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
        assert not found.lives(), "one that nobody has reaped yet does not live"
    finally:
        child.kill()
        child.wait()
    assert machine.identify(child.pid) is None


def test_the_members_of_a_session_are_found(system: str) -> None:
    code = "import os, time\nprint(os.fork() and 1, flush=True)\ntime.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.readline()
        assert len(machine.session_members(child.pid)) == 2
        os.killpg(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        child.stdout.close() if child.stdout else None


TETHERED = """
import os, sys, subprocess, time
from daemon import machine
if sys.argv[1] == "elsewhere":
    machine.LINUX, machine._prctl = False, None
from daemon.children import spawn
child = spawn(["tests.daemon.tethered"], stdout=sys.stdout.buffer)
time.sleep(600)
"""


def test_a_child_dies_with_its_daemon(system: str, tmp_path: Path) -> None:
    """Elsewhere by the pipe, which `store.child` watches, together with what the child has started."""
    (tmp_path / "tethered.py").write_text(
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from core.exits import ChildExit\n"
        "from store.child import run_child\n"
        "def work(folder):\n"
        "    below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']) if os.environ.get('LORAD_TETHER') else None\n"
        "    print(os.getpid(), below.pid if below else os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
        "run_child(Path('.'), work, unfit=ChildExit.BAD_SPEC)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    code = TETHERED.replace("tests.daemon.tethered", "tethered")
    parent = subprocess.Popen([sys.executable, "-c", code, system], stdout=subprocess.PIPE, env=environment, cwd=tmp_path)
    assert parent.stdout is not None
    numbers = [int(word) for word in parent.stdout.readline().split()]
    children = [psutil.Process(number) for number in numbers]
    try:
        parent.kill()
        parent.wait()
        for child in children:
            wait_until(lambda child=child: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "it died with its daemon")  # type: ignore[misc]
    finally:
        parent.stdout.close()
        for child in children:
            if child.is_running():
                child.kill()


def test_the_end_of_a_child_takes_what_it_has_started_with_it() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    left = psutil.Process(int(child.stdout.readline()))
    status = wait_until(lambda: (machine.end_group(child),) if machine.end_group(child) is not None else None, "it has ended")
    assert status == (0,)
    wait_until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "so has what it started")
    child.stdout.close()


def test_memory_kills_are_counted_where_the_kernel_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 3\n")
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    monkeypatch.setattr(machine, "_counters", lambda: ((tmp_path / "vmstat", "oom_kill"), (tmp_path / "memory.events", "oom_kill")))
    assert machine.memory_kills() == 5
    monkeypatch.setattr(machine, "_counters", lambda: ((tmp_path / "none", "oom_kill"),))
    assert machine.memory_kills() is None


def test_this_machine_is_asked_without_an_error() -> None:
    assert machine.boot_id()
    assert machine.memory_kills() is None or machine.memory_kills() >= 0  # type: ignore[operator]
    assert machine.name_of(os.getpid())
    assert machine.lock_holder(Path("/nowhere")) is None
