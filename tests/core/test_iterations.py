"""Iterations: every stage with its flag, what a missed criterion does before and after the release is live, restarts at any moment."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.commands import CommandKind
from core.config import Config
from core.deployment import DeployConfig, RehearsalConfig, WatchConfig
from core.errors import IllegalTransition
from core.exits import ChildExit
from core.iterations import ENDED, STAGES, TABLE, Event, Flag, Gated, Looked, State, begun, diagram, moved_to, step
from core.learning import CriteriaConfig
from core.records import JobState, Queued, VerdictWord
from core.wire import TrialResult

sys.path.insert(0, str(Path(__file__).parent))
from loop_world import CLEAN, LINEAGE, LoopWorld
from world import START

NO_WATCH = DeployConfig(watch=WatchConfig(window_s=0))


def unwatched(**criteria: object) -> LoopWorld:
    return LoopWorld(config=Config(allow_stub=True, deploy=NO_WATCH, criteria=CriteriaConfig(**criteria)))  # type: ignore[arg-type]


def watched() -> LoopWorld:
    world = LoopWorld(config=Config(allow_stub=True))
    world.run_to_end(world.round())
    assert world.iteration().state is State.LIVE
    world.watch("all", answers=30)
    return world


# ---------------------------------------------------------------- the table


def test_every_stage_leads_on_and_every_end_is_an_end() -> None:
    for state in STAGES:
        assert TABLE[state][Event.PASS] in (*STAGES[STAGES.index(state) + 1 :][:1], *([State.COMPLETED] if state is State.LIVE else []))
        assert {Event.FAIL, Event.STOP} <= set(TABLE[state])
    assert all(not TABLE[state] for state in ENDED)
    assert Event.ROLL_BACK not in {event for state in STAGES[:-1] for event in TABLE[state]}, "only what is live can be rolled back"
    assert "live --> rolled_back: rolled back" in diagram()


def test_an_event_that_a_state_does_not_accept_names_those_that_do_and_changes_nothing() -> None:
    one = begun(LoopWorld().at_the_gate(), LINEAGE, START)
    with pytest.raises(IllegalTransition, match="rolled back") as caught:
        step(one, Event.ROLL_BACK, START)
    assert caught.value.hint == "only one in live accepts it"


def test_an_iteration_that_is_judged_again_forgets_its_later_stages() -> None:
    one = moved_to(begun(LoopWorld().at_the_gate(), LINEAGE, START), State.LIVE, START)
    again = moved_to(one, State.VERDICT, START)
    assert list(again.stages) == list(STAGES[:5])
    assert moved_to(one, State.TRAIN, START) is one, "only a verdict is taken back"


# ---------------------------------------------------------------- the whole road


def test_a_round_goes_through_all_stages_and_completes() -> None:
    world = unwatched()
    job = world.round()
    assert world.run_to_end(job) is JobState.RELEASED
    world.settle()
    one = world.iteration()
    assert (one.state, one.reason, one.job, one.version) == (State.COMPLETED, "live, and its watch is over", job, 1)
    assert list(one.stages) == list(STAGES)
    assert {part.flag for part in one.stages.values()} == {Flag.COMPLETED}
    counts = {stage.value: (part.done, part.total) for stage, part in one.stages.items() if part.total}
    assert counts == {"signals": (3, 3), "drop": (1, 1), "gate": (90, 92), "train": (8, 8), "verdict": (4, 4), "security": (4, 4), "live": (1, 1)}


def test_a_stage_in_progress_says_what_it_waits_for() -> None:
    world = LoopWorld(paused="paused by ann")
    world.at_the_gate()
    world.tick()
    assert (world.iteration().state, world.iteration().waits) == (State.GATE, "the gate")
    world.drops.clear()
    world.kept.clear()
    world.round()
    world.tick()
    assert (world.iteration().state, world.iteration().waits) == (State.TRAIN, "paused by ann")
    assert world.iteration().stages[State.TRAIN].flag is Flag.IN_PROGRESS


def test_restarts_all_the_way_change_nothing() -> None:
    world = unwatched()
    job = world.round()
    for number in range(200):
        world.serve()
        world.tick()
        for owner, _run in world.working():
            world.finish(owner)
        if job in world.ended and not world.iteration().is_open:
            break
        if number % 2:  # what a chore found is taken up by the next tick, or found once more
            world.restart()
        world.now += timedelta(minutes=6)
    assert world.iteration().state is State.COMPLETED
    assert world.ledger == [("a/main", f"release-of-{job}")]


def test_counts_alone_are_not_written_at_every_tick() -> None:
    world = watched()
    world.tick()
    written = world.written
    for number in range(20):
        world.watch("all", answers=30, latency_ms=50 + number)
        world.tick()
    assert 3 <= world.written - written <= 5, "twenty ticks of a second each"


# ---------------------------------------------------------------- what ends it before it is live


def test_a_drop_that_the_gate_refuses_fails_its_iteration_at_the_gate() -> None:
    world = LoopWorld()
    drop = world.at_the_gate()
    world.tick()
    world.drops.clear()
    world.refused_drop = "D07 secret, line 3"
    world.tick()
    one = world.iteration()
    assert (one.state, one.stages[State.GATE].flag) == (State.FAILED, Flag.FAILED)
    assert one.reason == "the gate refused the drop: D07 secret, line 3"
    assert drop.id not in world.drops


def test_a_drop_that_is_gone_stops_its_iteration() -> None:
    world = LoopWorld()
    world.at_the_gate()
    world.tick()
    world.drops.clear()
    world.tick()
    assert (world.iteration().state, world.iteration().reason) == (State.STOPPED, "its drop is gone")


def test_a_refusing_verdict_fails_the_iteration_at_the_verdict() -> None:
    world = unwatched()
    job = world.round()
    while job in world.jobs:
        world.settle()
        for owner, _run in world.working():
            world.finish(owner, word=VerdictWord.REFUSE)
    world.settle()
    assert (world.iteration().state, world.iteration().stages[State.VERDICT].flag) == (State.FAILED, Flag.FAILED)
    assert "refused" in world.iteration().reason


def test_a_failed_training_fails_the_iteration_and_a_cancelled_job_stops_it() -> None:
    world = unwatched()
    job = world.round()
    world.settle()
    world.finish(job, code=ChildExit.BAD_DATA)
    world.settle()
    assert (world.iteration().state, world.iteration().stages[State.TRAIN].flag) == (State.FAILED, Flag.FAILED)
    world = unwatched()
    job = world.round()
    world.ask(CommandKind.CANCEL, job=job, actor="ann")
    world.settle()
    assert world.iteration().state is State.STOPPED


# ---------------------------------------------------------------- a missed criterion before it is live


def test_rows_with_missing_values_wait_for_a_person_before_they_are_trained_on() -> None:
    world = unwatched()
    world.gated = Gated(rows=90, missing=1)
    job = world.round()
    world.settle()
    assert "train" not in world.starts, "nothing started before a person looked"
    one = world.iteration()
    assert (one.pause, one.waits) == ("paused by an iteration: missing values is 1, at most 0", "a person")
    assert (one.stages[State.GATE].flag, one.stages[State.TRAIN].flag) == (Flag.PAUSED, Flag.PAUSED)
    world.say("continue", one.id)
    assert world.run_to_end(job) is JobState.RELEASED, "asked once, not again"
    world.settle()
    assert (world.iteration().state, world.iteration().stages[State.GATE].waived) == (State.COMPLETED, "a person")


@pytest.mark.parametrize(
    ("measure", "criteria", "why"),
    [
        ({"gradient_norm": 1e4}, {}, "gradient norm is 1e+04, at most 100"),
        ({"perplexity": 31.0}, {"max_perplexity": 30}, "perplexity is 31, at most 30"),
        ({"primary": 0.7}, {"primary_metric": "exact_match"}, "exact_match is 0.7, at least 0.75"),
        ({}, {"primary_metric": "exact_match"}, "exact_match: the verdict has no such metric"),
        ({"looks": (*CLEAN[:3], Looked(name="adapter files", found="ADAPTER_FILE_FOREIGN"))}, {}, "adapter files: ADAPTER_FILE_FOREIGN"),
    ],
)
def test_what_training_verdict_or_scan_missed_holds_the_job_until_a_person_approves(measure: dict[str, object], criteria: dict[str, object], why: str) -> None:
    world = unwatched(**criteria)
    world.measure = replace(world.measure, **measure)  # type: ignore[arg-type]
    job = world.round()
    assert world.run_to_end(job) is JobState.HELD
    world.settle()
    assert why in world.iteration().pause
    assert world.live() is None
    assert Flag.PAUSED in {world.iteration().stages[stage].flag for stage in (State.TRAIN, State.VERDICT, State.SECURITY)}
    world.say("continue", world.iteration().id)
    assert world.run_to_end(job) is JobState.RELEASED, "held once, not again"
    world.settle()
    assert world.iteration().state is State.COMPLETED
    assert "ann" in {part.waived for part in world.iteration().stages.values()}


def test_no_release_leaves_before_the_scan_has_ended() -> None:
    world = unwatched()
    world.measures_at_once = False
    job = world.round()
    for _ in range(12):
        world.settle()
        for owner, _run in world.working():
            world.finish(owner)
    assert world.state(job) is JobState.RANKING
    assert (world.iteration().state, world.iteration().waits) == (State.SECURITY, "the security scan")
    world.end_measure(world.iteration().id)
    assert world.run_to_end(job) is JobState.RELEASED


def test_made_up_losses_and_what_was_not_measured_hold_nothing() -> None:
    world = unwatched()
    world.measure = replace(world.measure, made_up=True, perplexity=1e9, gradient_norm=None)
    assert world.run_to_end(world.round()) is JobState.RELEASED


def test_a_job_of_a_person_is_held_back_by_nothing() -> None:
    world = unwatched()
    world.measure = replace(world.measure, gradient_norm=1e9)
    assert world.run_to_end(world.queue()) is JobState.RELEASED
    assert not world.kept


# ---------------------------------------------------------------- the rehearsal


def rehearsed(*, gpu: bool, **result: float) -> tuple[LoopWorld, str]:
    """A world whose box has rehearsed the release, and passed it by its own criteria."""
    deploy = DeployConfig(watch=WatchConfig(window_s=0), rehearsal=RehearsalConfig(enabled=True))
    world = LoopWorld(config=Config(allow_stub=True, deploy=deploy))
    world.use = {"cpu": 0.2, **({"gpu": 0.3} if gpu else {})}
    job = world.round()
    told = TrialResult(id=job, release=f"release-of-{job}", at=START, passed=True, requests=100, **result)  # type: ignore[arg-type]
    world.trials[told.release] = told
    return world, job


def test_speed_only_warns_on_a_box_without_a_gpu() -> None:
    world, job = rehearsed(gpu=False, latency_ms=900, requests_s=2)
    assert world.run_to_end(job) is JobState.RELEASED
    world.settle()
    part = world.iteration().stages[State.REHEARSAL]
    assert [(one.name, one.met, one.weight.value) for one in part.criteria] == [
        ("error share", True, "asks a person"),
        ("ms to the first token", False, "warns"),
        ("answers a second", False, "warns"),
    ]
    assert part.flag is Flag.COMPLETED


@pytest.mark.parametrize(("gpu", "result"), [(True, {"latency_ms": 900, "requests_s": 60}), (False, {"errors": 3})])
def test_a_rehearsal_that_missed_a_criterion_is_held_and_after_a_persons_word_held_no_more(gpu: bool, result: dict[str, float]) -> None:
    world, job = rehearsed(gpu=gpu, **result)
    assert world.run_to_end(job) is JobState.HELD
    assert world.desired is None or "a/main" not in world.desired.aliases, "no target was asked"
    world.settle()
    assert (world.iteration().state, world.iteration().stages[State.REHEARSAL].flag) == (State.REHEARSAL, Flag.PAUSED)
    world.restart()
    world.ask(CommandKind.APPROVE, job=job, actor="ann")
    assert world.run_to_end(job) is JobState.RELEASED


# ---------------------------------------------------------------- once it is live


def test_a_release_is_watched_until_the_boxes_guard_is_done() -> None:
    world = watched()
    world.tick()
    assert (world.iteration().state, "watches it (all)" in world.iteration().waits) == (State.LIVE, True)
    world.watch("passed", answers=500)
    world.settle()
    assert world.iteration().state is State.COMPLETED


def test_errors_that_are_proven_take_the_release_back() -> None:
    world = watched()
    world.watch("all", answers=40, errors=10)
    world.settle()
    one = world.iteration()
    assert (one.state, world.live()) == (State.ROLLED_BACK, None)
    assert one.reason == "error share is 0.2, at most 0.01"
    assert one.stages[State.LIVE].flag is Flag.FAILED


def test_what_is_taken_back_gives_way_to_the_release_before_and_not_to_the_base() -> None:
    world = LoopWorld(config=Config(allow_stub=True))
    first = world.queue()
    world.run_to_end(first)
    world.run_to_end(world.round())
    assert world.live() != f"release-of-{first}"
    world.watch("all", answers=40, errors=10)
    world.settle()
    assert (world.iteration().state, world.live()) == (State.ROLLED_BACK, f"release-of-{first}")


def test_one_error_of_twenty_proves_nothing() -> None:
    world = watched()
    world.watch("all", answers=19, errors=1)
    world.settle()
    assert world.iteration().state is State.LIVE
    assert "not proven" in next(one.why for one in world.iteration().stages[State.LIVE].criteria if one.name == "error share")


def test_a_critical_alert_of_the_adapter_takes_the_release_back_even_if_the_daemon_dies_before_it_asked() -> None:
    world = watched()
    world.critical = ("rules.wrong: answers are wrong",)
    world.box_up = False
    world.tick()
    world.critical = ()
    world.restart()
    world.box_up = True
    world.settle()
    assert (world.iteration().state, world.live()) == (State.ROLLED_BACK, None)
    assert "answers are wrong" in world.iteration().reason


def test_too_much_use_of_a_box_with_a_gpu_asks_a_person_who_lets_it_go_on_or_takes_it_back() -> None:
    for what, state in (("continue", State.COMPLETED), ("stop", State.ROLLED_BACK)):
        world = watched()
        world.use = {"cpu": 0.95, "gpu": 0.2}
        world.tick()
        world.watch("passed", answers=500)
        world.settle()
        one = world.iteration()
        assert (one.state, one.pause, one.waits) == (State.LIVE, "use of cpu is 0.95, at most 0.8", "a person")
        assert world.live() == one.release, "what serves goes on while a person is waited for"
        world.use["cpu"] = 0.96
        world.now += timedelta(minutes=1)  # so that what is seen would be written in the same tick, too
        world.say(what, one.id)
        world.settle()
        assert world.iteration().state is state
    assert world.iteration().reason == "stopped by ann"


def test_a_rollback_by_the_box_or_a_person_ends_the_iteration() -> None:
    world = watched()
    release = world.live()
    world.ask(CommandKind.ROLLBACK, adapter="a/main", from_release=release, to_release=None)
    world.settle()
    assert (world.iteration().state, world.iteration().reason) == (State.ROLLED_BACK, "the base was asked for in its place")


def test_a_newer_release_completes_the_iteration_before_it() -> None:
    world = watched()
    world.run_to_end(world.queue())
    world.settle()
    assert (world.iteration().state, world.iteration().reason) == (State.COMPLETED, "v2 took over")


def test_a_word_about_an_iteration_that_is_not_open_is_refused() -> None:
    world = LoopWorld()
    world.say("stop", "iteration-x")
    world.tick()
    (reply,) = world.answers
    assert (reply.answer.ok, reply.answer.code) == (False, "ITERATION_UNKNOWN")


def test_stop_cancels_the_job_of_an_iteration() -> None:
    world = unwatched()
    job = world.round()
    world.tick()
    assert isinstance(world.jobs[job].facts, Queued) or world.jobs[job].state is JobState.TRAINING
    world.ask(CommandKind.ITERATION, adapter="a/main", details={"what": "stop", "iteration": world.iteration().id})  # type: ignore[arg-type]
    world.settle()
    assert (world.state(job), world.iteration().state) == (JobState.CANCELLED, State.STOPPED)
