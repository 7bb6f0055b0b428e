"""Decides about drops: when an inbox entry is whole, and what the gate's answer means. Pure."""

from collections.abc import Iterator
from datetime import datetime

from core.facts import DropSeen, Entry, Facts, GateSeen
from core.gate import CRASH_HINT, TRAINED, GateResult, first_level
from core.identity import drop_identity
from core.records import Accepted, Gating, JobState, Settling
from core.steps import AcceptDrop, FinishClaim, ForgetClaim, GateDrop, MakeJob, RejectDrop, SettleAgain, Step, TakeDrop

MAX_GATE_CRASHES = 2  # a file that kills the gate child this often is rejected
GATE_FREE_BYTES = 64 << 20  # the gate writes a compressed copy; below this it waits, and a death is not the file's fault
PASSING = frozenset({"FILE_CHANGED", "DISK_FULL", "IO_ERROR"})  # troubles of the gate that may be over the next time
PURPOSES = {"dpo": "pairs of a better and a worse answer (dpo)", "kto": "judged single answers (kto)", "vision": "pictures"}


def decide_intake(facts: Facts, now: datetime) -> Iterator[Step]:
    """Steps for the inbox and for drops that have no job yet, in claim order."""
    gate_free = facts.gate.alive and facts.gate.drop is None and facts.disk.free_bytes >= GATE_FREE_BYTES
    for seen in sorted(facts.drops.values(), key=lambda seen: seen.drop.id):
        steps = list(_decide_drop(seen, facts, now, gate_free))
        gate_free = gate_free and not any(isinstance(step, GateDrop) for step in steps)
        yield from steps
    claimed = {(seen.drop.claim.device, seen.drop.claim.inode) for seen in facts.drops.values() if seen.at_source}
    yield from (TakeDrop(entry=entry) for entry in facts.entries if is_whole(entry, facts) and (entry.device, entry.inode) not in claimed)


def is_whole(entry: Entry, facts: Facts) -> bool:
    """Whether nobody writes this entry any more, as far as anyone can know.

    Only a rename into place proves it. Any other writer is believed after close, quiet time and a last line that parses;
    without one, after a longer quiet time, and then the gate names what is wrong.
    """
    limits = facts.config.validation
    if entry.problem:
        return entry.quiet_s >= limits.settle_s
    if entry.renamed:
        return True
    if entry.parses:
        return entry.quiet_s >= limits.settle_s and not entry.written
    return entry.quiet_s >= limits.unparsable_settle_s


def _decide_drop(seen: DropSeen, facts: Facts, now: datetime, gate_free: bool) -> Iterator[Step]:
    drop = seen.drop
    match drop.facts:
        case Settling():
            yield from _decide_settling(seen, facts, now, gate_free)
        case Gating(crashes=crashes):
            gate = facts.gate
            if seen.code:  # the config was changed so that the sidecar does not resolve any more
                yield RejectDrop(drop=drop.id, code=seen.code, message=seen.problem, hint=seen.hint)
            elif gate.drop == drop.id and gate.result is not None:
                if facts.base_sha256 is not None:
                    yield _after_gate(seen, gate.result, facts)
            elif gate.drop == drop.id and gate.died:
                crashes += facts.disk.free_bytes >= GATE_FREE_BYTES
                yield GateDrop(drop=drop.id, crashes=crashes) if crashes < MAX_GATE_CRASHES else RejectDrop(drop=drop.id, **crashed(gate, crashes))
            elif gate_free:
                yield GateDrop(drop=drop.id, crashes=crashes)
        case Accepted(job_made=False) if facts.base_sha256 is not None:
            yield MakeJob(drop=drop.id)


def _decide_settling(seen: DropSeen, facts: Facts, now: datetime, gate_free: bool) -> Iterator[Step]:
    drop = seen.drop
    assert isinstance(drop.facts, Settling)
    if seen.at_source:
        yield FinishClaim(drop=drop.id)
    elif not seen.in_folder:
        yield ForgetClaim(drop=drop.id)
    elif seen.code:
        yield RejectDrop(drop=drop.id, code=seen.code, message=seen.problem, hint=seen.hint)
    elif not seen.unchanged:
        yield SettleAgain(drop=drop.id)
    elif gate_free and facts.base_sha256 is not None and (drop.facts.quiet_until is None or now >= drop.facts.quiet_until):
        yield GateDrop(drop=drop.id, crashes=0)


def crashed(gate: GateSeen, crashes: int) -> dict[str, str]:
    """What is told about a file that the gate died on."""
    return {
        "code": "GATE_CRASH",
        "message": f"the gate died {crashes} times while it read this file, the last time {gate.end or 'without a word'}",
        "hint": CRASH_HINT,
    }


def _after_gate(seen: DropSeen, result: GateResult, facts: Facts) -> Step:
    drop = seen.drop
    if not seen.unchanged or (result.verdict == "error" and result.code in PASSING):
        return SettleAgain(drop=drop.id)
    if result.verdict == "error":
        return RejectDrop(drop=drop.id, code=result.code, message=result.message, hint=result.hint)
    if result.verdict == "refused":
        return RejectDrop(drop=drop.id)
    assert seen.config is not None
    assert facts.base_sha256 is not None
    if result.objective not in TRAINED:
        return _untrained(drop.id, seen.config.schema_id, result.objective, facts)
    identity = drop_identity(result.sha256, drop.claim.adapter, seen.config, facts.base_sha256)
    first = None if seen.again else _job_with(identity, facts)
    if first is not None:
        return RejectDrop(
            drop=drop.id,
            code="DUPLICATE",
            message=f"the same bytes were dropped before for {drop.claim.adapter}: job {first}",
            hint="`lorad drop --again FILE` trains on them once more",
        )
    background = facts.config.validation.background_deep
    return AcceptDrop(
        drop=drop.id,
        sha256=result.sha256,
        identity=identity,
        rows=result.rows,
        quarantined=result.quarantined,
        schema_id=seen.config.schema_id,
        level=first_level(seen.level, background),
        deep=background and seen.level != "quick",
    )


def _untrained(drop: str, schema_id: str, objective: str, facts: Facts) -> Step:
    return RejectDrop(
        drop=drop,
        code="OBJECTIVE_UNSUPPORTED",
        message=f"rows of {schema_id} teach from {PURPOSES.get(objective, repr(objective))}, and no backend trains that yet",
        hint=f"what can be trained now: {', '.join(facts.trained_specs)}; this drop lies whole beside its report, to be dropped again later",
    )


def _job_with(identity: str, facts: Facts) -> str | None:
    """The job on its way or released that has this identity, if any."""
    for job in facts.jobs.values():
        if job.card.identity == identity:
            return f"{job.id} ({job.state.value})"
    for ended in facts.ended.values():
        if ended.identity == identity and ended.state == JobState.RELEASED:
            return f"{ended.id} (released)"
    for seen in facts.drops.values():
        accepted = seen.drop.facts
        if isinstance(accepted, Accepted) and not accepted.job_made and accepted.identity == identity:
            return f"{accepted.job} (queued)"
    return None
