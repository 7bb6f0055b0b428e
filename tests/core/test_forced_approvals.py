"""`lorad jobs approve --force`: what it overrules, and that it says so."""

from dataclasses import replace

import pytest
from test_reconcile import to_stage
from world import World

from core.commands import CommandKind
from core.records import Held, JobState, VerdictWord


def held(reason: str = "no proof") -> tuple[World, str]:
    world = World()
    job = world.queue()
    to_stage(world, job, "rank verdict")
    world.finish(job, word=VerdictWord.HOLD)
    world.settle()
    facts = world.jobs[job].facts
    assert isinstance(facts, Held)
    world.jobs[job] = replace(world.jobs[job], facts=replace(facts, reason=reason))
    return world, job


def ask(world: World, job: str, **details: str) -> str:
    world.ask(CommandKind.APPROVE, job=job, reason="I know it", actor="ann", details=details)
    world.settle()
    answer = world.answers[-1].answer
    return answer.message if answer.ok else answer.code


def test_missing_evidence_is_approved_by_force_alone_and_the_answer_says_so() -> None:
    world, job = held("evidence missing: gate/base is torn")
    assert ask(world, job) == "EVIDENCE_MISSING"
    assert world.state(job) is JobState.HELD
    assert ask(world, job, force="yes") == f"job {job} is approved by force, although its evidence is missing, and on its way"
    assert world.answers[-1].reason == "I know it"
    assert world.run_to_end(job) is JobState.RELEASED


@pytest.mark.parametrize("force", [False, True])
def test_a_verdict_against_another_release_is_given_anew_unless_forced(force: bool) -> None:
    world, job = held()
    facts = world.jobs[job].facts
    assert isinstance(facts, Held)
    stale = replace(facts.ranking, incumbent="e" * 64)
    world.jobs[job] = replace(world.jobs[job], facts=replace(facts, ranking=stale))
    said = ask(world, job, **({"force": "yes"} if force else {}))
    if force:
        assert "by force, although its verdict is against another release" in said
        assert world.run_to_end(job) is JobState.RELEASED
    else:
        assert "judged again" in said


def test_what_needs_no_force_is_not_called_forced() -> None:
    world, job = held()
    assert ask(world, job, force="yes") == f"job {job} is approved and on its way"
