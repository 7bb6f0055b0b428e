"""Which adapters stay loaded beside the live ones, who may load one, and how one leaves; in process, with the stub engine."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from inference_box import ALIAS, World
from watched_box import BadEngine, ask_as, wish_with

from core.errors import LoradError, StateError
from rendering.specs import Message
from serving.activation import Agent
from serving.engines.port import Ask, Piece
from serving.engines.stub import StubEngine

ADAPTER_BYTES = 10  # of the weights that `stub_adapter` writes


def agent_with(world: World, **ground: Any) -> Agent:
    agent = Agent(replace(world.ground(BadEngine()), **ground))
    agent.start()
    return agent


def chain(world: World, agent: Agent, versions: int) -> list[str]:
    """So many releases live, one after the other."""
    releases: list[str] = []
    for version in range(1, versions + 1):
        releases.append(world.release(releases[-1] if releases else None, version=version))
        agent.tick()
    return releases


def done(agent: Agent, errand: "Future[Any]") -> Any:
    agent.tick()
    return errand.result(timeout=0)


@pytest.fixture
def agent(world: World) -> Iterator[Agent]:
    made = agent_with(world)
    yield made
    made.engine.close()


def test_beside_the_live_one_the_latest_used_stay_within_their_bytes(world: World) -> None:
    agent = agent_with(world, adapters_bytes=3 * ADAPTER_BYTES)
    first, second, third, fourth = chain(world, agent, 4)
    assert set(agent._manifests) == {first, second, third, fourth}
    ask_as(agent, "anyone", "default/main@v1")
    fifth = world.release(fourth, version=5)
    agent.tick()
    agent.tick()
    assert set(agent._manifests) == {fifth, fourth, third, first}, "the second was asked longest ago"
    assert f"{ALIAS}@v2" not in agent.routes.table.names()
    assert ask_as(agent, "anyone", "default/main@v1") == first


def test_a_release_is_loaded_by_request_and_moves_no_alias(world: World, agent: Agent) -> None:
    first, _, third = chain(world, agent, 3)
    served = done(agent, agent.load(first))
    assert served.model == "default/main@v1"
    assert ask_as(agent, "anyone", "default/main@v1") == first
    assert world.live() == third
    done(agent, agent.unload("default/main@v1"))
    agent.tick()
    assert first not in agent._manifests


def test_what_may_not_be_loaded_or_unloaded_by_request(world: World, agent: Agent) -> None:
    first, second = chain(world, agent, 2)
    for errand, code in ((agent.load("f" * 64), "RELEASE_MISSING"), (agent.unload("default/main@v2"), "NOT_LOADED"), (agent.unload("x"), "NOT_LOADED")):
        with pytest.raises(LoradError) as told:
            done(agent, errand)
        assert told.value.code == code
    world.wish(None, second)
    wish_with(world, purge=(first,))
    agent.tick()
    with pytest.raises(LoradError):
        done(agent, agent.load(first))


def test_a_release_that_failed_here_is_not_loaded_by_request_either(world: World, agent: Agent) -> None:
    (first,) = chain(world, agent, 1)
    line = agent.ledger._lines[-1]
    agent.ledger._lines.append(replace(line, event="rolled_back", release=None, previous=first))
    with pytest.raises(StateError) as told:
        done(agent, agent.load(first))
    assert told.value.code == "REFUSED_BEFORE"


def test_a_reader_who_never_reads_cannot_hold_an_adapter_for_ever(world: World) -> None:
    """The answer is cancelled at the deadline; its reader lets go, and the release leaves."""

    class Stuck(StubEngine):
        def begin(self, ask: Ask, sink: Any) -> Any:
            generation = super().begin(replace(ask, messages=(Message("user", "x"),)), lambda piece: None)

            def cancel() -> None:
                sink(Piece(end="cancelled"))

            generation.cancel = cancel  # type: ignore[method-assign]
            return generation

    agent = Agent(replace(world.ground(Stuck("tiny", max_new_tokens=4)), deadline_s=30.0))
    agent.start()
    (first,) = chain(world, agent, 1)
    ended = threading.Event()
    with agent.routes.pin(ALIAS) as served:
        agent.engine.begin(Ask(blend=served.blend, messages=(Message("user", "x"),)), lambda piece: ended.set() if piece.end else None)
        second = world.release(first, version=2)
        agent.tick()
        world.release(second, version=3)
        agent.tick()
        assert first in agent._manifests
        world.clock.seconds += 29
        agent.tick()
        assert not ended.is_set()
        world.clock.seconds += 2
        agent.tick()
        assert ended.is_set()
    agent.tick()
    assert first not in agent._manifests
