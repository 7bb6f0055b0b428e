"""Stories of the pure decision: what happens to jobs, whatever dies, whoever asks."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.commands import CommandKind
from core.config import Config
from core.exits import ChildExit
from core.reconcile import decide
from core.records import Held, JobState, Queued, Ranking, Releasing, Training, VerdictWord
from core.steps import StartChild

sys.path.insert(0, str(Path(__file__).parent))
from world import World

FOUR_FILES = ["train", "score dev", "rank order", "score gate", "rank verdict", "pack"]


def to_stage(world: World, job: str, stage: str) -> None:
    """Let children succeed until the child of `stage` is at work."""
    for _ in range(20):
        world.settle()
        if world.starts[-1:] == [stage]:
            return
        for owner, _run in world.working():
            world.finish(owner)
    raise AssertionError(f"{stage} never starts: {world.starts}")


def test_a_job_runs_through_the_four_files_and_is_released_once() -> None:
    world = World()
    job = world.queue()
    assert world.run_to_end(job) is JobState.RELEASED
    assert world.starts == FOUR_FILES
    assert world.ledger == [("a/main", f"release-of-{job}")]


@pytest.mark.parametrize("stage", FOUR_FILES)
def test_a_killed_child_is_started_again_and_counts_as_an_attempt(stage: str) -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, stage)
    world.lose(job)
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Training | Ranking | Releasing)
    assert facts.attempts == 1
    assert world.starts[-2:] == [stage, stage]
    assert world.run_to_end(job) is JobState.RELEASED
    assert len(world.ledger) == 1


@pytest.mark.parametrize("stage", FOUR_FILES)
def test_after_a_start_that_the_machine_refused_none_is_tried_for_a_while(stage: str) -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, stage)
    world.lose(job)
    refused = replace(world.facts(), refused=True, free_slots=())
    assert not [one for one in decide(refused, world.now).steps if isinstance(one, StartChild)]


@pytest.mark.parametrize("stage", FOUR_FILES)
def test_a_child_lost_with_the_daemon_is_an_interruption_and_not_an_attempt(stage: str) -> None:
    world = World()
    job = world.queue()
    for _ in range(5):  # more often than attempts are allowed
        to_stage(world, job, stage)
        world.restart()
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Training | Ranking | Releasing)
    assert facts.attempts == 0
    assert world.run_to_end(job) is JobState.RELEASED
    assert len(world.ledger) == 1


def test_training_fails_with_its_cause_after_three_crashes() -> None:
    world = World()
    job = world.queue()
    for _ in range(3):
        to_stage(world, job, "train")
        world.lose(job)
        world.tick()
    assert world.state(job) is JobState.FAILED
    assert "train child" in world.ended[job].facts.reason  # type: ignore[union-attr]


@pytest.mark.parametrize("stage", ["score dev", "rank order", "score gate", "rank verdict"])
def test_ranking_that_cannot_finish_is_held_for_a_person_and_never_promoted(stage: str) -> None:
    world = World()
    job = world.queue()
    for _ in range(3):
        to_stage(world, job, stage)
        world.lose(job)
        world.tick()
    held = world.jobs[job].facts
    assert isinstance(held, Held)
    assert held.reason.startswith("evidence missing")
    assert world.ledger == []


@pytest.mark.parametrize("code", [ChildExit.BAD_SPEC, ChildExit.BAD_DATA])
def test_bad_data_is_not_tried_again(code: ChildExit) -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "train")
    world.finish(job, code=code)
    world.settle()
    assert world.state(job) is JobState.FAILED
    assert world.starts == ["train"]


def test_out_of_memory_tries_smaller_micro_batches() -> None:
    world = World()
    job = world.queue()
    sizes = []
    for _ in range(2):
        to_stage(world, job, "train")
        world.finish(job, code=ChildExit.OUT_OF_MEMORY)
        world.tick()
        facts = world.jobs[job].facts
        assert isinstance(facts, Queued | Training)
        sizes.append(facts.micro_batch)
    assert sizes == [8, 4], "half of the batch, then half of that"


def test_the_most_urgent_job_trains_first_and_one_trains_at_a_time() -> None:
    world = World()
    low, high = world.queue("a/main"), world.queue("b/main", priority=5)
    world.settle()
    assert [owner for owner, _ in world.working()] == [high]
    assert world.state(low) is JobState.QUEUED


def test_a_second_job_of_an_adapter_is_judged_against_what_is_live_when_its_turn_comes() -> None:
    world = World()
    first, second = world.queue(), world.queue()
    to_stage(world, first, "score dev")
    world.finish(first)  # the slot is free for the second's training before the first is judged
    world.settle()
    assert world.run_to_end(second) is JobState.RELEASED
    assert world.state(first) is JobState.RELEASED
    assert world.ledger == [("a/main", f"release-of-{first}"), ("a/main", f"release-of-{second}")]


def test_when_the_incumbent_changes_only_the_new_incumbent_is_scored_again() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "rank verdict")
    world.ledger.append(("a/main", "another"))
    world.outcomes["a/main"] = replace(world.outcomes.get("a/main", _state()), release="another")
    world.releases["another"] = 9
    world.finish(job)
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Ranking)
    assert facts.incumbent == "another"
    assert world.starts[-1] == "score dev"
    assert [key for key in ("dev/another", "gate/another") if key in facts.scores] == []
    assert world.run_to_end(job) is JobState.RELEASED
    assert world.ended[job].facts.release == f"release-of-{job}"  # type: ignore[union-attr]


def _state():  # type: ignore[no-untyped-def]
    from core.wire import AliasState

    return AliasState(release=None)


def test_each_look_at_the_gate_split_is_counted_before_it_happens() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "score gate")
    assert world.jobs[job].facts.looks == 1  # type: ignore[union-attr]
    world.restart()
    to_stage(world, job, "score gate")
    assert world.jobs[job].facts.looks == 2  # type: ignore[union-attr]


def test_a_refused_job_sets_its_drop_aside_and_nothing_goes_live() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "rank verdict")
    world.finish(job, word=VerdictWord.REFUSE)
    world.settle()
    assert world.state(job) is JobState.REFUSED
    assert world.set_aside == {"drop-0"}
    assert world.ledger == []


def test_a_held_job_can_be_approved_or_refused_by_a_person() -> None:
    for kind, end in ((CommandKind.APPROVE, JobState.RELEASED), (CommandKind.REFUSE, JobState.REFUSED)):
        world = World()
        job = world.queue()
        to_stage(world, job, "rank verdict")
        world.finish(job, word=VerdictWord.HOLD)
        world.settle()
        assert world.state(job) is JobState.HELD
        world.ask(kind, job=job, reason="looked at it", actor="ann")
        assert world.run_to_end(job) is end
        assert world.answers[-1].answer.ok


def test_not_even_a_person_can_release_what_the_stub_made_up() -> None:
    world = World()
    world.config = Config()
    job = world.queue()
    to_stage(world, job, "rank verdict")
    world.finish(job, word=VerdictWord.HOLD)
    world.settle()
    world.ask(CommandKind.APPROVE, job=job, reason="please", actor="ann")
    world.settle()
    assert world.answers[-1].answer.code == "STUB_NOT_PROMOTED"
    assert world.state(job) is JobState.HELD


def test_a_held_job_is_superseded_by_a_newer_release() -> None:
    world = World()
    first = world.queue()
    to_stage(world, first, "rank verdict")
    world.finish(first, word=VerdictWord.HOLD)
    second = world.queue()
    assert world.run_to_end(second) is JobState.RELEASED
    world.settle()
    assert world.state(first) is JobState.CANCELLED


def test_while_the_box_is_down_the_job_waits_with_a_reason_and_the_old_release_stays_live() -> None:
    world = World()
    old = world.queue()
    world.run_to_end(old)
    world.box_up = False
    job = world.queue()
    to_stage(world, job, "pack")
    world.finish(job)
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Releasing)
    assert "no sign of life" in facts.reason
    assert world.live() == f"release-of-{old}"
    world.box_up = True
    assert world.run_to_end(job) is JobState.RELEASED


def test_a_newer_promoted_job_supersedes_one_that_waits_for_the_box() -> None:
    world = World()
    world.box_up = False
    first, second = world.queue(), world.queue()
    for _ in range(20):
        world.settle()
        for owner, _run in world.working():
            world.finish(owner)
    assert world.state(second) is JobState.RELEASING
    world.box_up = True
    assert world.run_to_end(second) is JobState.RELEASED
    world.settle()
    assert world.state(first) is JobState.CANCELLED
    assert world.ledger == [("a/main", f"release-of-{second}")]


def test_a_release_that_the_box_refuses_fails_and_the_wish_goes_back_to_what_is_live() -> None:
    world = World()
    old = world.queue()
    world.run_to_end(old)
    job = world.queue()
    to_stage(world, job, "pack")
    world.finish(job)
    for _ in range(6):
        world.tick()
    world.serve(refuse="PROBE_FAILED")
    world.settle()
    assert world.state(job) is JobState.FAILED
    assert world.live() == f"release-of-{old}"
    assert world.desired is not None
    assert world.desired.aliases["a/main"].release == f"release-of-{old}"


def test_a_deferred_release_stays_and_is_tried_again() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "pack")
    world.finish(job)
    for _ in range(6):
        world.tick()
        world.serve(defer="NO_MEMORY")
    facts = world.jobs[job].facts
    assert isinstance(facts, Releasing)
    assert "NO_MEMORY" in facts.reason
    assert world.run_to_end(job) is JobState.RELEASED


def test_a_rollback_cancels_what_is_on_its_way_and_moves_the_alias() -> None:
    world = World()
    first, second = world.queue(), world.queue()
    world.run_to_end(second)
    third = world.queue()
    to_stage(world, third, "score dev")
    world.ask(CommandKind.ROLLBACK, adapter="a/main", from_release=f"release-of-{second}", to_release=f"release-of-{first}")
    world.settle()
    assert world.live() == f"release-of-{first}"
    assert world.state(third) is JobState.CANCELLED


def test_a_rollback_of_what_is_no_longer_live_is_refused() -> None:
    world = World()
    world.run_to_end(world.queue())
    world.ask(CommandKind.ROLLBACK, adapter="a/main", from_release="something-else", to_release=None)
    world.settle()
    assert not world.answers[-1].answer.ok
    assert world.answers[-1].answer.code == "INCUMBENT_CHANGED"


def test_a_late_command_does_nothing() -> None:
    world = World()
    job = world.queue()
    world.ask(CommandKind.CANCEL, job=job)
    world.now += timedelta(minutes=5)
    world.tick()
    assert world.answers[-1].answer.code == "EXPIRED"
    assert world.state(job) is not JobState.CANCELLED


@pytest.mark.parametrize("stage", ["train", "score dev", "rank verdict"])
def test_cancel_stops_the_child_first(stage: str) -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, stage)
    world.ask(CommandKind.CANCEL, job=job)
    world.settle()
    assert world.state(job) is JobState.CANCELLED
    assert world.working() == []


def test_a_job_on_its_way_to_the_box_is_cancelled_before_the_box_hears_of_it() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "pack")
    world.ask(CommandKind.CANCEL, job=job)
    world.settle()
    assert world.state(job) is JobState.CANCELLED
    assert world.ledger == []


def test_a_job_that_waits_for_the_box_is_cancelled_once_the_box_has_spoken() -> None:
    world = World()
    world.box_up = False
    job = world.queue()
    to_stage(world, job, "pack")
    world.finish(job)
    world.settle()
    world.ask(CommandKind.CANCEL, job=job)
    world.settle()
    assert world.state(job) is JobState.RELEASING
    world.box_up = True
    world.settle()
    assert world.state(job) is JobState.CANCELLED
    assert world.live() is None


def test_two_jobs_of_an_adapter_never_reserve_the_same_version() -> None:
    world = World()
    world.box_up = False
    first, second = world.queue(), world.queue()
    for _ in range(20):
        world.settle()
        for owner, _run in world.working():
            world.finish(owner)
    versions = [world.jobs[job].facts.version for job in (first, second)]  # type: ignore[union-attr]
    assert sorted(versions) == [1, 2]


def test_when_the_daemon_stops_the_trainer_is_asked_to_stop_and_the_job_waits_as_interrupted() -> None:
    world = World()
    job = world.queue()
    to_stage(world, job, "train")
    world.stopping = True
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Queued)
    assert (facts.reason, facts.attempts) == ("interrupted", 0)
    assert world.working() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["tick", "finish", "finish", "restart", "lose", "serve", "serve", "down", "up", "queue"]), max_size=80))
def test_whatever_happens_every_job_ends_and_no_release_goes_live_twice(events: list[str]) -> None:
    world = World()
    world.queue()
    for event in events:
        if event == "queue" and len(world.jobs) + len(world.ended) < 4:
            world.queue()
        elif event == "finish" and world.working():
            world.finish(world.working()[0][0])
        elif event == "lose" and world.working():
            world.lose(world.working()[0][0])
        elif event == "restart":
            world.restart()
        elif event == "serve":
            world.serve()
        elif event in ("up", "down"):
            world.box_up = event == "up"
        world.tick()
    world.box_up = True
    for _ in range(120):
        world.serve()
        moved = world.tick()
        if not moved and not world.working() and not world.wait():
            break
        for owner, _run in world.working():
            world.finish(owner)
    assert {job.state for job in world.jobs.values()} <= {JobState.HELD}
    live = [release for _, release in world.ledger]
    assert len(live) == len(set(live))
    released = [job.id for job in world.ended.values() if job.state is JobState.RELEASED]
    assert {f"release-of-{job}" for job in released} == set(live)
