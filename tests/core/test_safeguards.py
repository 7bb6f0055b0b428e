"""What the training box asks of the boxes' guards, and what it does about their word."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.alerts import Scene, find
from core.commands import CommandKind
from core.config import Config
from core.deployment import DeployConfig, RehearsalConfig, WatchConfig
from core.records import JobState
from core.trends import Against, Regression
from core.wire import AliasState, Outcome, TrialResult, WatchState

sys.path.insert(0, str(Path(__file__).parent))
from world import START, World


def world_with(**deploy: object) -> World:
    return World(config=Config(allow_stub=True, deploy=DeployConfig(**deploy)))  # type: ignore[arg-type]


def to_release(world: World) -> str:
    """A job up to the pack, its release made; returns the job."""
    job = world.queue()
    for _ in range(60):
        if any(world.jobs[job].state is JobState.RELEASING and getattr(world.jobs[job].facts, "release", None) for _ in (0,) if job in world.jobs):
            return job
        world.tick()
        for owner, _ in world.working():
            world.finish(owner)
    raise AssertionError("never packed")


def released(world: World) -> str:
    job = to_release(world)
    world.settle()
    assert world.state(job) is JobState.RELEASED
    return job


def result(world: World, release: str, *reasons: str) -> TrialResult:
    assert world.desired is not None
    return TrialResult(id=world.desired.trials[release].id, release=release, at=world.now, passed=not reasons, reasons=reasons)


def regression(world: World, release: str, goes_back_to: str, *, counted: bool = True) -> Regression:
    return Regression(
        adapter="a/main",
        measure="incidents",
        release=release,
        version=2,
        against=Against.BEFORE,
        since=world.now,
        before=0.0,
        now=2.0,
        worse_by=2.0,
        low=0.5,
        high=3.0,
        count=4,
        goes_back_to=goes_back_to,
        counted=counted,
    )


# ---------------------------------------------------------------- the rehearsal as a stage


def test_a_release_is_rehearsed_before_it_is_wished_for() -> None:
    world = world_with(rehearsal=RehearsalConfig(enabled=True, requests=9))
    job = to_release(world)
    release = f"release-of-{job}"
    for _ in range(3):
        world.tick()
    assert world.desired is not None
    assert world.desired.aliases == {}, "not wished for yet"
    trial = world.desired.trials[release]
    assert (trial.alias, trial.requests, trial.id) == ("a/main", 9, job)
    assert getattr(world.jobs[job].facts, "reason", "") == "target local: rehearses it"
    assert world.tick() == 0, "it is asked for once"
    world.trials[release] = replace(result(world, release), id="another")
    assert world.tick() == 0, "an answer to another rehearsal counts for nothing"
    world.trials[release] = result(world, release)
    world.settle()
    assert world.state(job) is JobState.RELEASED
    assert world.live() == release


def test_a_release_that_fails_its_rehearsal_never_goes_live() -> None:
    world = world_with(rehearsal=RehearsalConfig(enabled=True))
    job = to_release(world)
    release = f"release-of-{job}"
    world.tick()
    world.trials[release] = result(world, release, "9 of 32 answers failed")
    world.settle()
    ended = world.ended[job].facts
    assert getattr(ended, "code", "") == "REHEARSAL_FAILED"
    assert "9 of 32 answers failed" in getattr(ended, "reason", "")
    assert world.live() is None


def test_a_person_asks_for_a_rehearsal() -> None:
    world = World()
    job = released(world)
    release = f"release-of-{job}"
    for name, wanted, ok in (("", release, True), ("nowhere", release, False), ("", "unknown", False)):
        world.commands.clear()
        world.ask(CommandKind.REHEARSE, adapter="a/main", to_release=wanted, details={"target": name})  # type: ignore[arg-type]
        world.tick()
        assert world.answers[-1].answer.ok is ok
    assert world.desired is not None
    assert world.desired.trials[release].id == "command-0"


# ---------------------------------------------------------------- terms


def test_the_watch_of_the_config_goes_with_every_wish_and_follows_it() -> None:
    world = world_with(watch=WatchConfig(window_s=30), sets={"a": {"shared/tone": 0.5}})
    released(world)
    assert world.desired is not None
    assert world.desired.watch is not None
    assert (world.desired.watch.window_s, world.desired.sets) == (30, {"a": {"shared/tone": 0.5}})
    fences = world.desired.fences
    world.config = Config(allow_stub=True, deploy=DeployConfig(watch=WatchConfig(window_s=0)))
    world.box_up = False
    assert world.tick() == 0, "a box that does not answer is asked nothing new"
    world.box_up = True
    world.settle()
    assert world.desired.watch is None
    assert world.desired.fences == fences, "no alias is asked anew"


# ---------------------------------------------------------------- rollbacks


def test_what_a_box_rolled_back_is_wished_for_no_more_and_told() -> None:
    world = World()
    first, second = released(world), released(world)
    good, bad = f"release-of-{first}", f"release-of-{second}"
    world.ledger.append(("a/main", good))
    fence = world.outcomes["a/main"].fence
    world.outcomes["a/main"] = AliasState(release=good, fence=fence, outcome=Outcome.REFUSED, code="ROLLED_BACK", reason="8 of 8 failed", wanted=bad)
    state = WatchState(release=bad, before=good, phase="rolled_back", since=world.now, until=world.now + timedelta(seconds=9), reason="8 of 8 failed")
    world.watches["a/main"] = state
    alerts = [alert for alert in find(Scene(facts=world.facts(), now=START)).values() if alert.rule == "rolled_back"]
    (alert,) = alerts
    assert (alert.adapter, alert.severity.value) == ("a/main", "critical")
    assert "8 of 8 failed" in alert.reason
    world.settle()
    assert world.desired is not None
    assert world.desired.aliases["a/main"].release == good


def test_what_is_proven_to_be_worse_goes_back_by_itself() -> None:
    world = World()
    first, second = released(world), released(world)
    good, bad = f"release-of-{first}", f"release-of-{second}"
    world.regressions = (regression(world, bad, good),)
    world.tick()
    world.serve()
    assert world.live() == good
    assert world.desired is not None
    wish = world.desired.aliases["a/main"]
    assert (wish.release, wish.replaces, wish.allow) == (good, bad, False)
    world.settle()
    assert world.live() == good


@pytest.mark.parametrize("case", ["scores", "off", "refused", "gone", "other"])
def test_what_does_not_go_back_by_itself(case: str) -> None:
    """Worse by its verdict (a person let it pass), the watch switched off, a way back that was refused or is gone, another one live."""
    world = world_with(watch=WatchConfig(window_s=0)) if case == "off" else World()
    first, second = released(world), released(world)
    good, bad = f"release-of-{first}", f"release-of-{second}"
    world.regressions = (regression(world, good if case == "other" else bad, good if case != "other" else bad, counted=case != "scores"),)
    if case == "refused":
        world.refused.add(good)
    if case == "gone":
        del world.releases[good]
    assert world.tick() == 0
    assert world.live() == bad
