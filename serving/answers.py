"""One answer: pinned to what its request's model named when it came, computed step by step in turn with the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack

from rendering.profiles import with_system
from rendering.specs import Message
from serving.engines.port import Ask, Engine, Generation, Piece, Sampling
from serving.routing import Routes, Served
from serving.schemas import ChatMessage, ChatRequest
from serving.text import StopStrings

ROLES = {"developer": "system"}  # OpenAI's newer word for it, which chat templates do not know
LOOK_S = 1.0  # how often a caller that waits for the next piece is looked after


class Answer:
    """Made by `begin`. `pieces` once, then `finish_reason` is set; `close` always."""

    def __init__(self, served: Served, generation: Generation, pieces: "asyncio.Queue[Piece]", stops: StopStrings, pinned: ExitStack) -> None:
        self.served = served
        self.generation = generation
        self.finish_reason = "stop"
        self._pieces = pieces
        self._stops = stops
        self._pinned = pinned

    @classmethod
    async def begin(cls, engine: Engine, routes: Routes, request: ChatRequest) -> "Answer":
        """Look the model up, render the prompt, start. Raises ModelNotFound, PromptError."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
        pinned = ExitStack()
        try:
            served = pinned.enter_context(routes.pin(request.model))
            rules = served.rules
            messages = tuple(with_system([message_of(message) for message in request.messages], rules.system))
            ask = Ask(blend=served.blend, messages=messages, sampling=sampling_of(request), rules=rules)

            def hear(piece: Piece) -> None:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

            generation = await asyncio.to_thread(engine.begin, ask, hear)
        except BaseException:
            pinned.close()
            raise
        return cls(served, generation, pieces, StopStrings((*request.stops, *rules.stops)), pinned)

    async def pieces(self, is_gone: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[str]:
        """Text as it becomes certain. Ends early when `is_gone` says that nobody reads it. Raises what the engine raised."""
        end = None
        while end is None and not self._stops.hit:
            try:
                piece = await asyncio.wait_for(self._pieces.get(), LOOK_S)
            except TimeoutError:
                piece = Piece()
            if is_gone is not None and await is_gone():
                return
            if piece.error is not None:
                raise piece.error
            end = piece.end
            if text := self._stops.feed(piece.text):
                yield text
        if self._stops.hit:
            return
        self.finish_reason = end or "stop"
        if text := self._stops.flush():
            yield text

    def close(self) -> None:
        """Stop computing, let go of the release. Repeating it is harmless."""
        self.generation.cancel()
        self._pinned.close()


def message_of(message: ChatMessage) -> Message:
    """A request's message as a turn for the chat template."""
    return Message(ROLES.get(message.role, message.role), message.text, message.name or "")  # type: ignore[arg-type]


def sampling_of(request: ChatRequest) -> Sampling:
    """A request's wishes, with defaults where it is silent."""
    default = Sampling()
    return Sampling(
        temperature=default.temperature if request.temperature is None else request.temperature,
        top_p=default.top_p if request.top_p is None else request.top_p,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        seed=request.seed,
    )
