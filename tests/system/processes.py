"""Processes of `lorad`, started, held still and ended by their ids; and waiting, which is the only way to let time pass."""

import fcntl
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

LORAD = str(Path(sys.executable).with_name("lorad"))
DEADLINE_S = 120.0
LOOK_EVERY_S = 0.01


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`. Raises AssertionError naming `what` after the timeout."""
    end = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(LOOK_EVERY_S)


def free_port() -> int:
    """A port that is free now, outside the range from which the system gives ports to clients."""
    while True:
        port = random.randrange(10_000, 30_000)  # noqa: S311 - a port, not a secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Process:
    """One `lorad VERB` that stays until it is ended. What it says goes to `log`."""

    def __init__(self, words: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        self.ends = False  # the test ends it, or expects its end
        self.children: list[psutil.Process] = []  # at its kill -9: they are to die with it
        with log.open("ab") as file:
            self.popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    def lives(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self.ends = True
        if self.lives():
            self.children = psutil.Process(self.pid).children(recursive=True)
            self.popen.kill()
            self.popen.wait()

    def pause(self) -> None:
        """Hold it still."""
        pause(psutil.Process(self.pid))

    def go_on(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """One TERM."""
        self.ends = True
        self.popen.terminate()

    def exit_status(self) -> int:
        """The exit status, once it has ended."""
        self.ends = True
        return self.popen.wait(DEADLINE_S)

    def stop(self) -> None:
        """TERM, and it ends with 0."""
        self.terminate()
        assert self.exit_status() == 0, self.said


def pause(process: psutil.Process) -> None:
    """Hold a process still. Returns once it has stopped: until then it may take other signals."""
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, f"process {process.pid} has stopped")


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that nobody has reaped yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
