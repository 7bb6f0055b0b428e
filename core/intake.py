"""Decides about drops: when an inbox entry is whole, and what the gate's answer means. Pure.

The gate child is never let wait for a tick: small drops are handed to it several at a time, each checked as if those
before it had been accepted. Their answers are taken in the order in which they were asked for; where one is not accepted
after all, those of its adapter behind it are asked for again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from core.facts import DropSeen, Entry, Facts, GateSeen
from core.gate import CRASH_HINT, TRAINED, GateResult, first_level
from core.identity import drop_identity
from core.records import Accepted, Gating, Settling
from core.steps import AcceptDrop, FinishClaim, ForgetClaim, GateDrop, MakeJob, RejectDrop, SettleAgain, Step, TakeDrop

MAX_GATE_CRASHES = 2  # a file that kills the gate child this often is rejected
GATE_FREE_BYTES = 64 << 20  # the gate writes a compressed copy; below this it waits, and a death is not the file's fault
MAX_COMING = 128  # drops that are claimed and have no job yet; the others lie as safe in the inbox, and cost nothing there
SMALL_BYTES = 1 << 20  # a drop up to this size is handed to the gate child while others wait there
PASSING = frozenset({"FILE_CHANGED", "DISK_FULL", "IO_ERROR"})  # troubles of the gate that may be over the next time
PURPOSES = {"vision": "pictures"}


def decide_intake(facts: Facts, now: datetime) -> Iterator[Step]:
    """Steps for the inbox and for drops that have no job yet, in claim order."""
    ordered = sorted(facts.drops.values(), key=lambda seen: seen.drop.id)
    jobless = [(seen.drop, seen.drop.facts) for seen in ordered if isinstance(seen.drop.facts, Accepted) and not seen.drop.facts.job_made]
    if facts.base_sha256 is not None:
        yield from (MakeJob(drop=drop.id) for drop, _ in jobless)
    yield from _take_answers(facts, {accepted.identity: accepted.job for _, accepted in jobless})
    room, at_gate = _room(facts), _at_gate(facts.gate)
    for seen in ordered:
        if seen.drop.id in at_gate:
            continue
        steps = list(_decide_drop(seen, facts, now))
        if any(isinstance(step, GateDrop) for step in steps):
            if not room or (room < facts.gate.room and not _is_small(seen, facts)):
                room = 0  # what comes later does not overtake it
                continue
            room = room - 1 if _is_small(seen, facts) else 0
        yield from steps
    yield from _take_entries(facts)


def _take_entries(facts: Facts) -> Iterator[Step]:
    """Claims of what is whole, as long as not too much is on its way and its persona has room."""
    coming = [seen for seen in facts.drops.values() if not isinstance(seen.drop.facts, Accepted)]
    claimed = {(seen.drop.claim.device, seen.drop.claim.inode) for seen in coming if seen.at_source}
    used = Counter(facts.taken_bytes)
    left = MAX_COMING - len(coming) if facts.disk.has_room() else 0  # on a full disk they lie as safe in the inbox
    for entry in facts.entries:
        if left <= 0:
            return
        if is_whole(entry, facts) and (entry.device, entry.inode) not in claimed and has_quota(entry, used, facts):
            used[entry.persona] += entry.held_bytes
            left -= 1
            yield TakeDrop(entry=entry)


def has_quota(entry: Entry, used: Counter[str], facts: Facts) -> bool:
    """Whether the persona may drop so much now. What could never be taken is claimed, to be refused with a report."""
    quota = facts.config.inbox.quota_mb << 20
    return not quota or bool(entry.problem) or entry.held_bytes > quota or used[entry.persona] + entry.held_bytes <= quota


def over_quota(facts: Facts) -> dict[str, int]:
    """Persona -> how many whole entries wait until what it dropped is a day old."""
    used = Counter(facts.taken_bytes)
    return dict(Counter(entry.persona for entry in facts.entries if is_whole(entry, facts) and not has_quota(entry, used, facts)))


# ---------------------------------------------------------------- the gate


def _at_gate(gate: GateSeen) -> tuple[str, ...]:
    return () if gate.drop is None else (gate.drop, *gate.behind)


def _is_small(seen: DropSeen | None, facts: Facts) -> bool:
    """Whether the gate is done with it in a blink: a file of little size that is not compared with all that came earlier."""
    if seen is None or seen.drop.claim.size_bytes > SMALL_BYTES or seen.drop.claim.file.endswith(".drop"):
        return False
    return first_level(seen.level, facts.config.validation.background_deep) != "deep"


def _room(facts: Facts) -> int:
    """How many drops may be handed over now; one that is not small goes alone."""
    gate = facts.gate
    if not gate.alive or not facts.disk.has_room(GATE_FREE_BYTES):
        return 0
    at_gate = _at_gate(gate)
    return gate.room if all(_is_small(facts.drops.get(drop), facts) for drop in at_gate) else 0


def _take_answers(facts: Facts, jobless: Mapping[str, str]) -> Iterator[Step]:
    """What the answers of the gate mean, in the order of the asking, up to the first that is still open.

    Args: jobless: identity -> the job to be made, of accepted drops that have none yet.
    """
    gate = facts.gate
    results = dict(gate.results) | ({gate.drop: gate.result} if gate.drop is not None and gate.result is not None else {})
    accepted: set[str] = set()  # identities, in this tick
    misled: set[str] = set()  # adapters whose later drops were checked as if another had been accepted
    is_open = False
    for drop in _at_gate(gate):
        seen = facts.drops.get(drop)
        if seen is None or not isinstance(seen.drop.facts, Gating):
            continue
        result, adapter = results.get(drop), seen.drop.claim.adapter
        if adapter in misled:
            yield GateDrop(drop=drop, crashes=seen.drop.facts.crashes)
        elif is_open:
            continue
        elif seen.code:  # the config was changed so that the sidecar does not resolve any more
            misled.add(adapter)
            yield RejectDrop(drop=drop, code=seen.code, message=seen.problem, hint=seen.hint)
        elif result is None and gate.died and drop == gate.drop:
            is_open = True
            crashes = seen.drop.facts.crashes + facts.disk.has_room(GATE_FREE_BYTES)
            yield GateDrop(drop=drop, crashes=crashes) if crashes < MAX_GATE_CRASHES else RejectDrop(drop=drop, **crashed(gate, crashes))
        elif result is None or facts.base_sha256 is None:
            is_open = True
        else:
            step = _after_gate(seen, result, facts, jobless)
            if isinstance(step, AcceptDrop) and not seen.again and step.identity in accepted:
                is_open = True  # the same bytes twice at once: the next tick knows the job of the first
                continue
            if isinstance(step, AcceptDrop):
                accepted.add(step.identity)
            elif result.verdict == "accepted" and result.new_groups:
                misled.add(adapter)
            yield step


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


def _decide_drop(seen: DropSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    """What is to be done with a drop that is not at the gate; whether the gate has room is for the caller to know."""
    drop = seen.drop
    match drop.facts:
        case Settling():
            yield from _decide_settling(seen, facts, now)
        case Gating(crashes=crashes):
            if seen.code:
                yield RejectDrop(drop=drop.id, code=seen.code, message=seen.problem, hint=seen.hint)
            else:
                yield GateDrop(drop=drop.id, crashes=crashes)


def _decide_settling(seen: DropSeen, facts: Facts, now: datetime) -> Iterator[Step]:
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
    elif facts.base_sha256 is not None and (drop.facts.quiet_until is None or now >= drop.facts.quiet_until):
        yield GateDrop(drop=drop.id, crashes=0)


def crashed(gate: GateSeen, crashes: int) -> dict[str, str]:
    """What is told about a file that the gate died on."""
    return {
        "code": "GATE_CRASH",
        "message": f"the gate died {crashes} times while it read this file, the last time {gate.end or 'without a word'}",
        "hint": CRASH_HINT,
    }


def _after_gate(seen: DropSeen, result: GateResult, facts: Facts, jobless: Mapping[str, str]) -> Step:
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
    if result.sha256 in facts.forgotten and not seen.again:
        return RejectDrop(
            drop=drop.id,
            code="FORGOTTEN",
            message="these very bytes were forgotten by order (`lorad forget status`)",
            hint="delete this copy; `lorad drop --again FILE` takes it all the same",
        )
    identity = drop_identity(result.sha256, drop.claim.adapter, seen.config, facts.base_sha256)
    first = None if seen.again else _job_with(identity, facts, jobless)
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


def _job_with(identity: str, facts: Facts, jobless: Mapping[str, str]) -> str | None:
    """The job on its way or released that has this identity, if any."""
    for job, state in facts.views.with_identity(identity).items():
        return f"{job} ({state.value})"
    return f"{jobless[identity]} (queued)" if identity in jobless else None
