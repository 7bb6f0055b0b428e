"""An inference box that talks: stub engine, clock and line in the test's hands, the application in process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient
from inference_box import MODEL, World

from core.deployment import ConversationConfig
from core.errors import LoradError
from serving.activation import Agent
from serving.api import Service, create_app
from serving.conversation.histories import Histories
from serving.conversation.talk import Standing
from serving.engines.port import Ask, Piece, PromptError, Sampling, Sink
from serving.engines.stub import StubEngine
from serving.engines.turns import Turns
from serving.line import Line

CHAT = "/api/ai-echo/chat"
HISTORY = "/api/ai-echo/history"
RESET = "/api/ai-echo/reset-context"
SOCKET = "/api/ai-echo/ws"


class FrailEngine(StubEngine):
    """Echoes, keeps what it was asked, and fails as told: `sick` names releases that give no answer, `breaks_after` pieces of text."""

    def __init__(self) -> None:
        super().__init__(MODEL, max_new_tokens=256)
        self.asked: list[Ask] = []
        self.sick: set[str] = set()
        self.breaks_after: int | None = None
        self.stalls_after: int | None = None  # pieces of text, after which nothing comes any more
        self.most_words: int | None = None

    def begin(self, ask: Ask, sink: Sink) -> Turns:
        self.asked.append(ask)
        if self.most_words is not None and sum(len(one.content.split()) for one in ask.messages) > self.most_words:
            raise PromptError("too long", hint="send less", code="CONTEXT_LENGTH")
        if any(part.release in self.sick for part in ask.blend):
            return super().begin(ask, self._broken(sink))
        if self.stalls_after is not None:
            return super().begin(ask, self._stalled(sink, self.stalls_after))
        return super().begin(ask, sink)

    def _stalled(self, sink: Sink, most: int) -> Sink:
        heard: list[Piece] = []

        def stalling(piece: Piece) -> None:
            heard.append(piece)
            if len(heard) <= most:
                sink(piece)

        return stalling

    def _broken(self, sink: Sink) -> Sink:
        heard: list[Piece] = []

        def failing(piece: Piece) -> None:
            heard.append(piece)
            if len(heard) <= (self.breaks_after or 0):
                sink(piece)
            elif len(heard) == (self.breaks_after or 0) + 1:
                sink(Piece(error=LoradError("the adapter broke", hint="", code="ENGINE_FAILED")))

        return failing


class TalkingBox:
    """The box and a client of it."""

    def __init__(self, world: World, **config: Any) -> None:
        self.world = world
        self.engine = FrailEngine()
        self.agent = Agent(world.ground(self.engine))
        self.agent.start()
        self.line = Line(streams=1, waiting=2)
        keep_days = config.get("keep_days", 30.0)
        self.standing = Standing(
            box=world.box,
            config=ConversationConfig.model_validate(config),
            histories=Histories(world.box, keep_days, world.clock.now),
            count=lambda text: len(text.split()),
            longest=256,
            now=world.clock.now,
            monotonic=world.clock.monotonic,
        )
        self.service = Service(
            engine=self.engine, routes=self.agent.routes, line=self.line, sampling=Sampling(temperature=0.0), conversation=self.standing, is_ready=True
        )
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def say(self, text: str, **fields: Any) -> dict[str, Any]:
        """A message, answered whole."""
        response = self.client.post(CHAT, json={"message": text} | fields)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def contents(self) -> list[tuple[str, str]]:
        """What the engine was asked last."""
        return [(message.role, message.content) for message in self.engine.asked[-1].messages]

    def release(self, **changes: Any) -> str:
        """A release that is live."""
        release = self.world.release(None, **changes)
        self.agent.tick()
        return release


@contextmanager
def talking(world: World, **config: Any) -> Iterator[TalkingBox]:
    """A box; its engine is closed afterwards."""
    box = TalkingBox(world, **config)
    try:
        yield box
    finally:
        box.engine.close()


def whole(events: Sequence[dict[str, Any]]) -> str:
    """The text of an answer that came in events."""
    return "".join(event["text"] for event in events if event["type"] == "text")
