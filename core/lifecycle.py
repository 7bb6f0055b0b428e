"""The life of a job: one table, one function, no I/O.

Everything that moves a job from state to state must live here. An event that a state does not accept raises
IllegalTransition and nothing changes. `docs/architecture.md` shows the diagram made from this table.
"""

from dataclasses import replace
from enum import StrEnum

from core.errors import IllegalTransition
from core.records import Ended, Held, Job, JobState, Queued, Ranking, Releasing, StateFacts, Training


class Event(StrEnum):
    """What can happen to a job."""

    START = "slot free"
    GATE_REFUSED = "gate refused"
    CANCEL = "cancel"
    TRAINED = "trained"
    STOPPED = "stopped"  # on request, child lost, or out of memory: resume later
    FAIL = "fail"  # bad spec, bad data, or too many attempts
    INCUMBENT_CHANGED = "incumbent changed"
    PROMOTE = "promote"
    HOLD = "hold"
    REFUSE = "refuse"
    APPROVE = "approve"
    RATED = "rated"  # by a person: judged again with it
    SUPERSEDE = "superseded"
    LIVE = "live"
    TARGET_REFUSED = "refused by target"


class Effect(StrEnum):
    """What entering a state asks for. An effect can be repeated: after a crash it is redone from the state."""

    TRAIN = "start the trainer"
    JUDGE = "score, order, confirm, verdict"
    NOTIFY = "notify"
    PUBLISH = "publish"


S, E = JobState, Event

TABLE: dict[JobState, dict[Event, JobState]] = {
    S.QUEUED: {E.START: S.TRAINING, E.GATE_REFUSED: S.REFUSED, E.CANCEL: S.CANCELLED},
    S.TRAINING: {E.TRAINED: S.RANKING, E.STOPPED: S.QUEUED, E.FAIL: S.FAILED, E.CANCEL: S.CANCELLED},
    S.RANKING: {
        E.PROMOTE: S.RELEASING,
        E.HOLD: S.HELD,
        E.REFUSE: S.REFUSED,
        E.INCUMBENT_CHANGED: S.RANKING,
        E.CANCEL: S.CANCELLED,
    },
    S.HELD: {
        E.APPROVE: S.RELEASING,
        E.INCUMBENT_CHANGED: S.RANKING,
        E.RATED: S.RANKING,
        E.REFUSE: S.REFUSED,
        E.SUPERSEDE: S.CANCELLED,
        E.CANCEL: S.CANCELLED,
    },
    S.RELEASING: {
        E.LIVE: S.RELEASED,
        E.INCUMBENT_CHANGED: S.RANKING,
        E.SUPERSEDE: S.CANCELLED,
        E.CANCEL: S.CANCELLED,
        E.TARGET_REFUSED: S.FAILED,
        E.FAIL: S.FAILED,
        E.HOLD: S.HELD,
    },
    S.RELEASED: {},
    S.REFUSED: {},
    S.FAILED: {},
    S.CANCELLED: {},
}

ON_ENTRY: dict[JobState, tuple[Effect, ...]] = {
    S.QUEUED: (),
    S.TRAINING: (Effect.TRAIN,),
    S.RANKING: (Effect.JUDGE,),
    S.HELD: (Effect.NOTIFY,),
    S.RELEASING: (Effect.PUBLISH,),
    S.RELEASED: (Effect.NOTIFY,),
    S.REFUSED: (Effect.NOTIFY,),
    S.FAILED: (Effect.NOTIFY,),
    S.CANCELLED: (Effect.NOTIFY,),
}

FACTS: dict[JobState, type] = {
    S.QUEUED: Queued,
    S.TRAINING: Training,
    S.RANKING: Ranking,
    S.HELD: Held,
    S.RELEASING: Releasing,
    S.RELEASED: Ended,
    S.REFUSED: Ended,
    S.FAILED: Ended,
    S.CANCELLED: Ended,
}


def accepts(state: JobState, event: Event) -> bool:
    """Whether `event` can happen in `state`."""
    return event in TABLE[state]


def step(job: Job, event: Event, facts: StateFacts) -> tuple[Job, tuple[Effect, ...]]:
    """The job after `event`, with the facts of its new state, and what entering that state asks for.

    Raises IllegalTransition, and nothing changes, when the state does not accept the event.
    """
    if not accepts(job.state, event):
        states = [state for state in JobState if accepts(state, event)]
        raise IllegalTransition(
            f"job {job.id!r} is {job.state.value}, which does not accept {event.value!r}",
            hint=f"only a job that is {' or '.join(states)} accepts it",
            code="ILLEGAL_TRANSITION",
        )
    state = TABLE[job.state][event]
    assert isinstance(facts, FACTS[state]), f"{state} needs {FACTS[state].__name__}, got {type(facts).__name__}"
    return replace(job, state=state, facts=facts), ON_ENTRY[state]


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.QUEUED.value}"]
    for state, events in TABLE.items():
        lines += [f"    {state.value} --> {to.value}: {event.value}" for event, to in events.items()]
        if not events:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines)
