"""The operations of the queue that are broken off at every point: what goes before, what begins them, when they are done; and one walk."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashpoints import Crash, CrashPoints
from homeaudit import check, check_memory, outcome
from lonedaemon import NOT_JSON, LoneDaemon, copy_of, rows

from core.commands import CommandKind
from core.errors import StateError
from core.records import JobState, VerdictWord

FILES = {"a.jsonl": rows(1)}
MANY_TICKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`begin` is what a person or a child does, outside; then the daemon ticks until `done`."""

    begin: Callable[[LoneDaemon], None] = lambda lone: None
    done: Callable[[LoneDaemon], bool]
    before: Callable[[LoneDaemon], None] = lambda lone: None  # once, on the template
    files: tuple[tuple[str, bytes], ...] = tuple(FILES.items())
    word: VerdictWord = VerdictWord.PROMOTE


def _drop(lone: LoneDaemon, content: bytes = FILES["a.jsonl"], sidecar: bool = True) -> None:
    lone.drop(content, "a.jsonl", {"learning_rate": 1e-4} if sidecar else None)


def _until(lone: LoneDaemon, state: JobState, word: VerdictWord = VerdictWord.PROMOTE) -> None:
    """Go on until the job is in `state`, its child's work done and nobody has looked yet."""
    _drop(lone)
    for _ in range(MANY_TICKS):
        for job in list(lone.children.alive):
            lone.finish(job, word=word)
        if _is(lone, state):
            return
        lone.tick()
    raise AssertionError(f"never {state}")


def _is(lone: LoneDaemon, state: JobState) -> bool:
    return [job.state for job in (*lone.index.jobs.values(), *lone.index.ended.values())] == [state]


def _in(state: JobState, word: VerdictWord = VerdictWord.PROMOTE) -> Callable[[LoneDaemon], None]:
    return lambda lone: _until(lone, state, word)


def _ask(kind: CommandKind) -> Callable[[LoneDaemon], None]:
    def ask(lone: LoneDaemon) -> None:
        lone.ask(kind, job=next(iter((*lone.index.jobs, *lone.index.ended))), reason="because")

    return ask


def _answered(lone: LoneDaemon) -> bool:
    return not [path for path in lone.home.commands.glob("command-*.json") if not path.name.endswith(".answer.json")]


def _all_drops_have_jobs(lone: LoneDaemon) -> bool:
    return bool(lone.index.jobs) and not lone.index.has_drops_on_their_way()


def _ended(lone: LoneDaemon, state: JobState) -> bool:
    return _answered(lone) and _is(lone, state)


S, HOLD = JobState, VerdictWord.HOLD
OPERATIONS = {
    "submit": Operation(before=lambda lone: _pause(lone), begin=_drop, done=_all_drops_have_jobs),
    "reject": Operation(
        begin=lambda lone: _drop(lone, NOT_JSON), done=lambda lone: any(lone.home.rejected.iterdir()) and not lone.index.drops, files=(("a.jsonl", NOT_JSON),)
    ),
    "start": Operation(before=_in(S.QUEUED), done=lambda lone: _is(lone, S.TRAINING) and bool(lone.children.alive)),
    "finish": Operation(before=_in(S.TRAINING), done=lambda lone: _is(lone, S.RANKING)),
    "judge": Operation(before=_in(S.RANKING), done=lambda lone: _is(lone, S.RELEASING)),
    "release": Operation(before=_in(S.RELEASING), done=lambda lone: _is(lone, S.RELEASED)),
    "hold": Operation(before=_in(S.RANKING), done=lambda lone: _is(lone, S.HELD), word=HOLD),
    "approve": Operation(before=_in(S.HELD, HOLD), begin=_ask(CommandKind.APPROVE), done=lambda lone: _answered(lone) and not _is(lone, S.HELD)),
    "refuse": Operation(before=_in(S.HELD, HOLD), begin=_ask(CommandKind.REFUSE), done=lambda lone: _ended(lone, S.REFUSED)),
    "cancel": Operation(before=_in(S.HELD, HOLD), begin=_ask(CommandKind.CANCEL), done=lambda lone: _ended(lone, S.CANCELLED)),
    "retry": Operation(
        before=lambda lone: (_until(lone, S.HELD, HOLD), _ask(CommandKind.CANCEL)(lone), _pause(lone))[0],
        begin=_ask(CommandKind.RETRY),
        done=lambda lone: _answered(lone) and len(lone.index.jobs) == 1,
    ),
}


def _pause(lone: LoneDaemon) -> None:
    """Nothing starts, so that an operation that ends with a queued job has one end."""
    lone.ask(CommandKind.PAUSE)
    lone.tick()
    _forget_answers(lone)


def _forget_answers(lone: LoneDaemon) -> None:
    for path in lone.home.commands.iterdir():
        path.unlink()


def go_on(lone: LoneDaemon, operation: Operation) -> None:
    """Tick until the operation is done; the children that it starts succeed, the box serves."""
    for _ in range(MANY_TICKS):
        if operation.done(lone):
            return
        lone.serve()
        lone.tick()
        for job in list(lone.children.alive):
            if not operation.done(lone):
                lone.finish(job, word=operation.word)
    assert operation.done(lone), f"never done: {lone.index.jobs}, {lone.index.incident}"


def walk_to(operation: Operation, template: Path, place: Path, points: CrashPoints) -> tuple[dict[str, object], int]:
    """(how things stand at the end, number of changes of the disk), with the operation broken off at the crash point."""
    lone = LoneDaemon(copy_of(template, place))
    lone.points = points
    operation.begin(lone)
    ended = False
    try:
        with points:
            go_on(lone, operation)
    except (Crash, StateError):  # a sync that failed ends the daemon by itself
        ended = True
    lone.points = None
    queued = [fields["job"] for action, fields in lone.told if action == "job.queued"]
    check(lone.home, dict(operation.files), queued)
    if ended:
        lone.start()
        go_on(lone, operation)
        check(lone.home, dict(operation.files), queued)
    check_memory(lone.index)
    found = outcome(lone.home)
    shutil.rmtree(place)
    return found, points.count
