"""Decides about orders to forget. Each stage is durable before what follows from it; every act can be repeated. Pure.

    asked -> found -> replaced -> queued -> live -> purged -> done
               ^                    ^         ^        |
               +--------------------+---------+--------+   a last search that finds something goes back

A daemon that was killed finds the order in its stage and does what that stage implies once more. Between asked and
replaced no job that trains on the rows starts: those on their way are cancelled, and one retraining of each adapter takes
over what they would have trained on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from core.background import is_read
from core.facts import Facts, TargetSeen, incumbent_of
from core.forgets import Forget, ForgetSeen, Part, Stage, Traces
from core.lifecycle import Event
from core.progress import ended_by_person
from core.records import Held, Job, Queued, Ranking, Releasing, Training
from core.steps import Move, Record, RecordForget, SetWish, Step, WorkForget
from core.wire import Wish


def decide_forgets(facts: Facts, now: datetime) -> Iterator[Step]:
    """The steps of every order that is not done; of each, those of its present stage."""
    if facts.stopping:
        return
    for seen in facts.forgets:
        match seen.order.stage:
            case Stage.ASKED:
                yield from _asked(seen, now)
            case Stage.FOUND:
                yield from _found(seen, facts, now)
            case Stage.REPLACED:
                yield from _replaced(seen, facts)
            case Stage.QUEUED:
                yield from _queued(seen, facts, now)
            case Stage.LIVE:
                yield from _live(seen, facts, now)
            case Stage.PURGED:
                yield from _purged(seen, facts, now)


def closed_adapters(facts: Facts) -> frozenset[str]:
    """Adapters of which no job may start: their drops are about to be replaced."""
    return frozenset(part.adapter for seen in facts.forgets if seen.order.stage is Stage.FOUND for part in seen.order.open_parts)


def is_touched(release: str | None, facts: Facts) -> bool:
    """Whether a release learnt from rows that are being forgotten."""
    return any(release in seen.touched for seen in facts.forgets)


# ---------------------------------------------------------------- stage by stage


def _asked(seen: ForgetSeen, now: datetime) -> Iterator[Step]:
    if seen.traces is None:
        yield from _work(seen, "search", now)
    else:
        yield RecordForget(order=_with(seen.order, seen.traces, Stage.FOUND))


def _found(seen: ForgetSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """Cancel what trains on the rows, then let drops without them take over."""
    order, parts = seen.order, seen.order.open_parts
    in_the_way = [job for job in facts.jobs.values() if trains_on_any(job, parts)] if parts else []
    if in_the_way:
        for job in in_the_way:
            yield from _cancel(job, order, facts, now)
        yield from _wait(order, f"{in_the_way[0].id} ends: it trains on the rows")
    elif busy := next((part.adapter for part in parts if is_read(part.adapter, facts)), ""):
        yield from _wait(order, f"the gate is done with a drop of {busy}")
    elif not parts:
        yield RecordForget(order=replace(order, stage=Stage.REPLACED, waits=""))
    elif seen.made is None:
        yield from _work(seen, "rebuild", now)
    else:
        yield WorkForget(order=order.id, does="replace")


def _replaced(seen: ForgetSeen, facts: Facts) -> Iterator[Step]:
    if facts.base_sha256 is None and seen.order.parts:
        yield from _wait(seen.order, "the base model is there: nothing can be queued without it")
    else:
        yield WorkForget(order=seen.order.id, does="retrain")


def _queued(seen: ForgetSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """Until nothing that learnt from the rows is live: by the retraining, or at once by the newest release that did not."""
    order, waits = seen.order, ""
    for alias, target in _still_live(seen, facts):
        job = order.retraining.get(alias, "")
        ended = facts.views.ended.get(job)
        if order.at_once or not job or (ended is not None and ended.facts.release is not None):
            yield from _fall_back(seen, alias, target)
            waits = waits or f"{target.name} serves another release of {alias}"
        elif ended is not None:
            hint = f"`lorad forget now {order.id}` retires the old releases without a new one"
            waits = f"a person: {job}, which trains {alias} without the rows, ended {ended.state} ({ended.facts.reason}); {hint}"
        else:
            yield from _approve(facts.jobs.get(job), order, facts, now)
            waits = waits or f"{job}, which trains {alias} without the rows, is live on {target.name}"
    if waits:
        yield from _wait(order, waits)
    else:
        yield RecordForget(order=replace(order, stage=Stage.LIVE, releases=_union(order.releases, seen.touched), waits=""))


def _live(seen: ForgetSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """Remove what lies on this box, and ask the targets to. A release that went live again meanwhile is first taken off again."""
    order = seen.order
    if any(_still_live(seen, facts)):
        yield RecordForget(order=replace(order, stage=Stage.QUEUED))
    elif not seen.touched <= set(order.releases):
        yield RecordForget(order=replace(order, releases=_union(order.releases, seen.touched)))
    elif seen.here or any(not set(order.releases) <= _asked_to_purge(target) for target in facts.targets):
        yield WorkForget(order=order.id, does="bury")
    elif seen.swept is None:
        yield from _work(seen, "sweep", now)
    else:
        yield RecordForget(order=replace(order, stage=Stage.PURGED, removed=(*order.removed, *seen.swept), waits=""))


def _purged(seen: ForgetSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """Once every target has confirmed, search a last time."""
    order, traces = seen.order, seen.traces
    silent = [target.name for target in facts.targets if not set(order.releases) <= purged_on(target)]
    if silent:
        yield from _wait(order, f"{', '.join(silent)} confirms that the releases are removed there")
    elif traces is None:
        yield from _work(seen, "search", now)
    elif traces.is_clean:
        yield RecordForget(order=replace(order, stage=Stage.DONE, rows=(), waits="", ended_at=now))
    elif traces.parts:
        yield RecordForget(order=_with(order, traces, Stage.FOUND))
    elif traces.places or traces.here:
        yield RecordForget(order=_with(order, traces, Stage.LIVE))
    else:
        yield from _wait(order, f"{traces.coming[0]} holds the rows again: take it out, or let the gate have it")
        yield from _work(seen, "search", now)


# ---------------------------------------------------------------- parts of them


def _work(seen: ForgetSeen, does: str, now: datetime) -> Iterator[Step]:
    if seen.trouble:
        yield from _wait(seen.order, f"the {does} works: {seen.trouble}")
    if not seen.busy and (seen.rest_until is None or now >= seen.rest_until):
        yield WorkForget(order=seen.order.id, does=does)


def _wait(order: Forget, why: str) -> Iterator[Step]:
    if order.waits != f"until {why}":
        yield RecordForget(order=replace(order, waits=f"until {why}"))


def _with(order: Forget, traces: Traces, stage: Stage) -> Forget:
    """The order with what a search found, in the stage that follows."""
    known = {part.drop for part in order.parts}
    parts = (*order.parts, *(part for part in traces.parts if part.drop not in known))
    jobs, releases = _union(order.jobs, traces.jobs), _union(order.releases, traces.releases)
    return replace(order, stage=stage, waits="", parts=parts, jobs=jobs, releases=releases)


def _union(before: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*before, *more}))


def trains_on_any(job: Job, parts: Iterable[Part]) -> bool:
    """Whether a job trains on one of these drops."""
    return any(job.card.trains_on(part.drop, part.adapter) for part in parts)


def _cancel(job: Job, order: Forget, facts: Facts, now: datetime) -> Iterator[Step]:
    """Cancel a job that learnt from the rows or would; nothing where that is under way."""
    work, reason = job.facts, f"rows that it trains on are forgotten ({order.id})"
    if isinstance(work, Releasing) or (isinstance(work, Training | Ranking) and work.child is not None):
        if not work.cancel:
            yield Record(job=job.id, facts=replace(work, cancel=True))
            yield from _take_back(job, work, facts) if isinstance(work, Releasing) else ()
        return
    assert isinstance(work, Queued | Training | Ranking | Held)
    ranking = work.ranking if isinstance(work, Held) else work if isinstance(work, Ranking) else None
    yield Move(job=job.id, event=Event.CANCEL, facts=ended_by_person(ranking, reason, now, order.actor))


def _take_back(job: Job, work: Releasing, facts: Facts) -> Iterator[Step]:
    for target in facts.targets:
        if target.name in work.fences:
            live = target.live.get(job.card.adapter)
            yield SetWish(target=target.name, alias=job.card.adapter, wish=Wish(release=live, replaces=live))


def _still_live(seen: ForgetSeen, facts: Facts) -> Iterator[tuple[str, TargetSeen]]:
    """(adapter, target) where a release that learnt from the rows is live, or wished for."""
    touched = seen.touched | set(seen.order.releases)
    aliases = {alias for target in facts.targets for alias in (*target.live, *(target.desired.aliases if target.desired else ()))}
    for alias in sorted(aliases):
        for target in facts.targets:
            wish = target.desired.aliases.get(alias) if target.desired else None
            if target.live.get(alias) in touched or (wish is not None and wish.release in touched):
                yield alias, target


def _fall_back(seen: ForgetSeen, alias: str, target: TargetSeen) -> Iterator[Step]:
    wish = target.desired.aliases.get(alias) if target.desired else None
    if wish is None or wish.release in seen.touched | set(seen.order.releases):
        yield SetWish(target=target.name, alias=alias, wish=Wish(release=seen.fallback.get(alias), replaces=target.live.get(alias), allow=True))


def _approve(job: Job | None, order: Forget, facts: Facts, now: datetime) -> Iterator[Step]:
    """A retraining that is no proven loss takes over: its incumbent has to go, so it need not be proven better than that."""
    if job is None or not isinstance(job.facts, Held):
        return
    ranking, live = job.facts.ranking, incumbent_of(job.card.adapter, facts)
    if ranking.verdict is None or ranking.best is None or (job.card.backend == "stub" and not facts.config.allow_stub):
        return
    if live != ranking.incumbent:
        fresh = replace(ranking, since=now, incumbent=live, order=None, best=None, verdict=None, word=None, reason="incumbent changed")
        yield Move(job=job.id, event=Event.INCUMBENT_CHANGED, facts=fresh)
    else:
        yield Move(job=job.id, event=Event.APPROVE, facts=Releasing(since=now, ranking=replace(ranking, approved_by=order.id)))


def _asked_to_purge(target: TargetSeen) -> set[str]:
    return set(target.desired.purge) if target.desired else set()


def purged_on(target: TargetSeen) -> set[str]:
    """The releases that a target has confirmed not to hold."""
    active = target.observed.active if target.observed else None
    return set(active.purged) if active else set()
