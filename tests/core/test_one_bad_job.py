"""A job whose records make no sense stops neither the others nor the daemon."""

import sys
from dataclasses import replace
from pathlib import Path

from core.config import Config
from core.endings import silence_limit_s
from core.reconcile import decide
from core.records import ChildRef, JobState, Kind
from core.steps import CannotDecide, Move
from core.tasks import ChildSeen

sys.path.insert(0, str(Path(__file__).parent))
from world import START, World


def test_a_job_that_cannot_be_understood_is_told_and_the_others_go_on() -> None:
    world = World()
    bad = world.queue("a/main")
    world.settle()
    assert world.state(bad) is JobState.TRAINING
    facts = replace(world.facts(), children={})  # nobody knows the child that its facts name
    good = world.queue("b/main")
    facts = replace(facts, jobs={**facts.jobs, good: world.jobs[good]}, free_slots=(0,), views=world.facts().views)
    steps = decide(facts, world.now).steps
    told = [step for step in steps if isinstance(step, CannotDecide)]
    assert [(step.job, type(step.error)) for step in told] == [(bad, KeyError)]
    assert not any(isinstance(step, Move) and step.job == bad for step in steps)
    assert any(getattr(step, "job", "") == good for step in steps), "the other one starts"


def test_a_reload_does_not_shorten_the_patience_with_a_child_that_runs() -> None:
    child = ChildSeen(ref=ChildRef(run="01-train", kind=Kind.TRAIN, instance="i", started_at=START), alive=True, patience=(300.0, 20.0), median_step_s=60.0)
    hasty = Config.model_validate({"training": {"hang_s": 5.0, "hang_factor": 2.0}})
    assert silence_limit_s(child, hasty) == 1200.0
    assert silence_limit_s(replace(child, patience=None), hasty) == 120.0
