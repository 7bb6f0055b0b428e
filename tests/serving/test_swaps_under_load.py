"""Swaps and rollbacks while people ask: nobody is dropped, and each answer is of the release that it names."""

import threading
from collections import Counter

from inference_box import ALIAS, World
from watched_box import PATIENCE_S, BadEngine, until, watch, wish_with

from rendering.specs import Message
from serving.activation import Agent
from serving.engines.port import Ask, Piece, Sampling

CLIENTS, SWAPS = 4, 25


class People:
    """Clients that ask the alias again and again until they are told to stop."""

    def __init__(self, agent: Agent) -> None:
        self.answers: Counter[str] = Counter()
        self.troubles: list[str] = []
        self._agent = agent
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
            except Exception as error:
                self.troubles.append(repr(error))

    def _ask(self) -> None:
        ended, said = threading.Event(), [""]

        def hear(piece: Piece) -> None:
            said[0] += piece.text
            if piece.error or piece.end == "cancelled":
                self.troubles.append(str(piece.error or piece.end))
            if piece.error or piece.end:
                ended.set()

        with self._agent.routes.pin(ALIAS) as served:
            messages = (Message("user", "one two three four five six"),)
            self._agent.engine.begin(Ask(blend=served.blend, messages=messages, sampling=Sampling(max_tokens=8)), hear)
            if not ended.wait(PATIENCE_S):
                self.troubles.append("no end")
            if not said[0].startswith(f"[stub {served.label[:12]}]"):
                self.troubles.append(f"{served.label[:12]} answered as {said[0]!r}")
            self.answers[served.label] += 1


def test_nobody_is_dropped_or_given_another_releases_answer(world: World) -> None:
    agent = world.agent(BadEngine())
    releases = [world.release(None)]
    agent.tick()
    people = People(agent)
    for swap in range(SWAPS):
        if swap < 3:
            releases.append(world.release(releases[-1], version=swap + 2))
        else:
            world.wish(releases[swap % 4], world.live())
        agent.tick()
        before = people.answers[str(world.live())]
        until(agent, lambda before=before: people.answers[str(world.live())] > before)  # type: ignore[misc]
    people.stop()
    assert people.troubles == []
    assert set(people.answers) == set(releases)
    assert len([event for event, _ in world.events() if event == "live"]) >= SWAPS - 3


def test_a_rollback_by_the_guard_drops_nobody_either(world: World) -> None:
    engine = BadEngine()
    agent = world.agent(engine)
    first = world.release(None)
    agent.tick()
    people = People(agent)
    second = world.pack(version=2)
    world.send(second)
    world.wish(second, first)
    wish_with(world, watch=watch(every_s=0.0))
    until(agent, lambda: people.answers[second] > 3)
    for _ in range(10):
        agent.engine.rate(first, negative=False)
        agent.engine.rate(second, negative=True)
    until(agent, lambda: world.live() == first)
    until(agent, lambda: second not in agent._manifests)
    people.stop()
    assert people.troubles == []
    assert world.events()[-1] == ("rolled_back", "ROLLED_BACK")
