"""The table of a job's life: what is allowed, and that what is not allowed changes nothing."""

from datetime import UTC, datetime

import pytest

from core.errors import IllegalTransition
from core.lifecycle import FACTS, ON_ENTRY, TABLE, Effect, Event, diagram, step
from core.records import ENDED, ChildRef, Ended, Held, Job, JobCard, JobState, Kind, Queued, Ranking, Releasing, StateFacts, Training

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RANKING = Ranking(since=NOW, candidates=())
FACTS_OF: dict[JobState, StateFacts] = {
    JobState.QUEUED: Queued(since=NOW),
    JobState.TRAINING: Training(since=NOW, child=ChildRef(run="01-train", kind=Kind.TRAIN, instance="i", started_at=NOW)),
    JobState.RANKING: RANKING,
    JobState.HELD: Held(since=NOW, reason="weak", ranking=RANKING),
    JobState.RELEASING: Releasing(since=NOW, ranking=RANKING),
    **dict.fromkeys(ENDED, Ended(at=NOW)),
}


def job_in(state: JobState) -> Job:
    card = JobCard(
        id="job-1",
        adapter="a/main",
        drop="drop-1",
        file="x.jsonl",
        sha256="0" * 64,
        identity="1" * 64,
        created_at=NOW,
        drops=(),
        base_sha256="b",
        backend="stub",
    )
    return Job(card=card, state=state, facts=FACTS_OF[state])


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("event", list(Event))
def test_each_pair_of_state_and_event_is_either_in_the_table_or_refused_without_a_change(state: JobState, event: Event) -> None:
    job = job_in(state)
    if event in TABLE[state]:
        target = TABLE[state][event]
        after, effects = step(job, event, FACTS_OF[target])
        assert after.state is target
        assert effects == ON_ENTRY[target]
        assert after.card == job.card
        return
    before = repr(job)
    with pytest.raises(IllegalTransition) as caught:
        step(job, event, FACTS_OF[state])
    assert repr(job) == before
    for accepting in JobState:
        assert (accepting.value in caught.value.hint) == (event in TABLE[accepting]) or event not in TABLE[accepting]


def test_every_state_but_the_ended_ones_can_be_left_and_every_state_can_be_reached() -> None:
    reached = {JobState.QUEUED} | {to for events in TABLE.values() for to in events.values()}
    assert reached == set(JobState)
    assert {state for state, events in TABLE.items() if not events} == ENDED


def test_a_person_hears_of_every_end_and_of_a_hold() -> None:
    assert {state for state, effects in ON_ENTRY.items() if Effect.NOTIFY in effects} == ENDED | {JobState.HELD}


def test_the_facts_of_another_state_are_a_broken_invariant() -> None:
    with pytest.raises(AssertionError):
        step(job_in(JobState.QUEUED), Event.START, Queued(since=NOW))


def test_the_architecture_page_shows_the_diagram_of_the_table() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert diagram() in page
    assert set(FACTS) == set(JobState)
