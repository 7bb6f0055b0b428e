"""What should move, and how it is seen that it does: for the alerts about jobs that are stuck. Pure."""

from datetime import datetime
from itertools import islice

from core.facts import Facts, TargetSeen
from core.queue import usable_slots, why_all_wait, why_stop, why_waits
from core.records import Job, Kind, Ranking, Releasing, Training

QUIET_S = 60.0  # a child whose last sign of life is younger is at work
LOOKED_AT = 100  # queued jobs that are looked at for one that could start


def should_move(job: Job, facts: Facts) -> bool:
    """Whether the job is at work, or nothing that is known keeps it from work. One in releasing always waits for somebody."""
    work = job.facts
    if facts.stopping:
        return False
    if isinstance(work, Releasing):
        return True
    if not isinstance(work, Training | Ranking):
        return False
    if work.child is not None:
        slot = work.child.slot
        return not any(device.slot == slot and device.held for device in facts.devices)
    return isinstance(work, Ranking) and work.reason != "turn" and bool(facts.free_slots) and facts.disk.has_room() and not why_stop(facts)


def movement(job: Job, facts: Facts) -> object:
    """A mark that changes whenever the job gets on; None: it is at work in a way that has no steps."""
    if isinstance(job.facts, Releasing):
        return job.state
    child = facts.children.get(job.id)
    if child is None or not child.alive:
        return job.facts
    if child.ref.kind is not Kind.TRAIN or child.median_step_s is None:
        return None if child.silent_s < QUIET_S else child.ref.run
    return (child.ref.run, child.step)


def queue_should_move(facts: Facts, now: datetime) -> bool:
    """Whether some job could start: a slot is free, and nothing says why it waits."""
    if not facts.views.queued or facts.stopping or why_all_wait(facts) or not usable_slots(facts):
        return False
    return any(not why_waits(job, facts, now) for job in islice(facts.views.queued.values(), LOOKED_AT))


def is_apart(target: TargetSeen) -> bool:
    """Whether a target that has served something is out of reach."""
    return bool(target.live) and target.observed is not None and not target.observed.reachable
