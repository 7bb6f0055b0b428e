"""A box under guard: engines that fail on purpose, wishes with terms, and waiting for what happens in the background."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from inference_box import MODEL, START, World

from core.errors import LoradError
from core.wire import Desired, Trial, Watch, WatchState
from serving.activation import Agent
from serving.engines.port import Ask, Generation, Piece, Sink
from serving.engines.stub import StubEngine

PATIENCE_S = 20.0


class BadEngine(StubEngine):
    """Serves some releases badly: their answers fail, make no sense, or come late; `gate` holds all answers back while it is set."""

    def __init__(self) -> None:
        super().__init__(MODEL, max_new_tokens=16)
        self.failing: set[str] = set()
        self.babbling: set[str] = set()
        self.asked: list[Ask] = []

    def begin(self, ask: Ask, sink: Sink) -> Generation:
        self.asked.append(ask)
        releases = {part.release for part in ask.blend}

        def hear(piece: Piece) -> None:
            if releases & self.failing:
                piece = Piece(error=LoradError("not a number", hint="", code="LOGITS_NAN")) if piece.end else Piece()
            elif releases & self.babbling:
                piece = Piece(text="na " * 20, end=piece.end)
            sink(piece)

        return super().begin(ask, hear)


def until(agent: Agent, is_so: Callable[[], bool]) -> None:
    """Tick until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        agent.tick()
        threading.Event().wait(0.005)


def wish_with(world: World, **terms: Any) -> Desired:
    """Send the wish as it stands with other terms, under a new fence."""
    world.fence += 1
    desired = Desired(fence=world.fence, aliases=dict(world.wishes), fences=dict(world.fences), made_at=START, **terms)
    world.write_wish(desired)
    return desired


def release_with(world: World, replaces: str | None, version: int, *, allow: bool = False, **terms: Any) -> str:
    """Pack, send and wish for a release, under these terms."""
    release = world.pack(version=version)
    world.send(release)
    world.wish(release, replaces, allow=allow)
    wish_with(world, **terms)
    return release


def watch(**changes: Any) -> Watch:
    return replace(Watch(window_s=60, every_s=5, min_requests=4), **changes)


def trial(name: str, **criteria: Any) -> Trial:
    return Trial(id=name, alias="default/main", requests=6, clients=2, **criteria)


def watched(world: World, alias: str = "default/main") -> WatchState | None:
    return world.active.watches.get(alias)


def ask_as(agent: Agent, user: str, model: str = "default/main") -> str:
    """One user's request, to its end; the label of what answered."""
    ended = threading.Event()

    def hear(piece: Piece) -> None:
        if piece.end or piece.error:
            ended.set()

    with agent.routes.pin(model, user=user) as served:
        from rendering.specs import Message

        agent.engine.begin(Ask(blend=served.blend, messages=(Message("user", "hello"),)), hear)
        assert ended.wait(PATIENCE_S)
        return served.label
