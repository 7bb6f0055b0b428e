"""Decides about releases: number, pack, place, wish, outcome. Pure.

The inference box's word is what is live. A job leaves `releasing` only on an outcome read from the box for a fence at
or above the wish that counts.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from core.endings import cause, error_of, hang, hint_of, is_final, lost_without_blame
from core.exits import ChildExit
from core.facts import Facts, TargetSeen
from core.lifecycle import Event
from core.records import Ended, Job, JobState, Kind, Releasing
from core.safeguards import ask_trial, result_of, trial_of
from core.steps import Move, PlaceRelease, Record, SetWish, StartChild, Step, StopChild
from core.wire import AliasState, Outcome, Wish

WATCHING = frozenset({"shadow", "canary", "all"})  # phases of a watch that is not over


def decide_releasing(job: Job, facts: Facts, now: datetime) -> Iterator[Step]:
    """The next step of one job on its way to the targets."""
    work = job.facts
    assert isinstance(work, Releasing)
    if work.child is not None:
        yield from _after_pack(job, work, facts, now)
    elif work.cancel or _newer_owner(job, facts):
        yield from _leave(job, work, facts, now)
    elif facts.stopping:
        return
    elif work.version is None and _reserves_next(job, facts):
        yield Record(job=job.id, facts=replace(work, version=facts.versions.get(job.card.adapter, 0) + 1))
    elif work.version is not None and work.release is None and facts.disk.has_room() and not facts.refused:
        yield StartChild(job=job.id, kind=Kind.PACK)
    elif work.release is not None:
        yield from _publish(job, work, facts, now)


def _reserves_next(job: Job, facts: Facts) -> bool:
    """One job of an adapter reserves a version in a tick, the oldest: two would take the same number."""
    waiting = [other.id for other in facts.views.active.values() if isinstance(other.facts, Releasing) and other.facts.version is None]
    return job.id == min(other for other in waiting if facts.jobs[other].card.adapter == job.card.adapter)


def _newer_owner(job: Job, facts: Facts) -> bool:
    """Whether a newer promoted job of the adapter has taken over the wish."""
    return any(
        other.id > job.id and other.card.adapter == job.card.adapter and isinstance(other.facts, Releasing) and other.facts.release is not None
        for other in facts.views.active.values()
    )


def _after_pack(job: Job, work: Releasing, facts: Facts, now: datetime) -> Iterator[Step]:
    child = facts.children[job.id]
    if child.alive:
        hung = hang(child, facts.config)
        if hung or work.cancel or facts.stopping:
            yield StopChild(job=job.id, hung=hung)
        return
    note = child.note
    if note is not None and note.code == ChildExit.DONE and note.release:
        yield PlaceRelease(job=job.id, run=child.ref.run, release=note.release)
        return
    blameless = lost_without_blame(child, facts)
    attempts = work.attempts + (0 if blameless else 1)
    if not blameless and is_final(child, attempts, None, facts.config):
        ended = Ended(at=now, reason=cause(child), hint=hint_of(child), code=error_of(child), attempts=attempts, started_at=work.since)
        yield Move(job=job.id, event=Event.FAIL, facts=ended)
    else:
        yield Record(job=job.id, facts=replace(work, child=None, attempts=attempts, reason=""))


def _publish(job: Job, work: Releasing, facts: Facts, now: datetime) -> Iterator[Step]:
    """Ask one target after the other; each must say live before the next is asked, and a canary that its watch is over."""
    alias = job.card.adapter
    for target in facts.targets:
        wish = target.desired.aliases.get(alias) if target.desired else None
        if target.name not in work.fences:
            if wish is None or wish.release != work.release:
                trying = list(_rehearse(job, work, target, facts, now))
                yield from trying
                if trying or _is_rehearsing(work, target, facts, job):
                    return
                yield SetWish(target=target.name, alias=alias, wish=Wish(release=work.release, replaces=target.live.get(alias)))
            else:
                assert target.desired is not None
                fences = {**work.fences, target.name: target.desired.fences[alias]}
                yield Record(job=job.id, facts=replace(work, fences=fences))
            return
        if wish is not None and wish.release != work.release:  # a rollback took the wish over
            yield from _leave(job, work, facts, now)
            return
        heard = outcome_at(target, alias, work.fences[target.name])
        if heard is None or heard.outcome is Outcome.DEFERRED:
            yield from _wait(job, work, target, heard)
            return
        if heard.outcome is Outcome.REFUSED or heard.release != work.release:
            yield _refused(job, work, target, heard, now)
            return
        if target is not facts.targets[-1] and (watched := _watched(target, alias, work.release, facts)):
            if watched != work.reason:
                yield Record(job=job.id, facts=replace(work, reason=watched))
            return
    yield Move(job=job.id, event=Event.LIVE, facts=_ended(work, "live on every target", now))


def _rehearse(job: Job, work: Releasing, target: TargetSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """Have the target try the release beside the live one, where the config asks for that; end the job where it did not pass."""
    if not facts.config.deploy.rehearsal.enabled or work.release is None:
        return
    asked = list(ask_trial(target, work.release, trial_of(facts.config.deploy.rehearsal, job.id, job.card.adapter)))
    result = result_of(target, work.release, job.id)
    if asked:
        yield from asked
    elif result is None:
        reason = f"target {target.name}: rehearses it"
        if reason != work.reason:
            yield Record(job=job.id, facts=replace(work, reason=reason))
    elif not result.passed:
        why = f"target {target.name}: the rehearsal failed: {'; '.join(result.reasons)}"
        ended = replace(_ended(work, why, now), code="REHEARSAL_FAILED", release=None)
        hint = "the old release stays live; deploy.rehearsal has the criteria"
        yield Move(job=job.id, event=Event.TARGET_REFUSED, facts=replace(ended, hint=hint))


def _is_rehearsing(work: Releasing, target: TargetSeen, facts: Facts, job: Job) -> bool:
    return facts.config.deploy.rehearsal.enabled and work.release is not None and result_of(target, work.release, job.id) is None


def _watched(target: TargetSeen, alias: str, release: str | None, facts: Facts) -> str:
    """Why the targets after a canary wait: it still watches the release. Empty where it does not, or is no canary."""
    if not any(one.canary and one.name == target.name for one in facts.config.deploy.targets):
        return ""
    active = target.observed.active if target.observed else None
    state = active.watches.get(alias) if active else None
    if state is None or state.release != release or state.phase not in WATCHING:
        return ""
    return f"canary {target.name}: watches it ({state.phase}) until {state.until:%Y-%m-%d %H:%M:%S} UTC, then the other targets are asked"


def outcome_at(target: TargetSeen, alias: str, fence: int) -> AliasState | None:
    """What the target said about `alias` for a fence at or above `fence`; None where it has not spoken yet."""
    active = target.observed.active if target.observed else None
    state = active.aliases.get(alias) if active else None
    return state if state is not None and state.fence >= fence else None


def _wait(job: Job, work: Releasing, target: TargetSeen, heard: AliasState | None) -> Iterator[Step]:
    if heard is not None:
        reason = f"target {target.name}: {heard.code} {heard.reason}".strip()
    elif target.observed is not None and (target.observed.code or not target.observed.reachable):
        reason = f"target {target.name}: {target.observed.reason}"
    else:
        reason = ""
    if reason != work.reason:
        yield Record(job=job.id, facts=replace(work, reason=reason))


def _refused(job: Job, work: Releasing, target: TargetSeen, heard: AliasState, now: datetime) -> Step:
    if heard.code == "INCUMBENT_CHANGED":
        live = target.live.get(job.card.adapter)
        ranking = replace(work.ranking, since=now, incumbent=live, order=None, best=None, verdict=None, word=None, reason="incumbent changed", child=None)
        return Move(job=job.id, event=Event.INCUMBENT_CHANGED, facts=ranking)
    ended = replace(_ended(work, f"target {target.name} refused the release: {heard.reason}", now), code=heard.code or "TARGET_REFUSED", release=None)
    hint = "`lorad adapters history` shows what the box says; the old release stays live"
    return Move(job=job.id, event=Event.TARGET_REFUSED, facts=replace(ended, hint=hint))


def _leave(job: Job, work: Releasing, facts: Facts, now: datetime) -> Iterator[Step]:
    """End a job whose wish was replaced, once every asked target has spoken for the newer fence."""
    alias = job.card.adapter
    for target in facts.targets:
        if target.name not in work.fences:
            continue
        fence = target.desired.fences.get(alias, 0) if target.desired else 0
        if fence <= work.fences[target.name]:
            return  # not replaced yet
        if outcome_at(target, alias, fence) is None:
            return
        if work.release in target.was_live:
            yield Move(job=job.id, event=Event.LIVE, facts=_ended(work, "was live before it was replaced", now))
            return
    reason, event = ("cancelled by a person", Event.CANCEL) if work.cancel else ("superseded by a newer job", Event.SUPERSEDE)
    yield Move(job=job.id, event=event, facts=replace(_ended(work, reason, now), release=None))


def _ended(work: Releasing, reason: str, now: datetime) -> Ended:
    return Ended(
        at=now,
        reason=reason,
        release=work.release,
        version=work.version,
        attempts=work.attempts,
        verdict=work.ranking.verdict,
        started_at=work.ranking.since,
    )


def mend_wishes(facts: Facts) -> Iterator[Step]:
    """Where a target refused a wish that no job stands behind any more, wish for what is live."""
    behind = {job.card.adapter for job in facts.views.active.values() if job.state is JobState.RELEASING}
    for target in facts.targets:
        for alias, wish in (target.desired.aliases if target.desired else {}).items():
            assert target.desired is not None
            heard = outcome_at(target, alias, target.desired.fences[alias])
            live = target.live.get(alias)
            if alias not in behind and heard is not None and heard.outcome is Outcome.REFUSED and wish.release != live:
                reason = f"target {target.name}: {heard.code} {heard.reason}"
                yield SetWish(target=target.name, alias=alias, wish=Wish(release=live, replaces=live), reason=reason)
