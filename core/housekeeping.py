"""Decides about wishes that concern the home and no job: gc, snapshots, backups, pins, marks, imports. Pure."""

from collections.abc import Iterator

from core.commands import Answer, Command, CommandKind
from core.facts import Due, Facts
from core.steps import BeginChore, ImportAdapter, MarkRelease, PinRelease, Reply, Step

MARKS = frozenset({CommandKind.PIN, CommandKind.UNPIN, CommandKind.MARK})  # what is written on a release
KINDS = frozenset({CommandKind.GC, CommandKind.SNAPSHOT, CommandKind.BACKUP, *MARKS, CommandKind.IMPORT})
DOES = frozenset({CommandKind.GC.value, CommandKind.SNAPSHOT.value, CommandKind.BACKUP.value})


def decide_housekeeping(command: Command, facts: Facts) -> Iterator[Step]:
    """The steps of one command of `KINDS`. A chore answers its command itself, once it has ended."""
    if command.kind.value in DOES:
        yield BeginChore(does=command.kind.value, of=command.job, command=command)
        return
    if command.kind is CommandKind.IMPORT:
        yield ImportAdapter(command=command, version=facts.versions.get(command.adapter, 0) + 1)
        return
    pinned, release = command.kind is CommandKind.PIN, command.to_release or ""
    if release in facts.releases and command.kind is CommandKind.MARK:
        yield MarkRelease(command=command)
        return
    if release not in facts.releases:
        what, hint = f"release {release!r} is not on this box", "`lorad adapters list` names them"
        answer = Answer(command=command.id, ok=False, message=what, hint=hint, code="RELEASE_UNKNOWN")
    else:
        yield PinRelease(release=release, pinned=pinned, actor=command.actor, reason=command.reason)
        done = "is pinned: nothing deletes it" if pinned else "is no longer pinned: retention decides"
        answer = Answer(command=command.id, ok=True, message=f"v{facts.releases[release]} ({release[:12]}) of {command.adapter} {done}", made=release)
    yield Reply(answer=answer, log=command.kind.value, actor=command.actor, reason=command.reason)


def begin_due(due: Due) -> Iterator[Step]:
    """The step of a schedule entry that asks for gc, a snapshot or a backup; none for another."""
    if due.does in DOES:
        yield BeginChore(does=due.does, entry=due.entry)
