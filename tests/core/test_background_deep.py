"""A drop that was accepted at standard is checked at deep while its jobs wait; deep may still refuse it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from core import steps as f
from core.background import PATIENCE, decide_background
from core.config import Config
from core.facts import DiskSeen, DropSeen, Facts, GateSeen
from core.gate import GateResult
from core.lifecycle import Event, step
from core.queue import decide_start
from core.reconcile import decide
from core.records import Accepted, Claim, Deep, DeepState, Drop, DropRef, DropState, Ended, Gating, Job, JobCard, JobState, Queued, Settling

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def drop(number: int, deep: Deep | None = None, adapter: str = "a/main", **facts: object) -> DropSeen:
    """Accepted drop `drop-<number>` whose job is `job-<number>`."""
    claim = Claim(drop=f"drop-{number}", adapter=adapter, source="x", device=1, inode=number, size_bytes=1, mtime_ns=1, file="x.jsonl", claimed_at=NOW)
    given: dict[str, object] = {"job": f"job-{number}", "sha256": "5", "identity": str(number), "rows": 9, "schema_id": "chat_sft_v1", "job_made": True}
    accepted = Accepted(at=NOW, deep=deep, **{**given, **facts})  # type: ignore[arg-type]
    return DropSeen(drop=Drop(claim=claim, state=DropState.ACCEPTED, facts=accepted), config=Config())


def on_its_way(number: int, facts: Settling | Gating) -> DropSeen:
    seen = drop(number)
    state = DropState.GATING if isinstance(facts, Gating) else DropState.SETTLING
    return replace(seen, drop=replace(seen.drop, state=state, facts=facts))


def job(number: int, *trains_on: int, state: JobState = JobState.QUEUED) -> Job:
    """`job-<number>` on its own drop and others."""
    refs = tuple(DropRef(id=f"drop-{one}", sha256="0") for one in (*trains_on, number))
    card = JobCard(
        id=f"job-{number}",
        adapter="a/main",
        drop=f"drop-{number}",
        file="x.jsonl",
        sha256="0",
        identity=str(number),
        created_at=NOW,
        drops=refs,
        base_sha256="base",
        backend="stub",
    )
    return Job(card=card, state=state, facts=Queued(since=NOW))


def world(*drops: DropSeen, jobs: tuple[Job, ...] = (), **fields: object) -> Facts:
    seen = {one.drop.id: one for one in drops}
    unproven = frozenset(id for id, one in seen.items() if isinstance(one.drop.facts, Accepted) and not one.drop.facts.is_proven)
    of = {"a/main": tuple(sorted(unproven))} if unproven else {}
    known = {"unproven": unproven, "unproven_of": of}
    given: dict[str, object] = {"drops": seen, **known, "jobs": {one.id: one for one in jobs}, "deep_gate": GateSeen(alive=False), **fields}
    return Facts(instance="i", config=Config(), backend="stub", base_sha256="base", free_slots=(0,), **given)  # type: ignore[arg-type]


def steps(facts: Facts, touched: frozenset[str] = frozenset()) -> list[f.Step]:
    return list(decide_background(facts, touched, NOW))


def answer(verdict: str, **fields: object) -> GateSeen:
    result = GateResult(drop="drop-1", verdict=verdict, rows=7, quarantined=2, ended_at=NOW, **fields)  # type: ignore[arg-type]
    return GateSeen(alive=True, drop="drop-1", result=result)


WAITING = drop(1, Deep())
REFUSED = drop(1, Deep(state=DeepState.REFUSED, code="D07"))


def test_the_check_begins_once_its_job_is_queued_and_no_new_drop_waits() -> None:
    assert steps(world(WAITING)) == [], "nobody trains on it"
    assert steps(world(WAITING, jobs=(job(1),))) == [f.DeepenDrop(drop="drop-1", crashes=0)]
    for newer in (on_its_way(2, Settling(since=NOW)), on_its_way(2, Gating(since=NOW))):
        assert steps(world(WAITING, newer, jobs=(job(1),))) == [], "whoever just dropped a file waits"
    assert steps(world(WAITING, jobs=(job(1),), disk=DiskSeen(free_bytes=1))) == []


def test_one_drop_is_checked_at_a_time_the_oldest_first() -> None:
    facts = world(WAITING, drop(2, Deep()), jobs=(job(1), job(2, 1)))
    assert steps(facts) == [f.DeepenDrop(drop="drop-1", crashes=0)]
    assert steps(replace(facts, deep_gate=GateSeen(alive=True, drop="drop-1"))) == []


def test_a_job_waits_in_the_queue_for_every_drop_it_trains_on() -> None:
    later = drop(2)
    facts = world(WAITING, later, jobs=(job(1), job(2, 1), replace(job(3), card=replace(job(3).card, adapter="b/main"))))
    [start] = decide_start(facts, [0], NOW)
    assert isinstance(start, f.StartChild)
    assert start.job == "job-3", "another adapter's job need not wait"
    proven = world(drop(1, Deep(state=DeepState.PASSED)), later, jobs=(job(1), job(2, 1)))
    assert [getattr(one, "job", "") for one in decide_start(proven, [0], NOW)] == ["job-1"]


def test_passed_says_what_is_kept() -> None:
    assert steps(world(WAITING, jobs=(job(1),), deep_gate=answer("accepted"))) == [f.PassDeep(drop="drop-1", rows=7, quarantined=2)]


def test_refused_is_remembered_first() -> None:
    assert steps(world(WAITING, jobs=(job(1),), deep_gate=answer("refused"))) == [f.RefuseDeep(drop="drop-1")]


def test_a_passing_trouble_of_the_machine_is_tried_again_later_and_a_lasting_one_refuses() -> None:
    facts = world(WAITING, jobs=(job(1),))
    [later] = steps(replace(facts, deep_gate=answer("error", code="DISK_FULL")))
    assert later == f.PostponeDeep(drop="drop-1", until=NOW + PATIENCE)
    [told] = steps(replace(facts, deep_gate=answer("error", code="OUT_OF_MEMORY", message="m", hint="h")))
    assert told == f.RefuseDeep(drop="drop-1", code="OUT_OF_MEMORY", message="m", hint="h")
    waits = drop(1, Deep(not_before=NOW + timedelta(seconds=1)))
    assert steps(world(waits, jobs=(job(1),))) == []


def test_rows_that_kill_the_gate_twice_are_refused_and_a_full_disk_is_not_their_fault() -> None:
    died = GateSeen(alive=False, drop="drop-1", died=True, end="by SIGKILL")
    facts = world(WAITING, jobs=(job(1),), deep_gate=died)
    assert steps(facts) == [f.DeepenDrop(drop="drop-1", crashes=1)]
    assert steps(replace(facts, disk=DiskSeen(free_bytes=1))) == [f.DeepenDrop(drop="drop-1", crashes=0)]
    [refuse] = steps(world(drop(1, Deep(crashes=1)), jobs=(job(1),), deep_gate=died))
    assert isinstance(refuse, f.RefuseDeep)
    assert refuse.code == "GATE_CRASH"
    assert "by SIGKILL" in refuse.message


def test_after_a_restart_the_check_begins_again() -> None:
    assert steps(world(drop(1, Deep(crashes=1)), jobs=(job(1),))) == [f.DeepenDrop(drop="drop-1", crashes=1)]


def test_a_cancelled_job_needs_no_check_and_one_at_work_is_stopped() -> None:
    at_work = GateSeen(alive=True, drop="drop-1")
    assert steps(world(WAITING, deep_gate=at_work)) == [f.StopDeep(drop="drop-1")]
    later = world(WAITING, drop(2), jobs=(job(2, 1),))
    assert steps(later) == [f.DeepenDrop(drop="drop-1", crashes=0)], "a later job that trains on the same rows needs it again"


def test_a_late_refusal_ends_its_job_takes_the_rows_from_later_jobs_and_then_moves_the_drop() -> None:
    facts = world(REFUSED, drop(2), jobs=(job(1), job(2, 1)))
    move, take_out = steps(facts)
    assert isinstance(move, f.Move)
    assert (move.job, move.event) == ("job-1", Event.GATE_REFUSED)
    assert isinstance(move.facts, Ended)
    assert move.facts.code == "GATE_REFUSED"
    assert "D07" in move.facts.reason
    assert "drop-1" in move.facts.hint
    assert take_out == f.TakeOut(job="job-2", drop="drop-1")
    assert steps(world(REFUSED, drop(2), jobs=(job(2),))) == [f.RejectDrop(drop="drop-1")]


def test_a_job_that_a_person_ends_in_the_same_tick_is_left_to_that() -> None:
    assert steps(world(REFUSED, jobs=(job(1),)), touched=frozenset({"job-1"})) == []


def test_the_rows_are_not_moved_away_under_a_gate_that_reads_them() -> None:
    newer = on_its_way(2, Gating(since=NOW))
    facts = world(REFUSED, newer, gate=GateSeen(alive=True, drop="drop-2"))
    assert steps(facts) == []
    assert steps(replace(facts, gate=GateSeen(alive=True))) == [f.RejectDrop(drop="drop-1")]


def test_a_sidecar_that_resolves_no_more_is_told() -> None:
    wrong = replace(WAITING, code="SOURCE_UNKNOWN", problem="p", hint="h")
    assert steps(world(wrong, jobs=(job(1),))) == [f.RefuseDeep(drop="drop-1", code="SOURCE_UNKNOWN", message="p", hint="h")]


# --- a crash after any step


@dataclass
class Small:
    """Drops and jobs as they lie on disk, and a gate that forgets where the daemon dies."""

    verdict: str
    drops: dict[str, DropSeen] = field(default_factory=lambda: {"drop-1": WAITING, "drop-2": drop(2)})
    jobs: dict[str, Job] = field(default_factory=lambda: {"job-1": job(1), "job-2": job(2, 1)})
    ended: dict[str, Job] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    checks: int = 0
    at_work: GateSeen = field(default_factory=lambda: GateSeen(alive=False))

    def tick(self, stop_after: int) -> int:
        """Apply the steps of one tick, `stop_after` at most. Returns how many were applied."""
        facts = world(*self.drops.values(), jobs=tuple(self.jobs.values()), deep_gate=self.at_work)
        applied = 0
        for one in decide(replace(facts, free_slots=()), NOW).steps[:stop_after]:
            self._apply(one)
            applied += 1
        return applied

    def _deep(self, id: str, deep: Deep) -> None:
        seen = self.drops[id]
        assert isinstance(seen.drop.facts, Accepted)
        self.drops[id] = replace(seen, drop=replace(seen.drop, facts=replace(seen.drop.facts, deep=deep)))

    def _apply(self, one: f.Step) -> None:
        match one:
            case f.DeepenDrop():
                self.checks += 1
                self.at_work = answer(self.verdict)
            case f.PassDeep() | f.RefuseDeep():
                self._deep(one.drop, Deep(state=DeepState.PASSED if isinstance(one, f.PassDeep) else DeepState.REFUSED, code="D07"))
                self.at_work = GateSeen(alive=True)
            case f.Move():
                self.ended[one.job], _ = step(self.jobs.pop(one.job), one.event, one.facts)
            case f.TakeOut():
                card = self.jobs[one.job].card
                self.jobs[one.job] = replace(self.jobs[one.job], card=replace(card, drops=tuple(ref for ref in card.drops if ref.id != one.drop)))
            case f.RejectDrop():
                del self.drops[one.drop]
                self.rejected.append(one.drop)
            case _:
                raise AssertionError(f"unexpected {one}")


@pytest.mark.parametrize("verdict", ["accepted", "refused"])
@pytest.mark.parametrize("crash_after", range(8))
def test_a_crash_after_any_step_ends_the_same_way(verdict: str, crash_after: int) -> None:
    small, left = Small(verdict), crash_after
    for _ in range(30):
        applied = small.tick(left if left >= 0 else 99)
        left -= applied if left >= 0 else 0
        if left == 0:
            small.at_work, left = GateSeen(alive=False), -1  # the daemon dies here, and starts again
            applied = 1
        if not applied:
            break
    if verdict == "accepted":
        assert set(small.jobs) == {"job-1", "job-2"}
        assert small.rejected == []
        assert all(seen.drop.facts.is_proven for seen in small.drops.values() if isinstance(seen.drop.facts, Accepted))
    else:
        assert {id: one.state for id, one in small.ended.items()} == {"job-1": JobState.REFUSED}
        assert [ref.id for ref in small.jobs["job-2"].card.drops] == ["drop-2"]
        assert small.rejected == ["drop-1"]
    assert small.checks <= 2
