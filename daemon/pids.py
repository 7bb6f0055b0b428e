"""One daemon a home, and no trainer of a dead one.

Two locks, both held for the daemon's life and never inherited: `lorad.lock`, whose text names the holder, and the folder
of the home itself. The file can be deleted; then a second daemon could lock a new one, but not the folder. The text is
for people and for finding the holder: whether a daemon runs is told by the locks alone, so that a stale text, or a
number that belongs to somebody else by now, never keeps one from starting.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import LockHeldError
from daemon import machine
from daemon.clock import monotonic_s, wall_s
from daemon.machine import Identity
from store.locks import is_locked, owns, take_lock
from store.paths import Home

log = logging.getLogger(__name__)

ACQUIRE_PATIENCE_S = 3.0
"""How long a daemon that ends may take to let go of the home: a tick and the end of its children's pipes."""
LOOK_EVERY_S = 0.05
ORPHAN_PATIENCE_S = 10.0  # for a trainer to seal a checkpoint after TERM
KILL_PATIENCE_S = 5.0  # for the kernel to take away a killed process and its lock


class PIDManager:
    """Holds a home for one daemon. A context: entering acquires, leaving releases.

    Args: home: the home to hold. instance: the name of this daemon, drawn where it is empty. version: of lorad, for the lock's text.
    Returns: of `holder`, the living process that the lock names, or None; of `still_mine`, whether the home is held by this one.
    Raises: LockHeldError DAEMON_RUNS from `acquire`, with the holder's pid, within 5 s; OSError.
    Side effects: locks the folder of home and `lorad.lock` by flock until `release`, and writes who it is into the file.
    """

    def __init__(self, home: Home, instance: str = "", version: str = "") -> None:
        self._home = home
        self.instance = instance or secrets.token_hex(8)
        self._version = version
        self._fds: list[int] = []  # the folder, then the file

    def __enter__(self) -> "PIDManager":
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the home for the life of this process. Raises LockHeldError DAEMON_RUNS with the holder's pid within 5 s.

        Waits a moment for a holder that cannot be named: it has just come and has not written its name yet, or is going.
        """
        deadline = monotonic_s() + ACQUIRE_PATIENCE_S
        while True:
            try:
                self._try()
                return
            except LockHeldError:
                holder = self.holder()
                late = monotonic_s() > deadline
                if holder is not None or late:
                    raise self._held(holder.pid if holder else self._locker()) from None
            time.sleep(LOOK_EVERY_S)

    def still_mine(self) -> bool:
        """Whether this process holds the home, and `lorad.lock` is still the file that it locked."""
        return len(self._fds) == 2 and owns(self._fds[1], self._home.lock)

    def holder(self) -> Identity | None:
        """The living process that the lock's text names, by number, start time and boot; None for a stale text."""
        try:
            record = json.loads(self._home.lock.read_text())
        except (OSError, ValueError):
            return None
        named = Identity.of(record) if isinstance(record, dict) else None
        return named if named is not None and named.lives() else None

    def release(self) -> None:
        """Let go of the home. A repeat is harmless."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _try(self) -> None:
        folder = os.open(self._home.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file = take_lock(self._home.lock, json.dumps(self._text()), f"home {str(self._home.root)!r}", hint="")
        except BlockingIOError:
            os.close(folder)
            raise self._held(None) from None
        except BaseException:
            os.close(folder)
            raise
        self._fds = [folder, file]

    def _text(self) -> dict[str, Any]:
        own = machine.identify(os.getpid())
        assert own is not None, "this process runs"
        return {"pid": own.pid, "started": own.started, "boot": own.boot, "instance": self.instance, "version": self._version, "since": int(wall_s())}

    def _locker(self) -> int | None:
        """Who holds one of the locks, as the kernel tells it."""
        return machine.lock_holder(self._home.lock) or machine.lock_holder(self._home.root)

    def _held(self, pid: int | None) -> LockHeldError:
        what = f"another lorad daemon runs on {str(self._home.root)!r}: pid {pid or 'unknown'}"
        return LockHeldError(what, hint="`lorad status` shows the daemon that runs", code="DAEMON_RUNS")


# ---------------------------------------------------------------- orphans


def end_orphans(home: Home) -> None:
    """End children that outlived an earlier daemon: TERM, so that a trainer seals what it has, then KILL; waits for each.

    Only the process that the slot's lock names, by number, start time and boot, and what is left of its session. A lock
    that somebody else holds is left alone: its slot stays taken, and nothing starts in it until it is free.
    """
    for path in sorted(home.root.glob("slots/*.lock")):
        if not is_locked(path):
            continue
        named = _named(path)
        members = _orphans(named, path) if named is not None else []
        if not members:
            log.warning("%s is held by a process that lorad did not start; its slot waits", path, extra={"action": "orphan_unknown"})
            continue
        log.warning("ending children of a dead daemon: %s", members, extra={"action": "orphan_ended", "pids": members})
        _signal(members, signal.SIGTERM)
        _signal(members, signal.SIGCONT)  # one that is held still could not obey
        if _wait(lambda path=path: not is_locked(path), ORPHAN_PATIENCE_S):  # type: ignore[misc]
            continue
        assert named is not None
        _signal(_orphans(named, path), signal.SIGKILL)
        _wait(lambda path=path: not is_locked(path), KILL_PATIENCE_S)  # type: ignore[misc]


def _named(path: Path) -> Identity | None:
    try:
        return Identity.of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _orphans(named: Identity, path: Path) -> list[int]:
    """The child, if it lives, and those of its session that hold the slot. A session's number is its first process's."""
    if named.boot != machine.boot_id():
        return []
    found = [named.pid] if named.lives() else []
    if machine.identify(named.pid) is not None and not found:
        return []  # the number belongs to somebody else by now
    return found + [pid for pid in machine.session_members(named.pid) if pid != named.pid and machine.has_open(pid, path)]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait(condition: Callable[[], bool], patience_s: float) -> bool:
    deadline = monotonic_s() + patience_s
    while not condition():
        if monotonic_s() > deadline:
            return False
        time.sleep(LOOK_EVERY_S)
    return True
