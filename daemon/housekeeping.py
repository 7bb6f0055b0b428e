"""Carries out the steps that concern home and no job: gc, snapshots, backups, pins."""

from collections.abc import Callable
from datetime import datetime

from core.commands import Command
from core.errors import StateError
from core.steps import BeginChore, PinRelease
from daemon.disk import Disk
from daemon.snapshots import SnapshotService
from store.journal import write_entry
from store.paths import Home
from store.references import Unreadable, set_pin


class Housekeeping:
    """Gives each wish to the part that fulfils it."""

    def __init__(self, home: Home, disk: Disk, snapshots: SnapshotService, tell: Callable[..., None]) -> None:
        self._home, self._disk, self._snapshots, self._tell = home, disk, snapshots, tell

    def apply(self, step: BeginChore | PinRelease, now: datetime) -> None:
        """Carry out one step. Raises OSError, StateError."""
        if isinstance(step, PinRelease):
            self._pin(step, now)
            return
        if step.command is not None:
            self._consume(step.command)
        if step.does == "gc":
            self._disk.collect(f"asked by {_asker(step)}", step.command)
        else:
            self._snapshots.begin(step.does, now, job=step.of, command=step.command)

    def _consume(self, command: Command) -> None:
        """Take the wish away now; its answer comes when the chore has ended. A daemon that dies meanwhile leaves it unanswered."""
        (self._home.commands / f"{command.id}.json").unlink(missing_ok=True)

    def _pin(self, step: PinRelease, now: datetime) -> None:
        try:
            set_pin(self._home, step.release, {"actor": step.actor, "reason": step.reason} if step.pinned else None, now)
        except Unreadable as error:
            raise StateError(str(error), hint="mend it or move it away; nothing is deleted until then", code="PINS_DAMAGED") from None
        fields = {"release": step.release, "actor": step.actor, "reason": step.reason}
        action = "release.pinned" if step.pinned else "release.unpinned"
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)


def _asker(step: BeginChore) -> str:
    if step.command is not None:
        return step.command.actor or "a person"
    return f"the schedule entry {step.entry!r}"
