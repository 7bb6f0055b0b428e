"""Carries out the steps that concern home and no job: gc, snapshots, backups, pins, marks, imports."""

from collections.abc import Callable
from datetime import datetime

from core.commands import Answer, Command
from core.errors import LoradError, StateError
from core.marks import changed
from core.steps import BeginChore, ImportAdapter, MarkRelease, PinRelease
from daemon.disk import Disk
from daemon.importing import Imports
from daemon.snapshots import SnapshotService
from store.commands import put_answer
from store.journal import write_entry
from store.references import Unreadable, set_pin
from store.vault import choose, read_marks, write_marks


class Housekeeping:
    """Gives each wish to the part that fulfils it."""

    def __init__(self, imports: Imports, disk: Disk, snapshots: SnapshotService, tell: Callable[..., None]) -> None:
        self._home, self._imports, self._disk, self._snapshots, self._tell = imports.home, imports, disk, snapshots, tell

    def apply(self, step: BeginChore | PinRelease | MarkRelease | ImportAdapter, now: datetime) -> None:
        """Carry out one step. Raises OSError, StateError."""
        if isinstance(step, MarkRelease):
            self._mark(step.command, now)
            return
        if isinstance(step, ImportAdapter):
            self._consume(step.command)
            self._imports.begin(step.command, step.version)
            return
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

    def _mark(self, command: Command, now: datetime) -> None:
        """Write the marks, then answer: a daemon killed between finds the same wish, which changes nothing more."""
        try:
            release = choose(self._home, command.adapter, command.to_release or "")
            before = read_marks(self._home, command.adapter)
            after = changed(before, release.version, command.details)
        except LoradError as error:
            put_answer(self._home, Answer(command=command.id, ok=False, message=error.what, hint=error.hint, code=error.code))
            return
        if after != before:
            write_marks(self._home, command.adapter, after)
            words = " ".join(sorted(command.details))  # a note is a person's own text: the journal holds which marks, not what they say
            fields = {"release": release.id, "adapter": command.adapter, "marks": words, "actor": command.actor}
            write_entry(self._home.journal, now, "release.marked", **fields)
            self._tell(now, "release.marked", **fields)
        message = f"v{release.version} ({release.id[:12]}) of {command.adapter} is marked"
        put_answer(self._home, Answer(command=command.id, ok=True, message=message, made=release.id))

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
