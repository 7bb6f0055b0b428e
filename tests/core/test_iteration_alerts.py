"""A round of the loop that waits for a person, or was taken back, is told."""

import sys
from pathlib import Path

from core.alerts import Alert, Happening, Scene, find
from core.iterations import Gated

sys.path.insert(0, str(Path(__file__).parent))
from loop_world import LoopWorld


def alerts(world: LoopWorld, *happenings: Happening) -> dict[str, Alert]:
    return find(Scene(facts=world.facts(), now=world.now, happenings=happenings))


def test_an_iteration_that_waits_with_its_job_in_the_queue_names_the_command() -> None:
    world = LoopWorld(gated=Gated(rows=90, missing=2))
    world.round()
    world.settle()
    one = world.iteration()
    assert alerts(world)[f"iteration_waits/{one.id}"].next.startswith(f"lorad iteration show {one.id}; lorad iteration continue {one.id}")


def test_one_whose_job_is_held_is_told_by_the_held_job_alone() -> None:
    world = LoopWorld()
    world.measure = world.measure.__class__(of="", gradient_norm=1e9)
    world.run_to_end(world.round())
    world.settle()
    assert world.iteration().pause
    assert [alert.rule for alert in alerts(world).values()] == ["verdict_waits"]


def test_a_release_that_was_taken_back_is_told_once() -> None:
    happened = Happening(kind="iteration.rolled_back", about="iteration-1", words={"adapter": "a/main", "job": "job-1", "reason": "error share is 0.2"})
    (alert,) = alerts(LoopWorld(), happened).values()
    assert (alert.rule, alert.adapter, alert.reason) == ("iteration_went_back", "a/main", "error share is 0.2")
