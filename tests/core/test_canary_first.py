"""Several targets: the canary is asked first, and the others only when it has watched the release for its window."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from world import START, World

from core.config import Config
from core.facts import Facts, TargetSeen
from core.lifecycle import Event
from core.records import Job, JobState, Ranking, Releasing
from core.rollout import decide_releasing
from core.steps import Move, Record, SetWish, Step
from core.wire import Active, AliasState, Desired, Observed, Outcome, WatchState, Wish

ALIAS, RELEASE = "a/main", "r" * 64
CONFIG = Config.model_validate(
    {
        "allow_stub": True,
        "deploy": {"targets": [{"name": "canary", "path": "/c", "canary": True}, {"name": "rest", "path": "/r"}]},
    }
)


def releasing() -> Job:
    world = World()
    job = world.jobs[world.queue(ALIAS)]
    work = Releasing(since=START, ranking=Ranking(since=START, candidates=()), version=1, release=RELEASE, fences={"canary": 1})
    return replace(job, state=JobState.RELEASING, facts=work)


def live_on(name: str, watch: str | None) -> TargetSeen:
    """A target that says that the release is live, and how its watch stands."""
    state = AliasState(release=RELEASE, fence=1, outcome=Outcome.LIVE, wanted=RELEASE)
    until = START + timedelta(minutes=10)
    watches = {ALIAS: WatchState(release=RELEASE, before=None, phase=watch, since=START, until=until)} if watch else {}
    active = Active(box=name, sequence=1, fence_seen=1, at=START, aliases={ALIAS: state}, watches=watches)
    desired = Desired(fence=1, aliases={ALIAS: Wish(release=RELEASE, replaces=None)}, fences={ALIAS: 1}, made_at=START)
    return TargetSeen(name=name, desired=desired, observed=Observed(target=name, at=START, reachable=True, active=active), live={ALIAS: RELEASE})


def steps(job: Job, *targets: TargetSeen, config: Config = CONFIG) -> Iterator[Step]:
    return decide_releasing(job, Facts(instance="d", config=config, backend="stub", base_sha256="b", jobs={job.id: job}, targets=targets), START)


@pytest.mark.parametrize("phase", ["shadow", "canary", "all"])
def test_the_rest_waits_while_the_canary_watches_and_says_so(phase: str) -> None:
    job = releasing()
    (step,) = steps(job, live_on("canary", phase), TargetSeen(name="rest", desired=None, observed=None))
    assert isinstance(step, Record)
    assert "canary canary" in step.facts.reason  # type: ignore[union-attr]
    assert list(steps(replace(job, facts=step.facts), live_on("canary", phase), TargetSeen(name="rest", desired=None, observed=None))) == []


@pytest.mark.parametrize("phase", ["passed", None])
def test_the_rest_is_asked_once_the_watch_is_over_or_there_is_none(phase: str | None) -> None:
    (step,) = steps(releasing(), live_on("canary", phase), TargetSeen(name="rest", desired=None, observed=None))
    assert isinstance(step, SetWish)
    assert step.target == "rest"


def test_a_target_that_is_no_canary_holds_up_nobody() -> None:
    plain = Config.model_validate({"allow_stub": True, "deploy": {"targets": [{"name": "canary", "path": "/c"}, {"name": "rest", "path": "/r"}]}})
    (step,) = steps(releasing(), live_on("canary", "all"), TargetSeen(name="rest", desired=None, observed=None), config=plain)
    assert isinstance(step, SetWish)


def test_a_canary_alone_is_live_at_once() -> None:
    (step,) = steps(releasing(), live_on("canary", "all"))
    assert isinstance(step, Move)
    assert step.event is Event.LIVE


def test_a_canary_that_rolled_back_ends_the_job_before_anybody_else_is_asked() -> None:
    seen = live_on("canary", None)
    assert seen.observed is not None
    assert seen.observed.active is not None
    back = replace(seen.observed.active, aliases={ALIAS: AliasState(release=None, fence=1, outcome=Outcome.REFUSED, code="ROLLED_BACK", wanted=RELEASE)})
    (step,) = steps(releasing(), replace(seen, observed=replace(seen.observed, active=back)), TargetSeen(name="rest", desired=None, observed=None))
    assert isinstance(step, Move)
    assert step.event is Event.TARGET_REFUSED
