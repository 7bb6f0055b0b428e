"""Decides what a schedule entry whose time has come leads to. Pure."""

from collections.abc import Iterator

from core.facts import Due, Facts
from core.housekeeping import begin_due
from core.records import JobState
from core.steps import FireDue, Step


def decide_due(facts: Facts) -> Iterator[Step]:
    """The steps of each entry. A crash in between repeats them: a job has an id made of the entry's time, a chore does no harm twice."""
    for due in facts.due:
        yield from begin_due(due)
        yield FireDue(due=due, skip=_why_not(due, facts) if due.does == "train" else "")


def _why_not(due: Due, facts: Facts) -> str:
    """Why a training would do nothing new, or cannot be queued."""
    if facts.base_sha256 is None:
        return "there is no base model"
    for job in facts.views.active.values():
        if job.card.adapter == due.adapter and job.state is not JobState.HELD:
            return f"{job.id} is {job.state.value}"
        if job.card.adapter == due.adapter and due.drop and job.card.drop >= due.drop:  # else one more for a person to decide comes each time
            return f"{job.id} has trained on the same rows and waits for a person"
    if queued := facts.views.queued.oldest(due.adapter):
        return f"{queued} is queued"
    return "" if due.drop else f"nothing that {due.adapter} could train on was accepted yet"
