"""Whose turn it is, who waits and why, and what pause, resume and a closing window do to a job. All in a world in memory."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.commands import CommandKind
from core.exits import ChildExit
from core.facts import DeviceSeen, DiskSeen, Due
from core.jobviews import JobViews
from core.queue import decide_start, retry_at, usable_slots, why_waits
from core.reconcile import decide
from core.records import JobState, Queued, Ranking, Training, VerdictWord
from core.steps import FireDue, StartChild

sys.path.insert(0, str(Path(__file__).parent))
from world import START, World


def trained(world: World, limit: int = 500) -> Iterator[str]:
    """The jobs in the order in which they are trained, each to its end."""
    for _ in range(limit):
        world.settle()
        if not world.working():
            return
        for owner, _run in world.working():
            if isinstance(world.jobs[owner].facts, Training):
                yield owner
            world.finish(owner)
    raise AssertionError("never ends")


def training(world: World, job: str) -> None:
    world.settle()
    assert world.state(job) is JobState.TRAINING


# ---------------------------------------------------------------- whose turn it is


def test_higher_priority_first_then_the_adapter_that_was_served_longest_ago() -> None:
    world = World()
    busy = [world.queue("busy/main") for _ in range(3)]
    other, low, high = world.queue("other/main"), world.queue("a/main", priority=-10), world.queue("busy/main", priority=10)
    assert list(trained(world)) == [high, other, *busy, low]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 0, 10])), min_size=1, max_size=14))
def test_no_adapter_is_served_twice_while_another_of_the_same_priority_waits(queue: list[tuple[str, int]]) -> None:
    world = World()
    jobs = {world.queue(f"{adapter}/main", priority=priority): (adapter, priority) for adapter, priority in queue}
    order = [jobs[job] for job in trained(world)]
    assert sorted(order, key=lambda one: -one[1]) == order
    for priority in (10, 0):
        served = [adapter for adapter, rank in order if rank == priority]
        for place, adapter in enumerate(served):
            again = served.index(adapter, place + 1) if adapter in served[place + 1 :] else len(served)
            waiting = set(served[again:]) - {adapter}
            assert again == len(served) or waiting <= set(served[place + 1 : again]), served


def test_a_job_with_a_checkpoint_goes_on_before_a_new_one_begins() -> None:
    world = World()
    first = world.queue("a/main")
    training(world, first)
    world.queue("b/main")
    world.restart()
    world.tick()
    job = world.jobs[first]
    world.jobs[first] = replace(job, facts=replace(job.facts, checkpoint="01-train/resume/step_000010"))  # type: ignore[arg-type]
    training(world, first)


def test_several_free_slots_go_to_several_adapters() -> None:
    world = World()
    first, _, third = world.queue("a/main"), world.queue("a/main"), world.queue("b/main")
    facts = replace(world.facts(), free_slots=(0, 1))
    assert [step.job for step in decide_start(facts, [0, 1], world.now) if isinstance(step, StartChild)] == [first, third]


def test_a_failed_attempt_waits_longer_each_time_and_one_that_nobody_is_to_blame_for_does_not() -> None:
    waits = [(retry_at(attempts, START) - START).total_seconds() for attempts in (1, 2, 3, 4, 9)]
    assert waits == [1, 5, 25, 125, 300]
    world = World()
    job = world.queue()
    training(world, job)
    world.lose(job)
    world.tick()
    facts = world.jobs[job].facts
    assert isinstance(facts, Queued)
    assert facts.not_before == world.now + timedelta(seconds=1)
    assert "tried again before" not in why_waits(world.jobs[job], world.facts(), facts.not_before)
    training(world, job)
    world.restart()
    world.tick()
    assert world.jobs[job].facts.not_before is None  # type: ignore[union-attr]


def test_a_job_starts_no_earlier_than_it_was_told_to_and_says_so() -> None:
    world = World()
    job = world.queue()
    later = world.now + timedelta(hours=1)
    world.jobs[job] = replace(world.jobs[job], facts=Queued(since=world.now, not_before=later))
    world.tick()
    assert world.state(job) is JobState.QUEUED
    assert why_waits(world.jobs[job], world.facts(), world.now) == f"not before {later:%Y-%m-%d %H:%M:%S}Z"
    world.now = later
    training(world, job)


# ---------------------------------------------------------------- what lets nothing start


@pytest.mark.parametrize("device", [{"foreign": "firefox (pid 4711)"}, {"hot": "92 °C, until it is below 78"}])
def test_a_slot_whose_device_another_holds_or_that_is_hot_is_not_used_and_the_job_says_why(device: dict[str, str]) -> None:
    world = World()
    job = world.queue()
    facts = replace(world.facts(), devices=(DeviceSeen(slot=0, name="cuda:0", **device),))
    assert usable_slots(facts) == []
    assert not [step for step in decide(facts, world.now).steps if isinstance(step, StartChild)]
    assert next(iter(device.values())) in why_waits(world.jobs[job], facts, world.now)


@pytest.mark.parametrize("why", [{"paused": "paused by ann"}, {"closed": "quiet hours"}, {"disk": DiskSeen(low="12 MiB free")}])
def test_what_stops_all_training_lets_nothing_start_and_sends_one_at_work_back_without_an_attempt(why: dict[str, object]) -> None:
    words = next(iter(why.values()))
    words = words.low if isinstance(words, DiskSeen) else words
    world = World()
    job, other = world.queue("a/main"), world.queue("b/main")
    training(world, job)
    for _ in range(3):
        for step in decide(replace(world.facts(), **why), world.now).steps:  # type: ignore[arg-type]
            world._apply(step)
    facts = world.jobs[job].facts
    assert isinstance(facts, Queued)
    assert (facts.reason, facts.attempts, facts.not_before) == (words, 0, None)
    assert world.working() == []
    assert why_waits(world.jobs[other], replace(world.facts(), **why), world.now) == words  # type: ignore[arg-type]
    training(world, job)


def test_ranking_goes_on_while_the_calendar_lets_nothing_train() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.finish(job)
    world.closed = "quiet hours"
    assert world.run_to_end(job) is JobState.RELEASED


# ---------------------------------------------------------------- pause and resume


def test_the_paused_queue_starts_nothing_until_it_is_resumed_and_tells_it_twice_alike() -> None:
    world = World()
    job = world.queue()
    for _ in range(2):
        world.ask(CommandKind.PAUSE, actor="ann", reason="the GPU is mine")
        world.settle()
    assert [reply.answer.ok for reply in world.answers] == [True, True]
    assert (world.answers[0].actor, world.answers[0].reason) == ("ann", "the GPU is mine")
    assert world.state(job) is JobState.QUEUED
    for _ in range(2):
        world.ask(CommandKind.RESUME)
        world.settle()
    assert [reply.answer.ok for reply in world.answers] == [True] * 4
    assert world.state(job) is JobState.TRAINING


def test_pausing_a_training_leaves_it_queued_with_its_reason_and_resuming_goes_on() -> None:
    world = World()
    job, other = world.queue("a/main"), world.queue("b/main")
    training(world, job)
    world.ask(CommandKind.PAUSE, job=job, actor="ann", reason="later")
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Queued)
    assert (facts.paused, facts.attempts) == ("paused by ann: later", 0)
    assert why_waits(world.jobs[job], world.facts(), world.now) == "paused by ann: later"
    training(world, other)
    world.ask(CommandKind.RESUME, job=job)
    assert world.run_to_end(job) is JobState.RELEASED


def test_a_training_that_ends_before_it_hears_of_the_pause_goes_on_to_be_judged() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.finish(job)
    world.ask(CommandKind.PAUSE, job=job)
    world.tick()
    world.tick()
    assert world.state(job) is JobState.RANKING


def test_a_pause_survives_the_daemon() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.ask(CommandKind.PAUSE, job=job)
    world.tick()
    world.restart()
    world.settle()
    assert world.jobs[job].facts.paused  # type: ignore[union-attr]


def test_only_a_job_that_waits_or_trains_can_be_paused_and_the_answer_says_so() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.finish(job)
    world.settle()
    for kind in (CommandKind.PAUSE, CommandKind.RESUME):
        world.ask(kind, job=job)
        world.tick()
        assert (world.answers[-1].answer.ok, world.answers[-1].answer.code) == (False, "ILLEGAL_TRANSITION")
        assert "is ranking" in world.answers[-1].answer.message
    world.run_to_end(job)
    world.ask(CommandKind.PAUSE, job=job)
    world.tick()
    assert "is released already" in world.answers[-1].answer.message
    world.ask(CommandKind.RESUME, job="job-x")
    world.tick()
    assert world.answers[-1].answer.code == "JOB_UNKNOWN"


# ---------------------------------------------------------------- a command that the daemon died over


@pytest.mark.parametrize("kind", [CommandKind.CANCEL, CommandKind.APPROVE, CommandKind.REFUSE, CommandKind.PAUSE, CommandKind.RESUME])
def test_a_daemon_killed_between_the_deed_and_its_answer_answers_yes_and_does_it_once(kind: CommandKind) -> None:
    world = World()
    job = world.queue()
    if kind in (CommandKind.APPROVE, CommandKind.REFUSE):
        for _ in range(20):
            world.settle()
            for owner, _run in world.working():
                world.finish(owner, word=VerdictWord.HOLD)
        assert world.state(job) is JobState.HELD
    world.ask(kind, job=job, actor="ann", reason="because")
    world.commands[0] = replace(world.commands[0], made_at=world.now + timedelta(seconds=1, milliseconds=2))  # the tick has begun already
    world.now += timedelta(seconds=1)
    for step in decide(world.facts(), world.now).steps:
        if type(step).__name__ != "Reply":
            world._apply(step)
    before = world.state(job)
    world.restart()
    world.tick()
    assert world.answers[-1].answer.ok, world.answers[-1].answer.message
    assert world.state(job) is before or kind is CommandKind.RESUME, "what is resumed starts, and the restart ends it"


def test_a_second_command_of_another_moment_is_not_taken_for_the_first() -> None:
    world = World()
    job = world.queue()
    world.ask(CommandKind.CANCEL, job=job)
    world.tick()
    world.ask(CommandKind.CANCEL, job=job)
    world.commands[0] = replace(world.commands[0], made_at=world.now + timedelta(milliseconds=1))
    world.tick()
    assert "is cancelled already" in world.answers[-1].answer.message


def test_a_rollback_whose_answer_was_lost_is_answered_with_what_is_live() -> None:
    world = World()
    first, second = world.queue(), world.queue()
    world.run_to_end(second)
    asked = {"adapter": "a/main", "from_release": f"release-of-{second}", "to_release": f"release-of-{first}"}
    world.ask(CommandKind.ROLLBACK, **asked)
    world.settle()
    assert world.live() == f"release-of-{first}"
    world.ask(CommandKind.ROLLBACK, **asked)
    world.tick()
    assert world.answers[-1].answer.ok


def test_cancel_of_a_training_says_that_its_checkpoint_stays() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.ask(CommandKind.CANCEL, job=job)
    world.settle()
    assert f"`lorad jobs show {job}` says where" in world.answers[-1].answer.message


# ---------------------------------------------------------------- the schedule


def fire(world: World, drop: str = "drop-0") -> FireDue:
    facts = replace(world.facts(), due=(Due(entry="nightly", does="train", adapter="a/main", drop=drop, at=world.now),))
    return next(step for step in decide(facts, world.now).steps if isinstance(step, FireDue))


def test_a_scheduled_training_is_skipped_with_a_word_where_it_would_do_nothing_new() -> None:
    world = World()
    assert fire(world).skip == ""
    assert "accepted" in fire(world, drop="").skip
    job = world.queue("a/main")
    assert fire(world).skip == f"{job} is queued"
    training(world, job)
    assert fire(world).skip == f"{job} is training"
    world.run_to_end(job)
    world.queue("b/main")
    assert fire(world).skip == ""


def test_a_scheduled_training_waits_while_a_person_has_not_decided_on_the_same_rows() -> None:
    world = World()
    job = world.queue("a/main")
    training(world, job)
    while world.jobs[job].state is not JobState.HELD:
        world.finish(job, word=VerdictWord.HOLD)
        world.settle()
    drop = world.jobs[job].card.drop
    assert fire(world, drop=drop).skip == f"{job} has trained on the same rows and waits for a person"
    assert fire(world, drop=drop + "-later").skip == "", "new rows are worth a training"


# ---------------------------------------------------------------- views


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["tick", "finish", "finish", "refuse", "restart", "lose", "queue", "cancel"]), max_size=50))
def test_views_that_are_kept_in_step_are_those_that_are_made_anew(events: list[str]) -> None:
    world, kept = World(), JobViews()
    for event in ["queue", *events]:
        if event == "queue" and len(world.jobs) + len(world.ended) < 6:
            world.queue("ab"[len(world.jobs) % 2] + "/main")
        elif event in ("finish", "refuse") and world.working():
            world.finish(world.working()[0][0], word=VerdictWord.REFUSE if event == "refuse" else VerdictWord.PROMOTE)
        elif event == "lose" and world.working():
            world.lose(world.working()[0][0])
        elif event == "restart":
            world.restart()
        elif event == "cancel" and world.jobs:
            world.ask(CommandKind.CANCEL, job=min(world.jobs))
        world.serve()
        world.tick()
        for job in (*world.jobs.values(), *world.ended.values()):
            kept.put(job)
        fresh = JobViews.of((*world.jobs.values(), *world.ended.values()))
        for view in ("queued", "active", "ended", "newest_released", "released_drops", "versions"):
            assert getattr(kept, view) == getattr(fresh, view), view
        assert {state: count for state, count in kept.counts.items() if count} == dict(fresh.counts)
        for job in (*world.jobs.values(), *world.ended.values()):
            assert kept.with_identity(job.card.identity) == fresh.with_identity(job.card.identity)


def test_an_exit_for_a_stop_is_no_attempt_even_where_the_reason_has_gone_by_then() -> None:
    world = World()
    job = world.queue()
    training(world, job)
    world.finish(job, code=ChildExit.STOPPED)
    world.tick()
    assert world.jobs[job].facts.attempts == 0  # type: ignore[union-attr]
    assert not isinstance(world.jobs[job].facts, Ranking)
