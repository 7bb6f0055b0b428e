"""What the gate's answer means for a drop, and what happens when the gate or the file misbehaves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.config import Config, resolve
from core.facts import DiskSeen, DropSeen, Entry, Facts, GateSeen
from core.gate import GateResult
from core.identity import drop_identity
from core.intake import decide_intake
from core.jobviews import EndedJob
from core.records import Accepted, Claim, Deep, Drop, DropState, Ended, Gating, Settling
from core.steps import AcceptDrop, FinishClaim, ForgetClaim, GateDrop, MakeJob, RejectDrop, SettleAgain, Step, TakeDrop

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claim(drop: str = "drop-1") -> Claim:
    return Claim(
        drop=drop,
        adapter="a/main",
        source="a/x.jsonl",
        device=1,
        inode=2,
        size_bytes=3,
        mtime_ns=4,
        file="x.jsonl",
        claimed_at=NOW,
    )


def seen(facts: Settling | Gating | Accepted, **fields: object) -> DropSeen:
    state = {Settling: DropState.SETTLING, Gating: DropState.GATING, Accepted: DropState.ACCEPTED}[type(facts)]
    given: dict[str, object] = {"config": Config(), "in_folder": True, **fields}
    return DropSeen(drop=Drop(claim=claim(), state=state, facts=facts), **given)  # type: ignore[arg-type]


def steps(drop: DropSeen, gate: GateSeen | None = None, **fields: object) -> list[Step]:
    facts = Facts(
        instance="i",
        config=Config(),
        backend="stub",
        base_sha256="base",
        drops={drop.drop.id: drop},
        gate=gate or GateSeen(alive=True),
    )
    return list(decide_intake(replace(facts, **fields), NOW))  # type: ignore[arg-type]


def answer(verdict: str, **fields: object) -> GateSeen:
    result = GateResult(drop="drop-1", verdict=verdict, sha256="5" * 64, rows=7, ended_at=NOW, **fields)  # type: ignore[arg-type]
    return GateSeen(alive=True, drop="drop-1", result=result)


GATING = seen(Gating(since=NOW))


def test_a_claim_that_was_broken_off_is_finished_and_one_that_took_nothing_is_forgotten() -> None:
    assert steps(seen(Settling(since=NOW), in_folder=False, at_source=True)) == [FinishClaim(drop="drop-1")]
    assert steps(seen(Settling(since=NOW), in_folder=False)) == [ForgetClaim(drop="drop-1")]


def test_a_claimed_file_goes_to_the_gate_once_the_gate_is_free_and_the_base_is_there() -> None:
    waiting = seen(Settling(since=NOW))
    assert steps(waiting) == [GateDrop(drop="drop-1", crashes=0)]
    assert steps(waiting, GateSeen(alive=True, drop="another")) == []
    assert steps(waiting, base_sha256=None) == []
    assert steps(waiting, disk=DiskSeen(free_bytes=1 << 20)) == []


def test_a_file_that_changed_while_it_was_read_is_left_until_it_is_quiet() -> None:
    assert steps(replace(GATING, unchanged=False), answer("accepted")) == [SettleAgain(drop="drop-1")]
    later = seen(Settling(since=NOW, quiet_until=NOW + timedelta(seconds=1)))
    assert steps(later) == []
    assert steps(replace(later, unchanged=False)) == [SettleAgain(drop="drop-1")]


def test_an_accepted_file_is_accepted_with_its_identity() -> None:
    [step] = steps(GATING, answer("accepted"))
    assert isinstance(step, AcceptDrop)
    assert step.identity == drop_identity("5" * 64, "a/main", Config(), "base")


def test_what_was_put_aside_and_how_deep_it_was_checked_is_remembered() -> None:
    [step] = steps(replace(GATING, level="deep"), answer("accepted", quarantined=2))
    assert isinstance(step, AcceptDrop)
    assert (step.rows, step.quarantined, step.level, step.deep) == (7, 2, "deep", False)


@pytest.mark.parametrize(("level", "first", "follows"), [("quick", "quick", False), ("standard", "standard", True), ("deep", "standard", True)])
def test_with_background_deep_the_deep_check_follows_unless_quick_was_asked_for(level: str, first: str, follows: bool) -> None:
    config = resolve({"config.json": {"validation": {"background_deep": True}}}).config
    [step] = steps(replace(GATING, level=level), answer("accepted"), config=config)
    assert isinstance(step, AcceptDrop)
    assert (step.level, step.deep) == (first, follows)


@pytest.mark.parametrize(("objective", "word"), [("vision", "pictures")])
def test_rows_that_no_backend_trains_are_refused_once_they_are_checked_with_what_can_be_trained(objective: str, word: str) -> None:
    assert steps(GATING, answer("refused", objective=objective)) == [RejectDrop(drop="drop-1")]
    [step] = steps(GATING, answer("accepted", objective=objective), trained_specs=("chat_sft_v1", "completion_v1"))
    assert isinstance(step, RejectDrop)
    assert step.code == "OBJECTIVE_UNSUPPORTED"
    assert word in step.message
    assert "chat_sft_v1, completion_v1" in step.hint


def test_a_refused_file_is_rejected_with_the_gates_own_report() -> None:
    assert steps(GATING, answer("refused")) == [RejectDrop(drop="drop-1")]


@pytest.mark.parametrize(
    ("code", "again"), [("DISK_FULL", True), ("IO_ERROR", True), ("FILE_CHANGED", True), ("INDEX_DAMAGED", False), ("OUT_OF_MEMORY", False)]
)
def test_a_passing_trouble_of_the_gate_is_tried_again_and_a_lasting_one_is_told(code: str, again: bool) -> None:
    [step] = steps(GATING, answer("error", code=code, message="m", hint="h"))
    assert step == (SettleAgain(drop="drop-1") if again else RejectDrop(drop="drop-1", code=code, message="m", hint="h"))


def test_a_file_that_kills_the_gate_twice_is_rejected_with_that_finding() -> None:
    died = GateSeen(alive=False, drop="drop-1", died=True, end="by SIGSEGV")
    assert steps(GATING, died) == [GateDrop(drop="drop-1", crashes=1)]
    [step] = steps(seen(Gating(since=NOW, crashes=1)), died)
    assert isinstance(step, RejectDrop)
    assert step.code == "GATE_CRASH"
    assert "by SIGSEGV" in step.message


def test_a_gate_that_dies_on_a_full_disk_is_not_the_files_fault() -> None:
    died = GateSeen(alive=False, drop="drop-1", died=True)
    assert steps(seen(Gating(since=NOW, crashes=1)), died, disk=DiskSeen(free_bytes=1 << 20)) == [GateDrop(drop="drop-1", crashes=1)]


def test_after_a_restart_a_drop_that_was_at_the_gate_goes_there_again() -> None:
    assert steps(seen(Gating(since=NOW, crashes=1))) == [GateDrop(drop="drop-1", crashes=1)]


def test_a_wrong_sidecar_is_rejected_before_the_gate() -> None:
    wrong = seen(Settling(since=NOW), config=None, code="CONFIG_UNKNOWN_KEY", problem="unknown key 'x'", hint="did you mean 'y'?")
    assert steps(wrong) == [RejectDrop(drop="drop-1", code="CONFIG_UNKNOWN_KEY", message="unknown key 'x'", hint="did you mean 'y'?")]


def ended(state: str) -> dict[str, EndedJob]:
    identity = drop_identity("5" * 64, "a/main", Config(), "base")
    return {"job-0": EndedJob(id="job-0", adapter="a/main", drop="drop-0", identity=identity, state=state, facts=Ended(at=NOW))}


def test_the_same_bytes_twice_are_told_so_with_the_first_jobs_id_unless_again_is_said() -> None:
    [step] = steps(GATING, answer("accepted"), ended=ended("released"))
    assert isinstance(step, RejectDrop)
    assert step.code == "DUPLICATE"
    assert "job-0" in step.message
    assert "--again" in step.hint
    [forced] = steps(replace(GATING, again=True), answer("accepted"), ended=ended("released"))
    assert isinstance(forced, AcceptDrop)


@pytest.mark.parametrize("state", ["failed", "refused", "cancelled"])
def test_bytes_whose_job_ended_without_a_release_may_come_again(state: str) -> None:
    [step] = steps(GATING, answer("accepted"), ended=ended(state))
    assert isinstance(step, AcceptDrop)


def test_an_accepted_drop_gets_its_job_exactly_once() -> None:
    accepted = Accepted(at=NOW, job="job-1", sha256="5", identity="i", rows=7, schema_id="chat_sft_v1")
    assert steps(seen(accepted)) == [MakeJob(drop="drop-1")]
    assert steps(seen(replace(accepted, job_made=True))) == []


def test_a_drop_whose_job_was_cancelled_while_its_deep_check_was_open_is_no_reason_to_refuse_the_same_bytes() -> None:
    identity = drop_identity("5" * 64, "a/main", Config(), "base")
    accepted = Accepted(at=NOW, job="job-0", sha256="5" * 64, identity=identity, rows=7, schema_id="chat_sft_v1", deep=Deep())
    other = Drop(claim=claim("drop-0"), state=DropState.ACCEPTED, facts=accepted)
    both = {"drop-0": DropSeen(drop=other), "drop-1": GATING}
    first, second = steps(GATING, answer("accepted"), drops=both)
    assert (first, isinstance(second, RejectDrop)) == (MakeJob(drop="drop-0"), True)
    both["drop-0"] = DropSeen(drop=replace(other, facts=replace(accepted, job_made=True)))
    [step] = steps(GATING, answer("accepted"), drops=both)
    assert isinstance(step, AcceptDrop)


def test_an_entry_that_a_broken_off_claim_names_is_not_claimed_twice() -> None:
    entry = Entry(
        source="a/x.jsonl",
        adapter="a/main",
        device=1,
        inode=2,
        size_bytes=3,
        mtime_ns=4,
        sidecar=None,
        renamed=True,
        quiet_s=9.0,
        parses=True,
    )
    broken_off = seen(Settling(since=NOW), in_folder=False, at_source=True)
    assert steps(broken_off, entries=(entry,)) == [FinishClaim(drop="drop-1")]
    namesake = replace(entry, inode=3)
    assert steps(broken_off, entries=(namesake,)) == [FinishClaim(drop="drop-1"), TakeDrop(entry=namesake)]


def test_a_drop_at_the_gate_whose_sidecar_resolves_no_more_is_told_and_blocks_nobody() -> None:
    changed = seen(Gating(since=NOW), config=None, code="CONFIG_VALUE", problem="p", hint="h")
    assert steps(changed) == [RejectDrop(drop="drop-1", code="CONFIG_VALUE", message="p", hint="h")]
