"""Before the flip a rehearsal or a shadow, after it a watch that rolls back by itself: in process, with engines that fail on purpose."""

from collections import Counter
from pathlib import Path

import pytest
from inference_box import World
from watched_box import BadEngine, ask_as, release_with, trial, until, watch, watched, wish_with

from core.wire import Outcome
from serving.activation import RETRY_S, Agent


@pytest.fixture
def engine() -> BadEngine:
    return BadEngine()


@pytest.fixture
def agent(world: World, engine: BadEngine) -> Agent:
    return world.agent(engine)


def go(world: World, agent: Agent, seconds: float) -> None:
    """Let time pass on the box."""
    world.clock.seconds += seconds
    agent.tick()


# ---------------------------------------------------------------- rehearsal


def test_a_rehearsal_is_asked_for_by_wish_and_answered_without_a_flip(world: World, agent: Agent) -> None:
    first = world.release(None)
    agent.tick()
    second = world.pack(version=2)
    wish_with(world, trials={second: trial("t-1")})
    agent.tick()
    assert world.active.trials == {}, "it has not arrived"
    world.send(second)
    world.clock.seconds += 2
    until(agent, lambda: second in world.active.trials)
    result = world.active.trials[second]
    assert (result.id, result.passed, result.requests, result.errors) == ("t-1", True, 6, 0)
    assert result.requests_s > 0
    assert world.live() == first
    assert [line.release for line in world.ledger] == [first]
    until(agent, lambda: second not in agent._manifests)
    again = world.agent()
    again.tick()
    assert world.active.trials[second] == result, "a restart does not rehearse again"
    wish_with(world)
    again.tick()
    assert world.active.trials == {}, "asked for no more, told no more"


def test_a_rehearsal_that_fails_names_why_and_what_is_live_stays(world: World, agent: Agent, engine: BadEngine) -> None:
    first = world.release(None)
    agent.tick()
    second, third = world.pack(version=2), world.pack(version=3)
    engine.failing.add(second)
    engine.babbling.add(third)
    for release in (second, third):
        world.send(release)
    wish_with(world, trials={second: trial("t-2"), third: trial("t-3")})
    until(agent, lambda: len(world.active.trials) == 2)
    assert not world.active.trials[second].passed
    assert "6 of 6 answers failed (0 of them unusable)" in world.active.trials[second].reasons[0]
    assert "6 of 6 answers failed (6 of them unusable)" in world.active.trials[third].reasons[0]
    assert world.live() == first
    asked = Counter(part.release for ask in engine.asked for part in ask.blend)
    assert asked[first] == 12, "the live one is asked the same"


def test_a_release_that_cannot_even_be_loaded_fails_its_rehearsal(world: World, agent: Agent) -> None:
    release = world.pack(base="e" * 64)
    world.send(release)
    wish_with(world, trials={release: trial("t-4")})
    until(agent, lambda: release in world.active.trials)
    assert "BASE_MISMATCH" in world.active.trials[release].reasons[0]
    assert world.places()["checking"] == []


# ---------------------------------------------------------------- the watch


def test_a_release_that_holds_passes_its_watch(world: World, agent: Agent) -> None:
    first = release_with(world, None, 1, watch=watch())
    until(agent, lambda: (state := watched(world)) is not None and state.answers >= 1)
    state = watched(world)
    assert state is not None
    assert (state.release, state.before, state.phase) == (first, None, "all")
    world.clock.seconds += 61
    until(agent, lambda: (state := watched(world)) is not None and state.phase == "passed")
    assert world.events() == [("live", "")]


@pytest.mark.parametrize("fault", ["failing", "babbling"])
def test_a_release_that_loads_but_answers_rubbish_is_rolled_back_alone(world: World, agent: Agent, engine: BadEngine, fault: str) -> None:
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    second = world.pack(version=2)
    getattr(engine, fault).add(second)
    world.send(second)
    world.wish(second, first)
    wish_with(world, watch=watch())
    agent.tick()
    assert world.live() == second
    until(agent, lambda: world.live() == first)
    line = world.ledger[-1]
    assert (line.event, line.code, line.release, line.previous, line.version) == ("rolled_back", "ROLLED_BACK", first, second, 1)
    assert "1 of 1 canary prompts failed" in line.reason
    state = world.state()
    assert (state.outcome, state.code, state.wanted, state.previous) == (Outcome.REFUSED, "ROLLED_BACK", second, None)
    assert ask_as(agent, "anyone") == first
    assert second not in agent._manifests

    world.wish(second, first)
    agent.tick()
    assert world.events()[-1] == ("refused", "REFUSED_BEFORE"), "it never comes back by itself"
    again = world.agent()
    assert ask_as(again, "anyone") == first
    told = watched(world)
    assert told is not None
    assert told.phase == "rolled_back", "a restart still tells it"
    world.wish(second, first, allow=True)
    again.tick()
    assert world.live() == second, "a person may allow it"
    assert watched(world) is None, "and has decided: nothing is watched"


def test_users_whose_answers_fail_bring_the_release_before_back(world: World, agent: Agent, engine: BadEngine) -> None:
    first = release_with(world, None, 1, watch=watch(every_s=10_000))
    agent.tick()
    for _ in range(20):
        ask_as(agent, "anyone")
    second = release_with(world, first, 2, watch=watch(every_s=10_000))
    until(agent, lambda: (state := watched(world)) is not None and state.answers >= 1 and state.release == second)
    engine.failing.add(second)
    for _ in range(20):
        ask_as(agent, "anyone")
    agent.tick()
    assert world.live() == first
    assert "20 of 21 answers failed, of the release before 0 of 21" in world.ledger[-1].reason


def test_people_who_dislike_it_bring_the_release_before_back(world: World, agent: Agent) -> None:
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    for _ in range(10):
        agent.engine.rate(first, negative=False)
    second = release_with(world, first, 2, watch=watch())
    agent.tick()
    for _ in range(10):
        agent.engine.rate(second, negative=True)
    agent.tick()
    assert world.live() == first
    assert "10 of 10 ratings are negative" in world.ledger[-1].reason


def test_a_wish_that_comes_first_is_not_undone_by_the_guard(world: World, agent: Agent, engine: BadEngine) -> None:
    """Rollback by the guard and by a person at the same moment: one wins, and something is always live."""
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    second = release_with(world, first, 2, watch=watch())
    engine.failing.add(second)
    agent.tick()
    world.wish(None, second, allow=True)
    until(agent, lambda: world.live() is None)
    for _ in range(5):
        agent.tick()
    assert world.events() == [("live", ""), ("live", ""), ("live", "")]
    assert ask_as(agent, "anyone") == "base"


def test_several_rollbacks_at_once(world: World, agent: Agent, engine: BadEngine) -> None:
    aliases = ["a/main", "b/main", "c/main"]
    goods, bads = {}, {}
    for alias in aliases:
        goods[alias] = world.release(None, alias=alias)
        agent.tick()
    for alias in aliases:
        bads[alias] = world.release(goods[alias], alias=alias, version=2)
    engine.failing |= set(bads.values())
    wish_with(world, watch=watch())
    until(agent, lambda: all(world.live(alias) == goods[alias] for alias in aliases) and len(world.ledger) == 9)
    assert [world.events(alias) for alias in aliases] == [[("live", ""), ("live", ""), ("rolled_back", "ROLLED_BACK")]] * 3


def test_a_rollback_whose_target_is_gone_ends_at_the_base(world: World, agent: Agent, engine: BadEngine) -> None:
    first = release_with(world, None, 1, watch=watch())
    agent.tick()
    second = release_with(world, first, 2, watch=watch())
    engine.failing.add(second)
    agent.tick()
    del agent._manifests[first]
    (world.box.releases / f"default/main/v1-{first[:12]}" / "probe.jsonl").write_text("torn")
    until(agent, lambda: world.live() is None)
    assert "RELEASE_BYTES" in world.ledger[-1].reason
    assert ask_as(agent, "anyone") == "base"


def test_a_watch_goes_on_after_a_restart_for_the_rest_of_its_window(world: World, agent: Agent) -> None:
    release = release_with(world, None, 1, watch=watch())
    until(agent, lambda: watched(world) is not None)
    world.clock.seconds += 50
    again = world.agent(BadEngine())
    until(again, lambda: (state := watched(world)) is not None and state.answers >= 1)
    state = watched(world)
    assert state is not None
    assert (state.release, state.phase) == (release, "all")
    world.clock.seconds += 11
    until(again, lambda: (state := watched(world)) is not None and state.phase == "passed")


# ---------------------------------------------------------------- shadow and canary


def test_in_the_shadow_a_release_answers_copies_and_is_shown_to_nobody(world: World, agent: Agent, engine: BadEngine) -> None:
    first = release_with(world, None, 1)
    agent.tick()
    second = release_with(world, first, 2, watch=watch(shadow_share=0.5))
    agent.tick()
    assert world.events()[-1] == ("deferred", "IN_SHADOW")
    state = watched(world)
    assert state is not None
    assert (state.phase, state.release, world.live()) == ("shadow", second, first)
    assert {ask_as(agent, f"user {number}") for number in range(10)} == {first}
    until(agent, lambda: any(part.release == second for ask in engine.asked for part in ask.blend if ask.messages[-1].content == "hello"))
    world.clock.seconds += 61
    until(agent, lambda: world.live() == second)
    assert ask_as(agent, "anyone") == second


def test_a_release_that_fails_in_the_shadow_is_refused(world: World, agent: Agent, engine: BadEngine) -> None:
    first = release_with(world, None, 1)
    agent.tick()
    second = release_with(world, first, 2, watch=watch(shadow_share=1))
    engine.failing.add(second)
    until(agent, lambda: world.state().outcome is Outcome.REFUSED)
    assert world.events()[1:] == [("deferred", "IN_SHADOW"), ("refused", "SHADOW_FAILED")]
    assert world.live() == first
    world.wish(second, first)
    go(world, agent, RETRY_S)
    assert world.events()[-1] == ("refused", "REFUSED_BEFORE")


def test_a_canary_answers_its_share_of_the_users_and_each_always_alike(world: World, agent: Agent) -> None:
    first = release_with(world, None, 1)
    agent.tick()
    second = release_with(world, first, 2, watch=watch(canary_share=0.3))
    agent.tick()
    users = [f"user {number}" for number in range(60)]
    sides = {user: ask_as(agent, user) for user in users}
    assert sides == {user: ask_as(agent, user) for user in users}
    assert 8 <= Counter(sides.values())[second] <= 30
    assert set(sides.values()) == {first, second}
    state = watched(world)
    assert state is not None
    assert state.phase == "canary"
    world.clock.seconds += 61
    until(agent, lambda: (state := watched(world)) is not None and state.phase == "passed")
    assert {ask_as(agent, user) for user in users} == {second}


def test_no_watch_where_nothing_asks_for_one(world: World, agent: Agent, engine: BadEngine, tmp_path: Path) -> None:
    release_with(world, None, 1)
    agent.tick()
    go(world, agent, 100)
    assert world.active.watches == {}
    assert engine.asked == []
