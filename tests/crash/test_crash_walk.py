"""Each operation of the queue, ended at every change of the disk that it makes, one after the other until none is left.

Killed there, or refused by the disk (EIO for a sync, ENOSPC for the rest): what people dropped lies in one place, every
acknowledged job in one state; a new start and the same ticks lead to the same end as if nothing had happened.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from crashfigures import Figures
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


@pytest.fixture(params=[False, True], ids=["killed", "refused by the disk"])
def fail(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_broken_off_at_any_change_of_the_disk_goes_on_to_its_end(name: str, fail: bool, quick_disk: Path, figures: Figures) -> None:
    operation = OPERATIONS[name]
    template = quick_disk / "template"
    operation.before(LoneDaemon(template))
    wanted, total = walk_to(operation, template, quick_disk / "whole", CrashPoints())
    assert total > 3, "the operation changes the disk"
    number = 0
    while True:
        number += 1
        points = CrashPoints(number, fail=fail)
        found, count = walk_to(operation, template, quick_disk / str(number), points)
        if not points.met:
            break
        assert found == wanted, f"after {points.met} (change {number} of {count})"
    figures.add("crash points walked", number - 1)


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


def test_the_walk_finds_a_transition_that_renames_before_it_writes(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk bites: with the order of the two steps of a transition turned round it finds a torn job."""
    from store import jobs

    def rename_first(home, before, after):  # type: ignore[no-untyped-def]
        destination = jobs.job_folder(home, after)
        os.rename(jobs.job_folder(home, before), destination)
        jobs.write(destination / f"{after.state.value}.json", after.facts)

    template = quick_disk / "template"
    OPERATIONS["finish"].before(LoneDaemon(template))
    monkeypatch.setattr(jobs, "move_job", rename_first)
    with pytest.raises(AssertionError, match="torn"):
        for number in range(1, 40):
            walk_to(OPERATIONS["finish"], template, quick_disk / str(number), CrashPoints(number))
