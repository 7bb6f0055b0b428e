"""Decides about drops that were accepted at the level standard and are checked at deep while their jobs wait. Pure.

A drop is checked as long as a queued job names it: its own, or a later one of the adapter. Passed, its jobs may start.
Refused, in this order, each durable before the next: the drop remembers it with the reports, its own job moves to
refused, later jobs' cards are written without it, and the drop follows to the rejected.
"""

from collections.abc import Iterator, Set
from datetime import datetime, timedelta

from core.facts import DropSeen, Facts
from core.intake import GATE_FREE_BYTES, MAX_GATE_CRASHES, PASSING, crashed
from core.lifecycle import Event
from core.records import Accepted, Deep, DeepState, Drop, Ended, Gating, Job, Settling
from core.steps import DeepenDrop, Move, PassDeep, PostponeDeep, RefuseDeep, RejectDrop, Step, StopDeep, TakeOut

PATIENCE = timedelta(seconds=30)  # after a trouble of the machine


def decide_background(facts: Facts, touched: Set[str], now: datetime) -> Iterator[Step]:
    """Steps for accepted drops with a check open. `touched` jobs were decided about in this tick already."""
    # New drops come first: their people wait, and two gates at once would share the cores.
    waiting = any(isinstance(seen.drop.facts, Settling | Gating) for seen in facts.drops.values())
    free = facts.deep_gate.drop is None and not waiting and facts.disk.has_room(GATE_FREE_BYTES) and facts.base_sha256 is not None
    for seen in sorted(facts.drops.values(), key=lambda seen: seen.drop.id):
        accepted = seen.drop.facts
        if not isinstance(accepted, Accepted) or accepted.deep is None:
            continue
        if accepted.deep.state is DeepState.REFUSED:
            yield from _leave(seen, accepted, facts, touched, now)
        elif accepted.deep.state is DeepState.WAITING:
            steps = list(_check(seen, accepted.deep, facts, free, now))
            free = free and not any(isinstance(step, DeepenDrop) for step in steps)
            yield from steps


def _check(seen: DropSeen, deep: Deep, facts: Facts, free: bool, now: datetime) -> Iterator[Step]:
    drop, gate = seen.drop.id, facts.deep_gate
    at_work = gate.drop == drop
    if not (at_work or seen.code or free):
        return
    if not _is_waited_for(seen, facts):
        if at_work:
            yield StopDeep(drop=drop)
    elif seen.code:  # the config was changed so that the sidecar does not resolve any more
        yield RefuseDeep(drop=drop, code=seen.code, message=seen.problem, hint=seen.hint)
    elif at_work and gate.result is not None:
        result = gate.result
        if result.verdict == "accepted":
            yield PassDeep(drop=drop, rows=result.rows, quarantined=result.quarantined)
        elif result.verdict == "refused":
            yield RefuseDeep(drop=drop)
        elif result.code in PASSING:
            yield PostponeDeep(drop=drop, until=now + PATIENCE)
        else:
            yield RefuseDeep(drop=drop, code=result.code, message=result.message, hint=result.hint)
    elif at_work and gate.died:
        crashes = deep.crashes + facts.disk.has_room(GATE_FREE_BYTES)
        yield DeepenDrop(drop=drop, crashes=crashes) if crashes < MAX_GATE_CRASHES else RefuseDeep(drop=drop, **crashed(gate, crashes))
    elif free and (deep.not_before is None or now >= deep.not_before):
        yield DeepenDrop(drop=drop, crashes=deep.crashes)


def _is_waited_for(seen: DropSeen, facts: Facts) -> bool:
    """Whether a queued job trains on the drop: its own, as a rule."""
    accepted = seen.drop.facts
    own = isinstance(accepted, Accepted) and facts.views.queued.has(accepted.job, seen.drop.claim.adapter)
    return own or any(_waiting_for(seen.drop, facts))


def _waiting_for(drop: Drop, facts: Facts) -> Iterator[Job]:
    """The queued jobs that train on the drop."""
    adapter = drop.claim.adapter
    return (job for job in facts.views.queued.of_adapter(adapter) if job.card.trains_on(drop.id, adapter))


def _leave(seen: DropSeen, accepted: Accepted, facts: Facts, touched: Set[str], now: datetime) -> Iterator[Step]:
    drop = seen.drop
    assert accepted.deep is not None
    jobs = sorted(_waiting_for(drop, facts), key=lambda job: job.id)
    for job in jobs:
        if job.id in touched:
            continue
        if job.card.drop == drop.id:
            reason = f"the gate refused {drop.claim.file} at level deep: {accepted.deep.code}"
            ended = Ended(at=now, reason=reason, hint=f"read inbox/rejected/{drop.id}/report.md", code="GATE_REFUSED")
            yield Move(job=job.id, event=Event.GATE_REFUSED, facts=ended)
        else:
            yield TakeOut(job=job.id, drop=drop.id)
    if not jobs and not is_read(drop.claim.adapter, facts):
        yield RejectDrop(drop=drop.id)


def is_read(adapter: str, facts: Facts) -> bool:
    """Whether a gate works on a drop of this adapter: it may be reading the rows of all that were accepted before."""
    at_work = (facts.drops.get(drop) for gate in (facts.gate, facts.deep_gate) for drop in (gate.drop, *gate.behind) if drop is not None)
    return any(seen is not None and seen.drop.claim.adapter == adapter for seen in at_work)
