"""The life of an iteration, from signals to a release that serves: one table, one function, no I/O.

An iteration follows one drop that the loop made by itself. Where it stands is seen from its drop, its job and its release;
what is kept beside that is when each stage began and ended, what was measured in it, and whether a person has to look.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from core.errors import IllegalTransition
from core.records import Drop


class State(StrEnum):
    """Where an iteration is: in one of its eight stages, or how it ended."""

    SIGNALS = "signals"
    DROP = "drop"
    GATE = "gate"
    TRAIN = "train"
    VERDICT = "verdict"
    SECURITY = "security"
    REHEARSAL = "rehearsal"
    LIVE = "live"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    STOPPED = "stopped"


S = State
STAGES = (S.SIGNALS, S.DROP, S.GATE, S.TRAIN, S.VERDICT, S.SECURITY, S.REHEARSAL, S.LIVE)
ENDED = frozenset({S.COMPLETED, S.FAILED, S.ROLLED_BACK, S.STOPPED})


class Event(StrEnum):
    """What can happen to an iteration."""

    PASS = "stage passed"  # noqa: S105 - no password
    JUDGE_AGAIN = "incumbent changed"  # what was live has changed since the verdict
    FAIL = "fail"  # refused, or failed for good
    ROLL_BACK = "rolled back"  # its release is not live any more, and the one before is
    STOP = "stop"  # by a person, or superseded


E = Event

_BEFORE_LIVE = {E.FAIL: S.FAILED, E.STOP: S.STOPPED}

TABLE: dict[State, dict[Event, State]] = {
    S.SIGNALS: {E.PASS: S.DROP, **_BEFORE_LIVE},
    S.DROP: {E.PASS: S.GATE, **_BEFORE_LIVE},
    S.GATE: {E.PASS: S.TRAIN, **_BEFORE_LIVE},
    S.TRAIN: {E.PASS: S.VERDICT, **_BEFORE_LIVE},
    S.VERDICT: {E.PASS: S.SECURITY, **_BEFORE_LIVE},
    S.SECURITY: {E.PASS: S.REHEARSAL, E.JUDGE_AGAIN: S.VERDICT, **_BEFORE_LIVE},
    S.REHEARSAL: {E.PASS: S.LIVE, E.JUDGE_AGAIN: S.VERDICT, **_BEFORE_LIVE},
    S.LIVE: {E.PASS: S.COMPLETED, E.JUDGE_AGAIN: S.VERDICT, E.ROLL_BACK: S.ROLLED_BACK, **_BEFORE_LIVE},
    S.COMPLETED: {},
    S.FAILED: {},
    S.ROLLED_BACK: {},
    S.STOPPED: {},
}


class Flag(StrEnum):
    """How a stage stands."""

    IN_PROGRESS = "in progress"
    PAUSED = "paused"  # a person has to look
    COMPLETED = "completed"
    FAILED = "failed"


class Weight(StrEnum):
    """What follows where a criterion is missed."""

    WARNS = "warns"
    ASKS = "asks a person"  # before it is live the job is held; after that the iteration waits
    ROLLS_BACK = "rolls back"  # only of a release that is live


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One measure of a stage and its bound. `met` None: it was not measured, and `why` says why."""

    name: str
    value: float | None = None
    bound: float | None = None
    at_least: bool = False  # else the value may be at most the bound
    met: bool | None = None
    weight: Weight = Weight.ASKS
    why: str = ""

    @property
    def is_missed(self) -> bool:
        """Whether it was measured and not met."""
        return self.met is False

    @property
    def words(self) -> str:
        """`error share is 0.2, at most 0.01`."""
        if self.value is None or self.bound is None:
            return f"{self.name}: {self.why}" if self.why else self.name
        return f"{self.name} is {self.value:.4g}, {'at least' if self.at_least else 'at most'} {self.bound:.4g}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One stage of an iteration, once it has begun. `done` of `total` count what `unit` says."""

    flag: Flag
    since: datetime
    ended_at: datetime | None = None
    done: int = 0
    total: int = 0
    unit: str = ""
    criteria: tuple[Criterion, ...] = ()
    waived: str = ""  # who let it go on although a criterion was missed
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """`iterations/<id>.json`. The id is that of its drop, with another first word."""

    id: str
    adapter: str
    made_by: str  # feedback, curriculum
    of: str  # the trigger that fired, or the skill
    drop: str
    file: str
    signals: int = 0  # of a curriculum's drop: 0
    begun_at: datetime
    state: State = State.DROP
    stages: Mapping[State, Part] = field(default_factory=dict)
    job: str = ""
    release: str = ""
    version: int | None = None
    pause: str = ""  # why a person has to look; empty: nobody has to
    halted: tuple[State, ...] = ()  # stages in which a person had to look because a criterion was missed: not twice for the same
    waits: str = ""  # what it waits for, in words
    back: str = ""  # why its release is taken back; the wish stands until another is live
    reason: str = ""  # how it ended
    ended_at: datetime | None = None
    at: datetime  # when this was written

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state not in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """What the gate's report says of the rows that are trained on."""

    rows: int
    quarantined: int = 0
    missing: int = 0  # values
    untokenised: int = 0  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One check of the security scan. `found` says what; empty: nothing."""

    name: str
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a chore read of a training, its verdict and its weights. `of` names the verdict's run: another verdict, another measure."""

    of: str
    gradient_norm: float | None = None  # the largest of all steps
    steps_since_best: int | None = None  # checkpoints after the one with the best dev loss
    steps: int = 0  # of the training
    made_up: bool = False  # by the stub: its losses prove nothing
    perplexity: float | None = None  # of the candidate on the gate split
    primary: float | None = None
    looks: tuple[Looked, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationSeen:
    """An open iteration with what was read about it. Its job and its targets stand in the facts."""

    iteration: Iteration
    is_new: bool = False  # it is not written yet
    drop: Drop | None = None  # None: it left, refused or forgotten
    refused: str = ""  # what the report of the rejected drop says
    gated: Gated | None = None
    measured: Measured | None = None
    busy: bool = False  # a chore measures it
    rest_until: datetime | None = None  # after a chore that failed
    trouble: str = ""  # of the chores that failed, once there were three
    critical: tuple[str, ...] = ()  # open critical alerts about its adapter, in words
    elsewhere: tuple[str, ...] = ()  # those about no adapter: the machine, a target


def id_of(drop: str) -> str:
    """The id of the iteration of a drop: the same however often it is made."""
    return f"iteration-{drop.removeprefix('drop-')}"


def begun(drop: Drop, lineage: Mapping[str, Any], now: datetime) -> Iteration:
    """The iteration of a drop that bears this lineage: its first stage is done, as the drop is there."""
    signals = len(lineage.get("signals") or ())
    rows = sum(int(draw.get("rows", 0)) for draw in lineage.get("draws") or ())
    made = Part(flag=Flag.COMPLETED, since=now, ended_at=now, done=signals or rows, total=signals or rows, unit="signals" if signals else "rows")
    return Iteration(
        id=id_of(drop.id),
        adapter=drop.claim.adapter,
        made_by=str(lineage["made_by"]),
        of=str(lineage.get("trigger") or lineage.get("skill") or ""),
        drop=drop.id,
        file=drop.claim.file,
        signals=signals,
        begun_at=now,
        stages={S.SIGNALS: made, S.DROP: Part(flag=Flag.IN_PROGRESS, since=now)},
        at=now,
    )


def step(iteration: Iteration, event: Event, now: datetime, reason: str = "") -> Iteration:
    """The iteration after `event`: its stage ends with the flag that follows, the next one begins.

    Raises IllegalTransition, and nothing changes, where the state does not accept the event.
    """
    state = iteration.state
    if event not in TABLE[state]:
        accepting = [name.value for name, events in TABLE.items() if event in events]
        what = f"iteration {iteration.id!r} is {state.value}, which does not accept {event.value!r}"
        raise IllegalTransition(what, hint=f"only one in {' or '.join(accepting)} accepts it", code="ILLEGAL_TRANSITION")
    after, stages = TABLE[state][event], dict(iteration.stages)
    passed = event in (E.PASS, E.JUDGE_AGAIN)
    ends = stages.get(state, Part(flag=Flag.IN_PROGRESS, since=now))
    stages[state] = replace(ends, flag=Flag.COMPLETED if passed else Flag.FAILED, ended_at=now, reason="" if passed else reason)
    if event is E.JUDGE_AGAIN:
        for stage in STAGES[STAGES.index(after) + 1 :]:
            stages.pop(stage, None)
    if after in ENDED:
        return replace(iteration, state=after, stages=stages, reason=reason, pause="", waits="", ended_at=now)
    stages[after] = Part(flag=Flag.IN_PROGRESS, since=now)
    return replace(iteration, state=after, stages=stages, pause="", waits="")


def moved_to(iteration: Iteration, stage: State, now: datetime) -> Iteration:
    """The iteration once it is in `stage`, through all between; back only where its verdict counts no more."""
    if STAGES.index(stage) < STAGES.index(iteration.state):
        if stage is not S.VERDICT:
            return iteration  # what the facts of an earlier moment say of a later stage changes nothing
        return step(iteration, E.JUDGE_AGAIN, now)
    for _ in islice(STAGES, STAGES.index(iteration.state), STAGES.index(stage)):
        iteration = step(iteration, E.PASS, now)
    return iteration


def with_part(iteration: Iteration, stage: State, **changes: Any) -> Iteration:
    """The iteration with another account of one stage that has begun."""
    part = iteration.stages[stage]
    return replace(iteration, stages={**iteration.stages, stage: replace(part, **changes)})


def missed(iteration: Iteration) -> Iterator[tuple[State, Criterion]]:
    """Each criterion that was missed and nobody waived, with its stage."""
    for stage, part in iteration.stages.items():
        if not part.waived:
            yield from ((stage, one) for one in part.criteria if one.is_missed)


def differs(before: Iteration, after: Iteration) -> bool:
    """Whether it moved on in more than counts and what it waits for."""
    return _without_counts(before) != _without_counts(after)


def _without_counts(iteration: Iteration) -> Iteration:
    stages = {stage: replace(part, done=0, total=0, criteria=tuple(_coarse(one) for one in part.criteria)) for stage, part in iteration.stages.items()}
    return replace(iteration, stages=stages, waits="", at=iteration.begun_at)


def _coarse(criterion: Criterion) -> Criterion:
    return replace(criterion, value=None, why="")


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {S.SIGNALS.value}"]
    for state, events in TABLE.items():
        name = state.value.replace(" ", "_")
        lines += [f"    {name} --> {to.value.replace(' ', '_')}: {event.value}" for event, to in events.items()]
        if not events:
            lines.append(f"    {name} --> [*]")
    return "\n".join(lines)
