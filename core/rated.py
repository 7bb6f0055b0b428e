"""Decides about a person's blind rating: it is kept with the job, and the job is judged again. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from core.commands import Answer, Command
from core.lifecycle import Event
from core.ratings import RATING, key_of, rating_of
from core.records import Held, Job, Ranking
from core.steps import KeepRating, Move, Reply, Step

BASE = "base"
RATED = "rated"


def is_rated_since(job: Job, since: datetime) -> bool:
    """Whether the job is on its way to a verdict with a rating that came after `since`."""
    return isinstance(job.facts, Ranking) and job.facts.reason == RATED and job.facts.since >= since


def decide_rating(command: Command, job: Job, now: datetime) -> Iterator[Step]:
    """Keep the rating and let the verdict be given again, with the same scores: a rating is no look at the gate split.

    Refused for a job that is not held, or whose candidate or incumbent is another than the rated one.
    """
    ranking = job.facts.ranking if isinstance(job.facts, Held) else None
    if ranking is None or ranking.best is None:
        yield _no(command, f"job {job.id} is {job.state.value}", "only a job that is held after its ranking can be rated", "ILLEGAL_TRANSITION")
        return
    try:
        rating = rating_of(job.id, command.details, command.actor or "a person", now)
    except ValueError as error:
        yield _no(command, f"the rating cannot be read: {error}", "`lorad compare A B --rate` makes one", "RATING_WRONG")
        return
    if (rating.candidate, rating.incumbent) != (ranking.best, ranking.incumbent or BASE):
        what = f"{rating.candidate} against {rating.incumbent[:12]} was rated; job {job.id} is about {ranking.best} against {(ranking.incumbent or BASE)[:12]}"
        yield _no(command, what, "rate again: what is live has changed", "INCUMBENT_CHANGED")
        return
    yield KeepRating(job=job.id, rating=rating)
    rated = replace(ranking, scores={**ranking.scores, key_of(ranking.best): RATING}, verdict=None, word=None, reason=RATED, since=now)
    yield Move(job=job.id, event=Event.RATED, facts=rated)
    counts = f"{rating.better} better, {rating.worse} worse, {rating.ties} ties"
    message = f"job {job.id} is judged again with the rating ({counts})"
    yield Reply(answer=Answer(command=command.id, ok=True, message=message), log=command.kind.value, actor=command.actor, reason=command.reason)


def _no(command: Command, message: str, hint: str, code: str) -> Reply:
    answer = Answer(command=command.id, ok=False, message=message, hint=hint, code=code)
    return Reply(answer=answer, log=command.kind.value, actor=command.actor, reason=command.reason)
