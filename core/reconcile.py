"""The tick's decision: what to do now, given what is seen. A pure function; the daemon observes before and applies after."""

from collections.abc import Iterator
from datetime import datetime

from core.background import decide_background
from core.calendar import decide_due
from core.devices import decide_holds
from core.facts import Facts
from core.forgetting import closed_adapters, decide_forgets
from core.intake import decide_intake
from core.lifecycle import Event
from core.loopsteps import RecordIteration
from core.progress import decide_held, decide_ranking, decide_training
from core.queue import decide_start, usable_slots
from core.records import Job, JobState
from core.requests import decide_requests
from core.rollout import decide_releasing, mend_wishes
from core.rounds import decide_iterations
from core.safeguards import go_back, mend_terms
from core.steps import CannotDecide, Decision, Move, PauseQueue, Record, StartChild, Step


def decide(facts: Facts, now: datetime) -> Decision:
    """The steps of one tick, in order. At most one step that changes a job is made for each job and tick."""
    return Decision(steps=tuple(_decide(facts, now)), now=now)


def _decide(facts: Facts, now: datetime) -> Iterator[Step]:
    free_slots = usable_slots(facts)
    touched: set[str] = set()
    for request in decide_requests(facts, now):
        touched.add(request.iteration.id if isinstance(request, RecordIteration) else getattr(request, "job", ""))
        if isinstance(request, PauseQueue):
            free_slots.clear()
        yield request
    for step in decide_forgets(facts, now):
        if (about := getattr(step, "job", "")) not in touched or not about:
            touched.add(about)
            yield step
    for step in decide_iterations(facts, now, touched):
        if (about := getattr(step, "job", "")) not in touched or not about:
            touched |= {about} if isinstance(step, Move | Record) else set()
            yield step
    yield from decide_holds(facts)
    for job in sorted(facts.views.active.values(), key=lambda job: job.id):
        if job.id not in touched:
            yield from _of_job(job, facts, free_slots, now)
    if facts.stopping:
        return
    mended = list(mend_wishes(facts))
    yield from mended
    yield from mend_terms(facts)
    if not mended:
        yield from go_back(facts)
    if not any(job in facts.jobs for job in touched):
        closed = closed_adapters(facts)
        starts = decide_start(facts, free_slots, now)
        yield from (step for step in starts if not (isinstance(step, StartChild) and facts.jobs[step.job].card.adapter in closed))
        yield from decide_due(facts)
    yield from decide_intake(facts, now)
    yield from decide_background(facts, touched, now)


def _of_job(job: Job, facts: Facts, free_slots: list[int], now: datetime) -> list[Step]:
    """The steps of one job. Where its records cannot be understood, that is told and the others go on: one job must not end all."""
    try:
        steps = list(_decide_job(job, facts, free_slots, now))
    except Exception as error:  # the border of a job
        return [CannotDecide(job=job.id, error=error)]
    if any(isinstance(step, Move) and step.event is Event.STOPPED for step in steps):
        free_slots.clear()  # what was interrupted stands in the queue with the next tick, before what is new
    return steps


def _decide_job(job: Job, facts: Facts, free_slots: list[int], now: datetime) -> Iterator[Step]:
    match job.state:
        case JobState.TRAINING:
            yield from decide_training(job, facts, now)
        case JobState.RANKING:
            yield from decide_ranking(job, facts, free_slots, now)
        case JobState.HELD:
            yield from decide_held(job, facts, now)
        case JobState.RELEASING:
            yield from decide_releasing(job, facts, now)
