"""Several small drops wait at the gate child at once; their answers are taken in order, and a wrong guess is asked for again."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.batches import in_runs
from core.config import Config, resolve
from core.facts import DropSeen, Entry, Facts, GateSeen
from core.gate import GateResult
from core.intake import MAX_COMING, SMALL_BYTES, decide_intake, over_quota
from core.records import Accepted, Claim, Drop, DropState, Gating, Settling
from core.steps import AcceptDrop, GateDrop, MakeJob, RejectDrop, SettleAgain, Step, TakeDrop

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seen(number: int, facts: Settling | Gating | Accepted | None = None, *, adapter: str = "a/main", size: int = 100, **fields: object) -> DropSeen:
    facts = facts or Settling(since=NOW)
    state = {Settling: DropState.SETTLING, Gating: DropState.GATING, Accepted: DropState.ACCEPTED}[type(facts)]
    file = str(fields.pop("file", "x.jsonl"))
    claim = Claim(drop=f"drop-{number}", adapter=adapter, source=file, device=1, inode=number, size_bytes=size, mtime_ns=4, file=file, claimed_at=NOW)
    given: dict[str, object] = {"config": Config(), "in_folder": True, **fields}
    return DropSeen(drop=Drop(claim=claim, state=state, facts=facts), **given)  # type: ignore[arg-type]


def at_gate(number: int, **fields: object) -> DropSeen:
    return seen(number, Gating(since=NOW), **fields)  # type: ignore[arg-type]


def answer(number: int, verdict: str = "accepted", **fields: object) -> GateResult:
    given = {"sha256": f"{number}" * 64, "rows": 3, "new_groups": 3, "ended_at": NOW, **fields}
    return GateResult(drop=f"drop-{number}", verdict=verdict, **given)  # type: ignore[arg-type]


def gate(*numbers: int, answered: tuple[GateResult, ...] = (), **fields: object) -> GateSeen:
    first, *behind = [f"drop-{number}" for number in numbers]
    results = {result.drop: result for result in answered}
    given: dict[str, object] = {"alive": True, "room": 8, **fields}
    return GateSeen(drop=first, result=results.get(first), behind=tuple(behind), results=results, **given)  # type: ignore[arg-type]


def steps(*drops: DropSeen, gate: GateSeen | None = None, **fields: object) -> list[Step]:
    facts = Facts(instance="i", config=Config(), backend="stub", base_sha256="base", gate=gate or GateSeen(alive=True, room=8))
    return list(decide_intake(replace(facts, drops={one.drop.id: one for one in drops}, **fields), NOW))  # type: ignore[arg-type]


def asked(found: list[Step]) -> list[str]:
    return [step.drop for step in found if isinstance(step, GateDrop)]


# ---------------------------------------------------------------- handing over


def test_small_drops_are_handed_over_in_order_as_far_as_there_is_room() -> None:
    drops = [seen(number) for number in (3, 1, 2, 4)]
    assert asked(steps(*drops, gate=GateSeen(alive=True, room=3))) == ["drop-1", "drop-2", "drop-3"]
    assert asked(steps(at_gate(1), *(seen(number) for number in (2, 3)), gate=gate(1, room=1))) == ["drop-2"]


@pytest.mark.parametrize(
    ("large", "why"),
    [
        (seen(2, size=SMALL_BYTES + 1), "it takes long"),
        (seen(2, level="deep"), "it is compared with all that came earlier"),
        (seen(2, file="pictures.drop"), "nobody knows yet what lies in it"),
    ],
)
def test_a_drop_that_is_not_small_goes_alone_and_nothing_overtakes_it(large: DropSeen, why: str) -> None:
    assert asked(steps(seen(1), large, seen(3))) == ["drop-1"], why
    assert asked(steps(large, seen(3))) == ["drop-2"]
    working = replace(large, drop=replace(large.drop, state=DropState.GATING, facts=Gating(since=NOW)))
    assert asked(steps(working, seen(3), gate=gate(2))) == []


def test_a_child_that_is_dead_is_handed_nothing() -> None:
    assert asked(steps(seen(1), gate=GateSeen(alive=False, room=8))) == []


# ---------------------------------------------------------------- answers


def test_answers_are_taken_in_order_up_to_the_first_that_is_open() -> None:
    drops = [at_gate(number) for number in (1, 2, 3)]
    found = steps(*drops, gate=gate(1, 2, 3, answered=(answer(1), answer(2))))
    assert [step.drop for step in found if isinstance(step, AcceptDrop)] == ["drop-1", "drop-2"]
    assert steps(*drops, gate=gate(1, 2, 3, answered=(answer(2),))) == [], "nothing overtakes"


def test_the_same_bytes_twice_at_once_are_one_job_and_a_refusal_that_names_it() -> None:
    twins = gate(1, 2, answered=(answer(1), answer(2, sha256="1" * 64, new_groups=0)))
    [first] = steps(at_gate(1), at_gate(2), gate=twins)
    assert isinstance(first, AcceptDrop)
    accepted = Accepted(at=NOW, job="job-7", sha256="1" * 64, identity=first.identity, rows=3, schema_id="chat_sft_v1")
    made, second = steps(seen(1, accepted), at_gate(2), gate=gate(2, answered=(answer(2, sha256="1" * 64, new_groups=0),)))
    assert made == MakeJob(drop="drop-1")
    assert isinstance(second, RejectDrop)
    assert (second.code, "job-7" in second.message) == ("DUPLICATE", True)


def test_drops_behind_one_that_is_not_accepted_after_all_are_checked_again() -> None:
    drops = [at_gate(1, unchanged=False), at_gate(2), at_gate(3, adapter="b/main"), at_gate(4)]
    found = steps(*drops, gate=gate(1, 2, 3, 4, answered=(answer(1), answer(2), answer(3))))
    assert found[0] == SettleAgain(drop="drop-1")
    assert asked(found) == ["drop-2", "drop-4"], "answered or not: both counted drop-1"
    assert [step.drop for step in found if isinstance(step, AcceptDrop)] == ["drop-3"], "another adapter's"


@pytest.mark.parametrize("result", [answer(1, "refused"), answer(1, "error", code="IO_ERROR"), answer(1, new_groups=0)])
def test_one_that_the_child_did_not_count_itself_misleads_nobody(result: GateResult) -> None:
    first = at_gate(1, unchanged=result.verdict != "accepted")
    found = steps(first, at_gate(2), gate=gate(1, 2, answered=(result, answer(2))))
    assert asked(found) == []
    assert isinstance(found[-1], AcceptDrop)


def test_the_drop_that_the_child_died_over_is_counted_and_no_other() -> None:
    died = gate(1, alive=False, died=True, end="by SIGSEGV")
    assert steps(at_gate(1), at_gate(2), gate=died) == [GateDrop(drop="drop-1", crashes=1)]
    twice = seen(1, Gating(since=NOW, crashes=1))
    [refused] = steps(twice, at_gate(2), gate=died)
    assert isinstance(refused, RejectDrop)
    assert refused.code == "GATE_CRASH"


# ---------------------------------------------------------------- claims


def entry(number: int, *, persona: str = "ann", size: int = 10, **fields: object) -> Entry:
    given: dict[str, object] = {"device": 1, "inode": number, "mtime_ns": number, "sidecar": None, "renamed": True, "quiet_s": 0.0, "parses": True, **fields}
    return Entry(source=f"{persona}/{number}.jsonl", adapter=f"{persona}/main", size_bytes=size, **given)  # type: ignore[arg-type]


def taken(found: list[Step]) -> list[int]:
    return [step.entry.inode for step in found if isinstance(step, TakeDrop)]


def test_no_more_is_claimed_than_the_gate_has_work_for() -> None:
    entries = tuple(entry(number) for number in range(1000, 1400))
    assert len(taken(steps(entries=entries))) == MAX_COMING
    waiting = [seen(number) for number in range(MAX_COMING - 3)]
    assert taken(steps(*waiting, entries=entries)) == [1000, 1001, 1002]


QUOTA = resolve({"config.json": {"inbox.quota_mb": 1}}).config
MB = 1 << 20


def test_what_is_over_a_personas_quota_waits_and_others_are_taken() -> None:
    entries = (entry(1, size=MB // 2), entry(2, size=MB // 2 + 1), entry(3, size=10), entry(4, persona="bob", size=MB))
    facts = {"entries": entries, "config": QUOTA}
    assert taken(steps(**facts)) == [1, 3, 4]
    assert taken(steps(**facts, taken_bytes={"ann": MB - 5})) == [4]
    held = Facts(instance="i", config=QUOTA, backend="stub", base_sha256="b", entries=entries, taken_bytes={"ann": MB - 5})
    assert over_quota(held) == {"ann": 3}
    assert over_quota(replace(held, config=Config())) == {}


def test_what_could_never_be_taken_is_claimed_to_be_refused() -> None:
    assert taken(steps(entries=(entry(1, size=MB + 1), entry(2, problem="a FIFO", quiet_s=9.0)), config=QUOTA, taken_bytes={"ann": MB})) == [1, 2]


def test_a_folder_counts_with_all_that_lies_in_it() -> None:
    assert taken(steps(entries=(entry(1, total_bytes=MB), entry(2)), config=QUOTA)) == [1]


# ---------------------------------------------------------------- carried out together


def test_steps_of_one_kind_in_a_row_are_one_run() -> None:
    claims = [TakeDrop(entry=entry(number)) for number in range(3)]
    others = [RejectDrop(drop="drop-1"), RejectDrop(drop="drop-2")]
    runs = list(in_runs([*claims, *others, MakeJob(drop="drop-3")]))
    assert [len(run) for run in runs] == [3, 1, 1, 1]
    assert [step for run in runs for step in run] == [*claims, *others, MakeJob(drop="drop-3")]
    assert max(len(run) for run in in_runs([MakeJob(drop=str(number)) for number in range(500)])) <= 64
