"""Starts every child process of the daemon, from the main thread, and knows which of them live.

A child has a session of its own and dies with the daemon (PDEATHSIG, on Linux). A child that needs a slot inherits the
slot's flock: the daemon closes its own copy, so the lock is free exactly when no child lives.
"""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from core.errors import LockHeldError
from store.locks import is_locked, take_lock
from store.paths import Home
from store.runs import LOG

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
ORPHAN_PATIENCE_S = 10.0

_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def _die_with_daemon(daemon: int) -> None:
    """Runs in the child between fork and exec."""
    os.setsid()
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != daemon:  # it died before the line above: no signal will come
            os._exit(1)


@dataclass(slots=True)
class Running:
    """A child that this daemon started."""

    run: str
    process: subprocess.Popen[bytes]
    slot: int | None
    stopped: bool = False  # TERM was sent


class Children:
    """The children of jobs, by job id; at most one a job."""

    def __init__(self, home: Home, slots: int) -> None:
        self._home = home
        self._slots = slots
        self._running: dict[str, Running] = {}

    def start(self, job: str, run: Path, words: list[str], slot: int | None, threads: int) -> None:
        """Start `python -m WORDS RUN` with its log in the run folder. Raises LockHeldError where the slot is taken."""
        lock = take_lock(self._home.slot_lock(slot), "starting", f"slot {slot}", hint="wait for its child") if slot is not None else None
        try:
            with open(run / LOG, "ab") as logfile:
                process = spawn([*words, str(run)], stdout=logfile, pass_fds=(lock,) if lock is not None else (), threads=threads)
            if lock is not None:
                _sign_lock(lock, process.pid, run)
        finally:
            if lock is not None:
                os.close(lock)
        self._running[job] = Running(run=run.name, process=process, slot=slot)

    def is_alive(self, job: str, run: str) -> bool:
        """Whether the child of this run lives. Reaps it where it has ended."""
        child = self._running.get(job)
        if child is None or child.run != run:
            return False
        if child.process.poll() is None:
            return True
        del self._running[job]
        return False

    def stop(self, job: str, *, kill: bool = False) -> None:
        """Send TERM once, or KILL to its whole session."""
        child = self._running.get(job)
        if child is None or child.process.poll() is not None:
            return
        if kill:
            os.killpg(child.process.pid, signal.SIGKILL)
        elif not child.stopped:
            child.process.terminate()
            child.stopped = True

    def free_slots(self) -> tuple[int, ...]:
        """Slots whose lock nobody holds."""
        taken = {child.slot for child in self._running.values()}
        return tuple(slot for slot in range(self._slots) if slot not in taken and not is_locked(self._home.slot_lock(slot)))

    def any_alive(self) -> bool:
        return any(child.process.poll() is None for child in self._running.values())

    def kill_all(self) -> None:
        """End every child at once; the second TERM of an impatient person."""
        for job in list(self._running):
            self.stop(job, kill=True)


def spawn(words: list[str], *, stdout: IO[bytes], pass_fds: tuple[int, ...] = (), stdin: int = subprocess.DEVNULL, threads: int = 0) -> subprocess.Popen[bytes]:
    """Start `python -m WORDS` in a session of its own that dies with the daemon. stdout and stderr go to `stdout`."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        preexec_fn=partial(_die_with_daemon, os.getpid()),  # only setsid, prctl and getppid run between fork and exec
        env=environment,
    )
    return process


def _sign_lock(lock: int, pid: int, run: Path) -> None:
    """Write who holds the slot, so that a later daemon can end an orphan by identity and not by a reused pid."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:
        return
    text = json.dumps({"pid": pid, "started": started, "run": str(run)}).encode()
    os.ftruncate(lock, 0)
    os.pwrite(lock, text, 0)


def end_orphans(home: Home, slots: int) -> None:
    """End children that outlived an earlier daemon. Only the process that the slot's lock names, by pid and start time."""
    for slot in range(slots):
        path = home.slot_lock(slot)
        if not is_locked(path):
            continue
        try:
            holder = json.loads(path.read_text())
            process = psutil.Process(holder["pid"])
            if abs(process.create_time() - holder["started"]) < 1:
                log.warning("ending an orphaned child", extra={"action": "orphan_ended", "pid": holder["pid"], "run": holder["run"]})
                process.terminate()
                process.wait(ORPHAN_PATIENCE_S)
        except psutil.TimeoutExpired:
            process.kill()
        except (OSError, ValueError, KeyError, psutil.Error):
            log.warning("slot %s is held by a process that cannot be named", slot, extra={"action": "orphan_unknown"})


def take_daemon_lock(home: Home, instance: str, version: str) -> int:
    """The daemon's lock, held for life and never inherited. Raises LockHeldError with the holder's pid."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    holder = {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "instance": instance,
        "version": version,
        "since": int(time.time()),
    }
    try:
        return take_lock(home.lock, json.dumps(holder), f"home {str(home.root)!r}", hint="`lorad status` shows the daemon that runs")
    except LockHeldError as error:
        pid = error.what.partition('"pid": ')[2].partition(",")[0] or "unknown"
        raise LockHeldError(f"another lorad daemon runs on {str(home.root)!r}: pid {pid}", hint=error.hint, code="DAEMON_RUNS") from None
