"""The daemon's bounded queue of background chores: whatever takes longer than a tick and belongs to no job.

Deletion of trash, counting of bytes, snapshots, backups, sending of alerts. Each is a child `python -m daemon.chores FOLDER`,
started from the main thread, in a folder of its own under `tmp/`; it dies with the daemon and may be repeated.
"""

import logging
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.children import spawn
from daemon.clock import monotonic_s
from store.chores import ChoreDone, read_result, write_chore
from store.paths import Home
from store.runs import LOG, log_tail

log = logging.getLogger(__name__)

LIMIT = 64  # chores that wait in a lane; a daemon that asks for more is asking for the same again and again
ALERTS = "alert"  # a lane of its own: an alert must not wait for the hours of a backup
ROOM = "room"  # so must what a full disk waits for: the survey before a gc, and the deletion after it
LOOP = "loop"  # nor must what turns signals into a release wait for a backup
TEACHERS = "teachers"  # whoever asks them may wait long, and nobody else is to wait with them
WORK = "work"
LANES = {"alert": ALERTS, "statistics": ROOM, "trash": ROOM, "batch": LOOP, "iteration": LOOP}  # of a kind; the others are WORK
LANES |= dict.fromkeys(("draw", "exam", "marks"), TEACHERS)
PATIENCE_S = {ALERTS: 120.0, ROOM: 3600.0, LOOP: 3600.0, TEACHERS: 3600.0, WORK: 6 * 3600.0}  # a chore that hangs longer is killed and told as failed
CLOSE_PATIENCE_S = 5.0
CHILD = "daemon.chores"

__all__ = ["BackgroundWorker", "Chore", "ChoreDone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something to be done by a child. `spec` holds plain JSON values."""

    kind: str  # one of daemon.chores.TABLE
    key: str  # one with the key of one that waits is dropped
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    chore: Chore
    folder: Path
    process: subprocess.Popen[bytes]
    deadline_s: float  # monotonic


class BackgroundWorker:
    """Runs chores one at a time in each lane (alerts, making room, the loop, teachers, all the rest). Never blocks, except for `close`.

    Args: home: whose `tmp/` holds the folders of the chores. limit: how many may wait in a lane.
    Returns: of `submit`, whether the chore waits now; of `look`, what has ended since the last look.
    Raises: OSError from `turn`, of whoever hears what has ended. A chore that cannot be started or fails is a `ChoreDone` that is not ok.
    Side effects: starts children, which die with this process; kills those that hang; writes and deletes under `tmp/`.
    """

    def __init__(self, home: Home, limit: int = LIMIT) -> None:
        self._home = home
        self._limit = limit
        self._waiting: deque[Chore] = deque()
        self._running: dict[str, _Running] = {}  # by lane
        self._failed: list[ChoreDone] = []
        self._listeners: dict[str, Callable[[ChoreDone], None]] = {}
        self._count = 0

    def hear(self, kind: str, listener: Callable[[ChoreDone], None]) -> None:
        """Let `listener` be told of every chore of this kind that ends, in the main thread; one listener a kind."""
        self._listeners[kind] = listener

    def turn(self) -> None:
        """Once a tick: `look`, and tell each listener what ended. Raises the first OSError of a listener once all were told."""
        failed: list[OSError] = []
        for done in self.look():
            listener = self._listeners.get(done.kind)
            try:
                if listener is not None:
                    listener(done)
            except OSError as error:  # a full disk: who is told next may wait for nothing else
                failed.append(error)
        if failed:
            raise failed[0]

    def submit(self, chore: Chore) -> bool:
        """Let the chore wait for its turn. True where it, or one of the same key, waits now; False where the queue is full."""
        if self.waits(chore.key):
            return True
        if sum(_lane(one) == _lane(chore) for one in self._waiting) >= self._limit:
            log.warning("background chore left out, %d wait", len(self._waiting), extra={"action": "chore_left_out", "kind": chore.kind})
            return False
        self._waiting.append(chore)
        return True

    def waits(self, key: str) -> bool:
        """Whether a chore of this key waits for its turn."""
        return any(chore.key == key for chore in self._waiting)

    def is_busy(self, kind: str) -> bool:
        """Whether a chore of this kind waits or runs."""
        return any(chore.kind == kind for chore in self._waiting) or any(at_work.chore.kind == kind for at_work in self._running.values())

    def look(self) -> list[ChoreDone]:
        """Reap what ended and start what is next. Returns what ended since the last look; starts children, writes under tmp/."""
        done, self._failed = self._failed, []
        for lane in PATIENCE_S:
            at_work = self._running.get(lane)
            if at_work is not None and (ended := self._reap(at_work)) is not None:
                del self._running[lane]
                done.append(ended)
            if lane not in self._running:
                chore = next((chore for chore in self._waiting if _lane(chore) == lane), None)
                if chore is not None:
                    self._waiting.remove(chore)
                    self._start(lane, chore)
        return done

    def close(self) -> None:
        """End the chores at work; the daemon asks for them again after its next start."""
        self._waiting.clear()
        for at_work in self._running.values():
            at_work.process.terminate()
        for at_work in self._running.values():
            try:
                at_work.process.wait(CLOSE_PATIENCE_S)
            except subprocess.TimeoutExpired:
                at_work.process.kill()
                at_work.process.wait()
            shutil.rmtree(at_work.folder, ignore_errors=True)
        self._running.clear()

    def _start(self, lane: str, chore: Chore) -> None:
        self._count += 1
        folder = self._home.tmp / f"chore-{self._count:06d}"
        try:
            write_chore(folder, self._home, chore.kind, chore.spec)
            with open(folder / LOG, "wb") as logfile:
                process = spawn([CHILD, str(folder)], stdout=logfile)
        except OSError as error:  # a full disk, or no process to be had: told as the chore's failure, asked for again by whoever wants it
            shutil.rmtree(folder, ignore_errors=True)
            self._failed.append(ChoreDone(kind=chore.kind, key=chore.key, ok=False, message=f"could not be started: {error}"))
            return
        self._running[lane] = _Running(chore=chore, folder=folder, process=process, deadline_s=monotonic_s() + PATIENCE_S[lane])

    def _reap(self, at_work: _Running) -> ChoreDone | None:
        chore, status = at_work.chore, at_work.process.poll()
        late = monotonic_s() > at_work.deadline_s
        if status is None:
            if late:
                at_work.process.kill()  # one that the kernel holds (a dead network disk) ends when it lets go: nobody waits here
            return None
        why = "it hung and was ended" if late and status == -signal.SIGKILL else _end(status)
        done = read_result(at_work.folder, chore.kind, chore.key, why)
        if not done.ok:
            tail = "\n".join(log_tail(at_work.folder))
            log.error("chore %s failed: %s\n%s", chore.kind, done.message, tail, extra={"action": "chore_failed", "kind": chore.kind})
        shutil.rmtree(at_work.folder, ignore_errors=True)
        return done


def _lane(chore: Chore) -> str:
    return LANES.get(chore.kind, WORK)


def _end(status: int) -> str:
    return f"its child was ended by {signal.Signals(-status).name}" if status < 0 else f"its child ended with {status}"
