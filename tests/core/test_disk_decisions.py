"""What a low disk means for jobs and drops: nothing is started that would only fail, nothing is blamed, all goes on by itself."""

from dataclasses import replace

import pytest
from world import World

from core.commands import CommandKind
from core.facts import DiskSeen, Due, Facts
from core.housekeeping import begin_due
from core.reconcile import decide
from core.records import JobState, Queued
from core.steps import BeginChore, PinRelease, Reply, StartChild, Step

LOW = DiskSeen(free_bytes=100 << 20, low="100 MB free of the 1024 MB floor (retention.min_free_mb)")
SHORT = DiskSeen(free_bytes=2 << 30, short="needs 1.2 GB, 800 MB free above the floor of 1.1 GB (retention.min_free_mb): waiting")
FULL = DiskSeen(free_bytes=1 << 20, low="1 MB free")
NO_INODES = DiskSeen(free_inodes=10, low="10 inodes free")


class OnDisk(World):
    """A world whose disk the test sets."""

    disk = DiskSeen()

    def facts(self) -> Facts:
        return replace(super().facts(), disk=self.disk)


def test_a_training_under_way_is_stopped_at_the_low_mark_and_goes_on_once_there_is_room() -> None:
    world = OnDisk()
    job = world.queue()
    world.tick()
    assert world.state(job) is JobState.TRAINING
    world.disk = LOW
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Queued)
    assert (facts.reason, facts.attempts) == (LOW.low, 0)
    world.disk = DiskSeen()
    assert world.run_to_end(job) is JobState.RELEASED


def test_one_that_does_not_fit_waits_and_one_under_way_goes_on() -> None:
    world = OnDisk()
    first = world.queue()
    world.tick()
    world.disk = SHORT
    second = world.queue("b/main")
    world.settle()
    assert world.state(first) is JobState.TRAINING
    assert world.run_to_end(first) is JobState.RELEASED, "only a training needs so much"
    assert world.state(second) is JobState.QUEUED
    world.disk = DiskSeen()
    assert world.run_to_end(second) is JobState.RELEASED


@pytest.mark.parametrize("disk", [FULL, NO_INODES])
def test_on_a_full_disk_no_child_is_started_again_and_again(disk: DiskSeen) -> None:
    world = OnDisk()
    job = world.queue()
    world.tick()
    world.finish(job)
    world.disk = disk
    world.settle()
    assert world.state(job) is JobState.RANKING
    assert world.starts == ["train"], "scoring would find the disk full"
    world.disk = DiskSeen()
    assert world.run_to_end(job) is JobState.RELEASED


def test_commands_about_home_become_chores_that_answer_themselves() -> None:
    world = World()
    world.ask(CommandKind.GC)
    world.ask(CommandKind.SNAPSHOT, job="job-1")
    steps = decide(world.facts(), world.now).steps
    assert [(step.does, step.of) for step in steps if isinstance(step, BeginChore)] == [("gc", ""), ("snapshot", "job-1")]
    assert not [step for step in steps if isinstance(step, Reply)], "the answer comes when it is done"


def test_only_a_release_that_is_here_can_be_pinned() -> None:
    world = World(releases={"r1": 1})
    world.ask(CommandKind.PIN, adapter="a/main", to_release="r1", actor="ann", reason="the demo")
    steps = decide(world.facts(), world.now).steps
    pins: list[Step] = [step for step in steps if isinstance(step, PinRelease)]
    assert pins == [PinRelease(release="r1", pinned=True, actor="ann", reason="the demo")]
    assert [step.answer.ok for step in steps if isinstance(step, Reply)] == [True]
    unknown = World(releases={"r1": 1})
    unknown.ask(CommandKind.UNPIN, adapter="a/main", to_release="r2")
    (reply,) = decide(unknown.facts(), unknown.now).steps
    assert isinstance(reply, Reply)
    assert (reply.answer.ok, reply.answer.code) == (False, "RELEASE_UNKNOWN")


def test_the_schedule_asks_for_chores_only_in_words_it_knows() -> None:
    world = World()
    assert [step.does for does in ("gc", "snapshot", "backup", "train") for step in begin_due(Due(entry="x", does=does, at=world.now))] == [
        "gc",
        "snapshot",
        "backup",
    ]
    assert not [step for step in decide(world.facts(), world.now).steps if isinstance(step, StartChild)]
