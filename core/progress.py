"""Decides about jobs up to the verdict: start, end and retry of training, and the four files of ranking. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from core.endings import cause, code_of, error_of, hang, hint_of, is_final, lost_without_blame, smaller_batch, steps_to_repeat
from core.exits import ChildExit
from core.facts import Facts, incumbent_of
from core.lifecycle import Event
from core.queue import retry_at, why_stop
from core.records import (
    ChildRef,
    Ended,
    Held,
    Job,
    JobState,
    Kind,
    Queued,
    Ranking,
    Releasing,
    StateFacts,
    Training,
    VerdictWord,
)
from core.rounds import held_back
from core.steps import Move, Record, SetAside, StartChild, Step, StopChild
from core.tasks import ChildSeen

BASE = "base"  # model id of the base
DISK_FULL = "DISK_FULL"


def with_child(facts: StateFacts, child: ChildRef | None) -> StateFacts:
    """The facts that name `child` as the one at work; a look at the gate split is counted before it happens."""
    if isinstance(facts, Ranking) and child is not None and child.kind is Kind.SCORE and child.purpose == "gate":
        facts = replace(facts, looks=facts.looks + 1)
    assert isinstance(facts, Training | Ranking | Releasing)
    return replace(facts, child=child)  # type: ignore[arg-type]


# ---------------------------------------------------------------- training


def decide_training(job: Job, facts: Facts, now: datetime) -> Iterator[Step]:
    """What the end of a training child means."""
    work = job.facts
    assert isinstance(work, Training)
    child = facts.children[job.id]
    if child.alive:
        hung = hang(child, facts.config)
        if hung or work.cancel or work.pause or facts.stopping or why_stop(facts):
            yield StopChild(job=job.id, hung=hung)
        return
    code = code_of(child)
    if work.cancel:
        yield Move(job=job.id, event=Event.CANCEL, facts=Ended(at=now, reason="cancelled", by="person", attempts=work.attempts, started_at=work.since))
    elif code == ChildExit.DONE and child.candidates:
        incumbent = incumbent_of(job.card.adapter, facts)
        yield Move(job=job.id, event=Event.TRAINED, facts=Ranking(since=now, candidates=child.candidates, incumbent=incumbent))
    elif code in (ChildExit.BAD_SPEC, ChildExit.BAD_DATA):
        yield Move(job=job.id, event=Event.FAIL, facts=_failed(child, work, now))
    else:
        yield _back_to_queue(job, work, child, facts, now)


def _back_to_queue(job: Job, work: Training, child: ChildSeen, facts: Facts, now: datetime) -> Step:
    moved_on = child.checkpoint is not None and child.checkpoint != work.checkpoint
    blameless = lost_without_blame(child, facts)
    attempts = (0 if moved_on else work.attempts) + (0 if blameless else 1)
    if not blameless and is_final(child, attempts, work.micro_batch, facts.config):
        return Move(job=job.id, event=Event.FAIL, facts=_failed(child, replace(work, attempts=attempts), now))
    checkpoint = child.checkpoint or work.checkpoint
    if not blameless or (child.note and child.note.error):
        reason = cause(child)
    else:
        reason = why_stop(facts) or "interrupted"
        if repeated := steps_to_repeat(child, checkpoint):
            reason += f"; {repeated} steps are repeated"
    queued = Queued(
        since=now,
        reason=reason,
        attempts=attempts,
        checkpoint=checkpoint,
        micro_batch=smaller_batch(child, work.micro_batch, facts.config),
        not_before=None if blameless else retry_at(attempts, now),
        paused=work.pause,
    )
    return Move(job=job.id, event=Event.STOPPED, facts=queued)


def _failed(child: ChildSeen, work: Training, now: datetime) -> Ended:
    return Ended(at=now, reason=cause(child), hint=hint_of(child), code=error_of(child), attempts=work.attempts, started_at=work.since)


# ---------------------------------------------------------------- ranking


def has_turn(job: Job, facts: Facts) -> bool:
    """Of an adapter's jobs in ranking or releasing the oldest acts; one that only waits for a target lets the next go on."""
    for other in facts.views.active.values():
        older = other.id < job.id and other.card.adapter == job.card.adapter and other.state in (JobState.RANKING, JobState.RELEASING)
        waits = isinstance(other.facts, Releasing) and bool(other.facts.fences and other.facts.reason)
        if older and not waits:
            return False
    return True


def models_to_score(ranking: Ranking, split: str) -> tuple[str, ...]:
    """The model ids whose score file on `split` is missing."""
    incumbent = ranking.incumbent or BASE
    candidates = [candidate.id for candidate in ranking.candidates]
    wanted = [*candidates, incumbent, BASE] if split == "dev" else [ranking.best or "", incumbent]
    return tuple(model for model in dict.fromkeys(wanted) if f"{split}/{model}" not in ranking.scores)


def decide_ranking(job: Job, facts: Facts, free_slots: list[int], now: datetime) -> Iterator[Step]:
    """The next of the four files, or the move that the verdict asks for."""
    ranking = job.facts
    assert isinstance(ranking, Ranking)
    if ranking.child is not None:
        child = facts.children[job.id]
        if not child.alive:
            yield _absorb(job, ranking, child, facts, now)
        elif (hung := hang(child, facts.config)) or ranking.cancel or facts.stopping:
            yield StopChild(job=job.id, hung=hung)
        return
    if ranking.cancel:
        yield Move(job=job.id, event=Event.CANCEL, facts=ended_by_person(ranking, "cancelled", now))
        return
    if not has_turn(job, facts):
        if ranking.reason != "turn":
            yield Record(job=job.id, facts=replace(ranking, reason="turn"))
        return
    incumbent = incumbent_of(job.card.adapter, facts)
    if incumbent != ranking.incumbent:
        fresh = replace(ranking, incumbent=incumbent, order=None, best=None, verdict=None, word=None, reason="incumbent changed")
        yield Move(job=job.id, event=Event.INCUMBENT_CHANGED, facts=fresh)
    elif incumbent is not None and incumbent not in facts.releases:
        yield _hold(job, ranking, f"evidence missing: the bytes of the incumbent {incumbent[:12]} are not in adapters/", now)
    elif ranking.word is not None:
        yield from _after_verdict(job, ranking, facts, now)
    elif not facts.stopping and not facts.refused and facts.disk.has_room():
        yield from _next_file(job, ranking, free_slots)


def _next_file(job: Job, ranking: Ranking, free_slots: list[int]) -> Iterator[Step]:
    if models_to_score(ranking, "dev"):
        if free_slots:
            yield StartChild(job=job.id, kind=Kind.SCORE, purpose="dev", slot=free_slots.pop(0))
    elif ranking.order is None:
        yield StartChild(job=job.id, kind=Kind.RANK, purpose="order")
    elif models_to_score(ranking, "gate"):
        if free_slots:
            yield StartChild(job=job.id, kind=Kind.SCORE, purpose="gate", slot=free_slots.pop(0))
    else:
        yield StartChild(job=job.id, kind=Kind.RANK, purpose="verdict")


def _absorb(job: Job, ranking: Ranking, child: ChildSeen, facts: Facts, now: datetime) -> Step:
    note, run = child.note, child.ref.run
    if note is not None and note.code == ChildExit.DONE:
        idle = replace(ranking, child=None, attempts=0, reason="")
        if child.ref.kind is Kind.SCORE:
            return Record(job=job.id, facts=replace(idle, scores={**ranking.scores, **{key: f"{run}/{path}" for key, path in note.scores.items()}}))
        if child.ref.purpose == "order":
            return Record(job=job.id, facts=replace(idle, order=run, best=note.best))
        return Record(job=job.id, facts=replace(idle, verdict=run, word=note.word, reason=note.reason))
    if lost_without_blame(child, facts):
        return Record(job=job.id, facts=replace(ranking, child=None, reason="interrupted"))
    tried = replace(ranking, child=None, attempts=ranking.attempts + 1, reason=cause(child))
    if is_final(child, tried.attempts, ranking.micro_batch, facts.config):
        return _hold(job, tried, f"evidence missing: {cause(child)}", now)
    return Record(job=job.id, facts=replace(tried, micro_batch=smaller_batch(child, ranking.micro_batch, facts.config)))


def _hold(job: Job, ranking: Ranking, reason: str, now: datetime) -> Step:
    return Move(job=job.id, event=Event.HOLD, facts=Held(since=now, reason=reason, ranking=ranking))


def _after_verdict(job: Job, ranking: Ranking, facts: Facts, now: datetime) -> Iterator[Step]:
    word = ranking.word
    if word is VerdictWord.PROMOTE:
        held = held_back(job, facts)
        if held is None:
            yield Move(job=job.id, event=Event.PROMOTE, facts=Releasing(since=now, ranking=ranking))
        elif held:
            yield _hold(job, ranking, f"an iteration missed a criterion: {held}", now)
    elif word is VerdictWord.HOLD:
        yield _hold(job, ranking, ranking.reason, now)
    else:
        yield SetAside(drop=job.card.drop, job=job.id, reason=f"refused by the verdict of {job.id}")
        ended = Ended(at=now, reason=ranking.reason, code="VERDICT_REFUSED", verdict=ranking.verdict, started_at=ranking.since)
        yield Move(job=job.id, event=Event.REFUSE, facts=ended)


def decide_held(job: Job, facts: Facts, now: datetime) -> Iterator[Step]:
    """A held job is superseded once a newer job of its adapter is released."""
    held = job.facts
    assert isinstance(held, Held)
    newer = facts.views.newest_released.get(job.card.adapter, "")
    if newer > job.id:
        ended = Ended(at=now, reason=f"superseded by {newer}", verdict=held.ranking.verdict, started_at=held.ranking.since)
        yield Move(job=job.id, event=Event.SUPERSEDE, facts=ended)


def ended_by_person(ranking: Ranking | None, reason: str, now: datetime, actor: str = "person") -> Ended:
    """The end of a job that a person cancelled or refused."""
    return Ended(at=now, reason=reason, by=actor, verdict=ranking.verdict if ranking else None, started_at=ranking.since if ranking else None)
