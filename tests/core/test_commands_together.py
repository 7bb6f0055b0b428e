"""Commands that arrive within one tick: each is decided on what the one before has made, and each keeps its word."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from world import World

from core.commands import CommandKind
from core.reconcile import decide
from core.records import JobState


def test_the_last_word_about_the_whole_queue_counts() -> None:
    world = World()
    world.ask(CommandKind.PAUSE)
    world.ask(CommandKind.RESUME)
    ids(world)
    world.settle()
    assert world.paused == ""
    assert all(reply.answer.ok for reply in world.answers)


def test_a_cancel_is_not_forgotten_over_a_pause_of_the_same_job() -> None:
    world = World()
    job = world.queue()
    world.tick()
    assert world.state(job) is JobState.TRAINING
    world.ask(CommandKind.CANCEL, job=job)
    world.ask(CommandKind.PAUSE, job=job)
    ids(world)
    world.settle()
    assert world.state(job) is JobState.CANCELLED
    assert [reply.answer.ok for reply in world.answers] == [True, False]


def test_two_retries_of_one_job_make_one() -> None:
    world = World()
    job = world.queue()
    world.ask(CommandKind.CANCEL, job=job)
    world.settle()
    world.ask(CommandKind.RETRY, job=job)
    world.ask(CommandKind.RETRY, job=job)
    ids(world)
    kinds = [type(step).__name__ for step in decide(world.facts(), world.now).steps]
    assert kinds.count("RetryJob") == 1


def ids(world: World) -> None:
    """Give the waiting commands ids of their own: the world names them by how many were answered."""
    world.commands = [replace(command, id=f"command-{len(world.answers) + number}") for number, command in enumerate(world.commands)]
