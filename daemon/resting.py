"""The jobs and drops of the index, those that rest packed (see `pages`)."""

from core.records import Accepted, Claim, Drop, DropState, Ended, Job, JobCard, JobState, Queued
from core.waiting import is_plain
from daemon.pages import Pages


def jobs() -> Pages[Job]:
    """For jobs that have not ended: a queued one of which nothing more is known rests."""
    return Pages(tuple[JobCard, Queued], lambda job: (job.card, job.facts), lambda row: Job(card=row[0], state=JobState.QUEUED, facts=row[1]), is_plain)


def ended_jobs() -> Pages[Job]:
    """For jobs that have ended, all of which rest."""
    kind = tuple[JobCard, JobState, Ended]
    return Pages(kind, lambda job: (job.card, job.state, job.facts), lambda row: Job(card=row[0], state=row[1], facts=row[2]), lambda job: True)


def drops() -> Pages[Drop]:
    """For drops: one that was accepted rests once its job is made and no check of it is open."""
    return Pages(tuple[Claim, Accepted], lambda drop: (drop.claim, drop.facts), _drop, _rests)


def _drop(row: tuple[Claim, Accepted]) -> Drop:
    return Drop(claim=row[0], state=DropState.ACCEPTED, facts=row[1])


def _rests(drop: Drop) -> bool:
    facts = drop.facts
    return isinstance(facts, Accepted) and facts.job_made and facts.is_proven and drop.state is DropState.ACCEPTED
