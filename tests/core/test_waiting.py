"""A queue of any length: the ids lie close together, and the next job is found as by looking at each."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from core.facts import Facts
from core.jobviews import JobViews
from core.queue import NEVER, decide_start, turn, waits_of, why_waits
from core.records import DropList, Job, JobCard, JobState, Queued
from core.sortedids import SortedIds
from core.steps import StartChild
from core.waiting import Waiting, is_plain

sys.path.insert(0, str(Path(__file__).parent))
from world import START, World


@given(st.lists(st.tuples(st.booleans(), st.text("ab-", min_size=1, max_size=12)), max_size=60))
def test_ids_in_order_are_those_of_a_sorted_set(changes: list[tuple[bool, str]]) -> None:
    kept, ids = set[str](), SortedIds()
    for is_added, id in changes:
        assert (ids.add if is_added else ids.discard)(id) is ((id in kept) is not is_added)
        (kept.add if is_added else kept.discard)(id)
        assert [*ids] == sorted(kept)
        assert ids[1:4] == sorted(kept)[1:4]
        assert (id in ids, len(ids), "" in ids) == (id in kept, len(kept), False)
        assert ids.place_of("b") == sum(one < "b" for one in kept)


def job(number: int, adapter: str, priority: int = 0, without: tuple[int, ...] = (), **facts: object) -> Job:
    at = START + timedelta(seconds=number)
    rows = DropList(upto=f"drop-{number:03d}", without=tuple(f"drop-{one:03d}" for one in without), count=1, sha256="0")
    fields = {"file": "x", "sha256": "0", "identity": f"{number % 4}", "base_sha256": "b", "backend": "stub", "created_at": at, "rows_of": rows}
    card = JobCard(id=f"job-{number:03d}", adapter=adapter, drop=rows.upto, priority=priority, **fields)  # type: ignore[arg-type]
    return Job(card=card, state=JobState.QUEUED, facts=Queued(since=at, **facts))  # type: ignore[arg-type]


@st.composite
def queues(draw: st.DrawFn) -> list[Job]:
    made = []
    for number in range(draw(st.integers(0, 14))):
        known = draw(st.sampled_from([{}, {}, {}, {"paused": "x"}, {"checkpoint": "c"}, {"not_before": START.replace(year=2999)}]))
        without = tuple(draw(st.sets(st.integers(0, number - 1), max_size=2))) if number else ()
        made.append(job(number, draw(st.sampled_from("ab")) + "/main", draw(st.sampled_from([0, 0, 7])), without, **known))
    return made


def facts_of(jobs: Iterable[Job], unproven: Iterable[int] = (), **more: object) -> Facts:
    by_adapter: dict[str, tuple[str, ...]] = {}
    drops = {job.card.drop: job.card.adapter for job in jobs}
    for id in sorted(f"drop-{number:03d}" for number in unproven):
        if id in drops:
            by_adapter[drops[id]] = (*by_adapter.get(drops[id], ()), id)
    open_checks = frozenset(id for ids in by_adapter.values() for id in ids)
    return replace(World().facts(), views=JobViews.of(jobs), unproven=open_checks, unproven_of=by_adapter, paused="", **more)  # type: ignore[arg-type]


def by_looking_at_each(jobs: list[Job], facts: Facts, num_slots: int, now: datetime) -> list[str]:
    """Whose turn it is, the plain way."""
    served, order, left = dict(facts.views.served), [], [job for job in jobs if not why_waits(job, facts, now)]
    while left and len(order) < num_slots:
        best = min(left, key=lambda job: turn(job, served))
        left.remove(best)
        served[best.card.adapter] = now
        order.append(best.id)
    return order


@settings(max_examples=80, deadline=None)
@given(queues(), st.sets(st.integers(0, 14), max_size=3), st.integers(1, 4))
def test_those_start_that_would_start_if_each_job_were_looked_at(jobs: list[Job], unproven: set[int], num_slots: int) -> None:
    facts, now = facts_of(jobs, unproven), START + timedelta(days=1)
    facts.views.served["a/main"] = NEVER + timedelta(days=1)
    started = [step.job for step in decide_start(facts, [*range(num_slots)], now) if isinstance(step, StartChild)]
    assert started == by_looking_at_each(jobs, facts, num_slots, now)


@settings(max_examples=80, deadline=None)
@given(queues(), st.sets(st.integers(0, 14), max_size=3), st.sampled_from(["", "quiet hours"]))
def test_why_a_plain_job_waits_is_told_without_its_record(jobs: list[Job], unproven: set[int], closed: str) -> None:
    facts = facts_of(jobs, unproven, closed=closed)
    for one in jobs:
        if is_plain(one):
            assert one.card.rows_of is not None
            assert waits_of(facts).reason(one.card.adapter, one.card.drop, one.card.rows_of.without) == why_waits(one, facts, START)


@settings(deadline=None)
@given(queues())
def test_what_was_put_and_taken_leaves_the_rest(jobs: list[Job]) -> None:
    queue, left = Waiting(), {job.id: job for job in jobs}
    for one in jobs:
        queue.put(one)
    for one in jobs[::2]:
        assert queue.take(one.card)
        assert not queue.take(one.card)
        del left[one.id]
    assert queue == left
    assert len(queue) == len(left)
    assert queue.oldest() == min(left, default=None)
    for adapter in ("a/main", "b/main"):
        mine = {id for id, one in left.items() if one.card.adapter == adapter}
        assert {one.id for one in queue.of_adapter(adapter)} == mine
        assert {id for id in left if queue.has(id, adapter)} == mine
        assert queue.oldest(adapter) == min(mine, default=None)
    for identity in "0123":
        plain = [one.id for one in left.values() if is_plain(one) and one.card.identity == identity]
        assert queue.with_identity(identity) == sorted(plain)
