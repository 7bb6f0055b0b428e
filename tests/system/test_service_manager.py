"""What a service manager hears of a real daemon, over a real socket of its own."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from circle import Circle, chat_rows

HANG = """
import os, signal, time
if "daemon" in sys.orig_argv:
    def hang(*_):  # in the main thread alone: the threads of the watcher go on
        while True:
            time.sleep(1)
    signal.signal(signal.SIGUSR2, hang)
"""


class Manager:
    """The socket that NOTIFY_SOCKET names, and what came in."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[tuple[float, str]] = []  # (monotonic, line)

    def listen(self) -> list[str]:
        """Every line so far."""
        while True:
            try:
                lines = self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return [line for _, line in self.heard]
            self.heard += [(time.monotonic(), line) for line in lines]

    def beats(self) -> list[float]:
        """When WATCHDOG=1 came in."""
        self.listen()
        return [at for at, line in self.heard if line == "WATCHDOG=1"]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def managed(circle: Circle, watchdog_s: float = 1.0) -> Circle:
    circle.env |= {"NOTIFY_SOCKET": str(circle.root / "notify"), "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
    return circle


def test_ready_comes_once_all_is_read_and_beats_come_at_a_third_of_the_watchdog(circle: Circle, manager: Manager) -> None:
    managed(circle).start_daemon()
    circle.wait(lambda: "READY=1" in manager.listen(), "ready is told")
    assert (circle.home / "lorad.lock").exists()
    circle.wait(lambda: len(manager.beats()) >= 4, "it beats")
    between = [after - before for before, after in zip(manager.beats(), manager.beats()[1:], strict=False)]
    assert min(between) > 0.2, "no more often than every third"
    assert any(line.startswith("STATUS=backend stub; no jobs") for line in manager.listen())


def test_no_child_can_speak_for_the_daemon(circle: Circle, manager: Manager) -> None:
    managed(circle).start_daemon()
    link = circle.wait(lambda: circle.children("link"), "the link runs")[0]
    assert "NOTIFY_SOCKET" not in link.environ()


@pytest.mark.parametrize("how", ["stopped", "hung in its main thread"])
def test_a_daemon_that_gets_nowhere_falls_silent(circle: Circle, manager: Manager, how: str) -> None:
    if how != "stopped":
        brake = circle.root / "hang"
        brake.mkdir()
        (brake / "sitecustomize.py").write_text("import sys" + HANG)
        circle.env["PYTHONPATH"] = str(brake)
    managed(circle, 0.6).start_daemon()
    circle.wait(lambda: len(manager.beats()) >= 2, "it beats")
    if how == "stopped":
        circle.daemon.pause()
    else:
        circle.daemon.popen.send_signal(signal.SIGUSR2)
    quiet_since = time.monotonic() + 0.05
    circle.wait(lambda: time.monotonic() > quiet_since + 1.2, "two watchdogs pass")
    assert [at for at in manager.beats() if at > quiet_since] == []
    if how == "stopped":
        circle.daemon.go_on()
        circle.wait(lambda: [at for at in manager.beats() if at > quiet_since], "it beats again")


def test_a_reload_is_announced_and_ended(circle: Circle, manager: Manager) -> None:
    managed(circle).start_daemon()
    circle.lorad("reload")
    lines = manager.listen()
    begun = lines.index("RELOADING=1")
    assert lines[begun + 1].startswith("MONOTONIC_USEC=")
    assert "READY=1" in lines[begun:]


def test_a_stop_asks_for_more_time_while_a_training_writes_its_checkpoint(circle: Circle, manager: Manager) -> None:
    circle.configure(training={"epochs": 60})
    managed(circle).start_daemon()
    circle.drop(chat_rows(200))
    circle.wait_state("training")
    training = circle.wait(lambda: circle.children("trainer"), "the trainer runs")[0]
    training.suspend()
    circle.daemon.terminate()
    circle.wait(lambda: any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in manager.listen()), "it asks for more time")
    assert "STOPPING=1" in manager.listen()
    training.resume()
    assert circle.daemon.exit_status() == 0
    assert circle.jobs()[circle.job()] == "queued"


def test_a_manager_that_is_gone_is_no_trouble(circle: Circle, manager: Manager) -> None:
    managed(circle).start_daemon()
    manager.close()
    os.unlink(circle.root / "notify")
    assert circle.lorad("reload").returncode == 0
    circle.daemon.stop()
    assert circle.daemon.said.count("the service manager cannot be told") == 1
