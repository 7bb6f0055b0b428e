"""How children end: the memory ladder, hangs, whose fault it was."""

from dataclasses import replace

import pytest
from world import START, World

from core.config import Config
from core.devices import BaseShape, decide_holds, heat, slots_with_room, training_bytes
from core.endings import hang, lost_without_blame, steps_to_repeat
from core.exits import ChildExit
from core.facts import DeviceSeen, Facts
from core.progress import decide_ranking, decide_training
from core.queue import usable_slots
from core.records import Candidate, ChildRef, Ended, Held, Job, JobState, Kind, Queued, Ranking, Training
from core.rollout import decide_releasing
from core.steps import HoldSlot, Move, Record, StopChild
from core.tasks import ChildSeen, ExitNote

GIB = 1 << 30
CONFIG = Config(allow_stub=True, batch_size=16)


def seen(kind: Kind = Kind.TRAIN, *, note: ExitNote | None = None, **what: object) -> ChildSeen:
    ref = ChildRef(run=f"01-{kind.value}", kind=kind, instance="daemon-1", slot=0, started_at=START)
    return ChildSeen(ref=ref, alive=False, note=note, **what)  # type: ignore[arg-type]


def living(**what: object) -> ChildSeen:
    return replace(seen(), alive=True, **what)  # type: ignore[arg-type]


def note(code: int, **what: object) -> ExitNote:
    return ExitNote(code=code, ended_at=START, **what)  # type: ignore[arg-type]


def facts_of(job: Job, child: ChildSeen, config: Config = CONFIG) -> Facts:
    return Facts(instance="daemon-1", config=config, backend="stub", base_sha256="base", jobs={job.id: job}, children={job.id: child})


def training(child: ChildSeen, **what: object) -> Job:
    world = World()
    job = world.jobs[world.queue()]
    return replace(job, state=JobState.TRAINING, facts=Training(since=START, child=child.ref, **what))  # type: ignore[arg-type]


def after_training(child: ChildSeen, **what: object) -> Queued | Ended:
    """What the end of this child makes of a job in training."""
    job = training(child, **what)
    (step,) = decide_training(job, facts_of(job, child), START)
    assert isinstance(step, Move)
    assert isinstance(step.facts, Queued | Ended)
    return step.facts


KILLED = {"signal": 9}


def test_the_ladder_goes_down_to_one_row_and_then_the_job_fails_with_what_to_do() -> None:
    rungs: list[int | None] = []
    now = after_training(seen(note=note(ChildExit.OUT_OF_MEMORY, reason="out of memory: 24 GB are not enough")))
    while isinstance(now, Queued):
        rungs.append(now.micro_batch)
        assert now.attempts == len(rungs), "every rung is counted"
        now = after_training(seen(note=note(ChildExit.OUT_OF_MEMORY)), attempts=now.attempts, micro_batch=now.micro_batch)
    assert rungs == [8, 4, 2, 1]
    assert (now.code, now.attempts) == ("OUT_OF_MEMORY", 5)
    assert "max_length" in now.hint


def test_the_ladder_starts_from_what_the_child_had_in_a_pass() -> None:
    now = after_training(seen(note=note(ChildExit.OUT_OF_MEMORY), micro_batch=4))
    assert isinstance(now, Queued)
    assert now.micro_batch == 2


def test_a_batch_of_one_row_is_tried_once_more_before_it_fails() -> None:
    now = after_training(seen(note=note(ChildExit.OUT_OF_MEMORY), micro_batch=1))
    assert isinstance(now, Queued)
    assert now.micro_batch == 1
    assert isinstance(after_training(seen(note=note(ChildExit.OUT_OF_MEMORY)), micro_batch=1), Ended)


def test_a_kill_that_nobody_here_sent_is_taken_for_want_of_memory() -> None:
    now = after_training(seen(**KILLED))
    assert isinstance(now, Queued)
    assert (now.micro_batch, now.attempts) == (8, 1)
    assert now.reason.startswith("out of memory: the train child was killed by signal 9, which lorad did not send")
    assert "the kernel counts" not in now.reason
    proven = after_training(seen(**KILLED, memory_kill=True))
    assert isinstance(proven, Queued)
    assert "the kernel counts a kill for want of memory" in proven.reason


def test_kills_without_evidence_end_with_the_attempts_and_those_with_evidence_with_the_ladder() -> None:
    failed = after_training(seen(**KILLED), attempts=2, micro_batch=8)
    assert isinstance(failed, Ended)
    assert failed.code == "OUT_OF_MEMORY"
    assert isinstance(after_training(seen(**KILLED, memory_kill=True), attempts=2, micro_batch=8), Queued)


def test_a_kill_by_this_daemon_is_no_attempt_and_shrinks_nothing() -> None:
    now = after_training(seen(**KILLED, killed=True), attempts=1, micro_batch=8)
    assert isinstance(now, Queued)
    assert (now.attempts, now.micro_batch, now.not_before) == (1, 8, None)


def test_other_signals_are_crashes_named_in_the_reason() -> None:
    now = after_training(seen(signal=11))
    assert isinstance(now, Queued)
    assert (now.micro_batch, now.attempts) == (None, 1)
    assert now.reason == "the train child was ended by SIGSEGV; see runs/…/01-train/log.txt"


def test_where_exit_json_is_missing_the_exit_status_speaks() -> None:
    stopped = after_training(seen(status=int(ChildExit.STOPPED)))
    assert isinstance(stopped, Queued)
    assert stopped.attempts == 0
    refused = after_training(seen(status=int(ChildExit.BAD_DATA)))
    assert isinstance(refused, Ended)
    crashed = after_training(seen(status=1))
    assert isinstance(crashed, Queued)
    assert crashed.reason == "the train child ended with status 1; see runs/…/01-train/log.txt"


def test_a_new_checkpoint_resets_the_count_but_not_the_ladder() -> None:
    now = after_training(seen(note=note(ChildExit.OUT_OF_MEMORY), checkpoint="01-train/resume/step_000004"), attempts=2, micro_batch=4)
    assert isinstance(now, Queued)
    assert (now.attempts, now.micro_batch) == (1, 2)


@pytest.mark.parametrize(
    ("child", "told"),
    [
        (living(silent_s=599.0), ""),
        (living(silent_s=601.0), "no sign of life for 601 s, before its first step, and 600 s are taken for a hang"),
        (living(silent_s=299.0, median_step_s=2.0), ""),
        (living(silent_s=301.0, median_step_s=2.0), "no sign of life for 301 s, its median step takes 2.0 s, and 300 s are taken for a hang"),
        (living(silent_s=999.0, median_step_s=60.0), ""),
        (living(silent_s=1201.0, median_step_s=60.0), "no sign of life for 1201 s, its median step takes 60.0 s, and 1200 s are taken for a hang"),
        (seen(silent_s=9999.0), ""),
    ],
)
def test_how_long_a_child_may_be_silent(child: ChildSeen, told: str) -> None:
    assert hang(child, CONFIG) == told


def test_a_silent_child_is_ended_in_every_stage() -> None:
    silent = living(silent_s=9999.0)
    job = training(silent)
    (step,) = decide_training(job, facts_of(job, silent), START)
    assert isinstance(step, StopChild)
    assert step.hung.startswith("no sign of life for 9999 s")
    ranked = ranking(silent)
    (step,) = decide_ranking(ranked, facts_of(ranked, silent), [], START)
    assert isinstance(step, StopChild)
    assert step.hung


def test_a_hang_counts_also_where_the_child_obeyed_the_term_and_fails_with_where_it_stood() -> None:
    hung = {"hung": "no sign of life for 301 s", "stack": ("forward (model.py:12)", "step (train.py:3)"), "note": note(ChildExit.STOPPED, reason="stopped")}
    now = after_training(seen(**hung))  # type: ignore[arg-type]
    assert isinstance(now, Queued)
    assert (now.attempts, now.micro_batch, now.reason) == (1, None, "hung: no sign of life for 301 s")
    failed = after_training(seen(**hung), attempts=2)  # type: ignore[arg-type]
    assert isinstance(failed, Ended)
    assert (failed.code, failed.reason) == ("HUNG", "hung: no sign of life for 301 s")
    assert failed.hint.startswith("it stood in forward (model.py:12) < step (train.py:3); runs/…/01-train/stack.txt has the whole stack")


def test_a_hung_child_that_had_to_be_killed_is_not_taken_for_want_of_memory() -> None:
    now = after_training(seen(**KILLED, killed=True, hung="no sign of life"))
    assert isinstance(now, Queued)
    assert (now.micro_batch, now.attempts) == (None, 1)


def test_a_child_of_an_earlier_daemon_is_nobodys_fault() -> None:
    job = training(seen())
    assert lost_without_blame(seen(), replace(facts_of(job, seen()), instance="daemon-2"))
    assert not lost_without_blame(seen(signal=9), facts_of(job, seen()))


def test_an_interrupted_job_says_how_many_steps_are_repeated() -> None:
    stopped = note(ChildExit.STOPPED, steps=9)
    now = after_training(seen(note=stopped, checkpoint="01-train/resume/step_000006"))
    assert isinstance(now, Queued)
    assert now.reason == "interrupted; 3 steps are repeated"
    whole = after_training(seen(note=replace(stopped, steps=6), checkpoint="01-train/resume/step_000006"))
    assert isinstance(whole, Queued)
    assert whole.reason == "interrupted"
    assert steps_to_repeat(seen(step=5), None) == 5, "of a killed child, what it had told"


# ---------------------------------------------------------------- ranking


def ranking(child: ChildSeen, **what: object) -> Job:
    world = World()
    job = world.jobs[world.queue()]
    candidate = Candidate(step=4, path="x", sha256="a" * 64)
    return replace(job, state=JobState.RANKING, facts=Ranking(since=START, candidates=(candidate,), child=child.ref, **what))  # type: ignore[arg-type]


def after_ranking(child: ChildSeen, **what: object) -> Ranking | Held:
    job = ranking(child, **what)
    (step,) = decide_ranking(job, facts_of(job, child), [], START)
    assert isinstance(step, Move | Record)
    assert isinstance(step.facts, Ranking | Held)
    return step.facts


def test_scoring_goes_down_the_same_ladder_and_is_held_at_its_end() -> None:
    rungs: list[int | None] = []
    now = after_ranking(seen(Kind.SCORE, note=note(ChildExit.OUT_OF_MEMORY)))
    while isinstance(now, Ranking):
        rungs.append(now.micro_batch)
        now = after_ranking(seen(Kind.SCORE, **KILLED, memory_kill=True), attempts=now.attempts, micro_batch=now.micro_batch)
    assert rungs == [8, 4, 2, 1]
    assert now.reason.startswith("evidence missing: out of memory")


def test_a_killed_rank_child_has_nothing_to_shrink_and_ends_with_the_attempts() -> None:
    now = after_ranking(seen(Kind.RANK, **KILLED, memory_kill=True))
    assert isinstance(now, Ranking)
    assert (now.micro_batch, now.attempts) == (None, 1)
    assert isinstance(after_ranking(seen(Kind.RANK, **KILLED, memory_kill=True), attempts=2), Held)


def test_a_killed_pack_child_fails_with_the_attempts_and_says_memory() -> None:
    world = World()
    job = world.queue()
    world.run_to_end(job)
    packed = world.ended[job]
    from core.records import Releasing

    child = seen(Kind.PACK, **KILLED)
    work = Releasing(since=START, ranking=Ranking(since=START, candidates=()), version=1, child=child.ref, attempts=2)
    releasing = replace(packed, state=JobState.RELEASING, facts=work)
    (step,) = decide_releasing(releasing, facts_of(releasing, child), START)
    assert isinstance(step, Move)
    assert isinstance(step.facts, Ended)
    assert (step.facts.code, step.facts.attempts) == ("OUT_OF_MEMORY", 3)


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("celsius", "held", "is_hot"),
    [(None, False, False), (88.0, False, False), (88.5, False, True), (80.0, False, False), (80.0, True, True), (78.0, True, True), (77.9, True, False)],
)
def test_training_pauses_above_one_mark_and_goes_on_below_another(celsius: float | None, held: bool, is_hot: bool) -> None:
    assert bool(heat("cuda:0", celsius, held, (88, 78))) is is_hot


def test_a_mark_of_0_never_pauses() -> None:
    assert heat("the CPU", 120.0, False, (0, 80)) == ""


def world_of(*devices: DeviceSeen, free: tuple[int, ...], need: int | None = GIB) -> Facts:
    config = Config(allow_stub=True, slots=len(devices))
    return Facts(instance="daemon-1", config=config, backend="stub", base_sha256="base", devices=devices, free_slots=free, need_bytes=need)


def device(slot: int, name: str = "cpu", free: int | None = 8, total: int | None = 8, **what: object) -> DeviceSeen:
    sizes = {"free_bytes": None if free is None else free * GIB, "total_bytes": None if total is None else total * GIB}
    return DeviceSeen(slot=slot, name=name, **sizes, **what)  # type: ignore[arg-type]


def test_a_child_is_told_once_to_pause_and_once_to_go_on() -> None:
    hot, told, cooled = device(0, hot="92 °C"), device(0, hot="91 °C", held="92 °C"), device(0, held="92 °C")
    assert list(decide_holds(world_of(hot, free=()))) == [HoldSlot(slot=0, why="92 °C")]
    assert list(decide_holds(world_of(told, free=()))) == []
    assert list(decide_holds(world_of(cooled, free=()))) == [HoldSlot(slot=0, why="")]


def test_several_slots_on_one_device_are_used_as_far_as_the_estimate_says_that_they_fit() -> None:
    three = [device(slot) for slot in range(3)]
    assert slots_with_room(world_of(*three, free=(0, 1, 2), need=2 * GIB), [0, 1, 2]) == [0, 1, 2]
    assert slots_with_room(world_of(*three, free=(0, 1, 2), need=3 * GIB), [0, 1, 2]) == [0, 1]
    assert slots_with_room(world_of(*three, free=(0, 1, 2), need=20 * GIB), [0, 1, 2]) == [0], "the first of a device always"
    assert slots_with_room(world_of(*three, free=(1, 2), need=5 * GIB), [1, 2]) == [], "one is at work and has begun to take memory or not"
    assert slots_with_room(world_of(*three, free=(0, 1, 2), need=None), [0, 1, 2]) == [0], "without an estimate one at a time"


def test_slots_on_different_devices_do_not_mind_each_other() -> None:
    two = [device(0, "cuda:0"), device(1, "cuda:1")]
    assert slots_with_room(world_of(*two, free=(0, 1), need=20 * GIB), [0, 1]) == [0, 1]


def test_nothing_starts_on_a_device_that_a_stranger_holds_or_that_is_too_hot() -> None:
    taken = device(0, "cuda:0", foreign="pid 4711 (python) with 9000 MiB")
    assert usable_slots(world_of(taken, device(1, "cuda:1"), free=(0, 1))) == [1]
    assert usable_slots(world_of(device(0, "cuda:0", hot="92 °C"), free=(0,))) == []


def test_the_estimate_grows_with_the_base_the_rank_and_the_length() -> None:
    small = BaseShape(weights_bytes=270 << 20, hidden=576, layers=30, intermediate=1536, vocabulary=49152)
    plain = training_bytes(small, CONFIG, gpu=False)
    assert GIB < plain < 32 * GIB
    assert training_bytes(replace(small, weights_bytes=GIB), CONFIG, gpu=False) > plain
    assert training_bytes(small, CONFIG.model_copy(update={"lora": CONFIG.lora.model_copy(update={"r": 64})}), gpu=False) > plain
    assert training_bytes(small, CONFIG.model_copy(update={"max_length": 8192}), gpu=False) > plain
    by_row = CONFIG.training.model_copy(update={"micro_batch": 1})
    assert training_bytes(small, CONFIG.model_copy(update={"training": by_row}), gpu=False) < plain
