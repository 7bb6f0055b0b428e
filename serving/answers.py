"""One answer: pinned to what its request's model named when it came, computed step by step in turn with the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack

from rendering.profiles import with_system
from rendering.specs import Message
from serving.engines.port import Engine, Generation, Sampling
from serving.routing import Routes, Served
from serving.schemas import ChatMessage, ChatRequest
from serving.text import StopStrings

log = logging.getLogger(__name__)

ROLES = {"developer": "system"}  # OpenAI's newer word for it, which chat templates do not know


class Answer:
    """Made by `begin`. `pieces` once, then `finish_reason` is set; `close` always."""

    def __init__(self, engine: Engine, served: Served, generation: Generation, stops: StopStrings, pinned: ExitStack) -> None:
        self.served = served
        self.generation = generation
        self.finish_reason = "stop"
        self._engine = engine
        self._stops = stops
        self._pinned = pinned

    @classmethod
    async def begin(cls, engine: Engine, routes: Routes, request: ChatRequest) -> "Answer":
        """Look the model up and render the prompt. Raises ModelNotFound, PromptError."""
        pinned = ExitStack()
        try:
            served = pinned.enter_context(routes.pin(request.model))
            rules = served.rules
            messages = with_system([message_of(message) for message in request.messages], rules.system)
            generation = await asyncio.to_thread(engine.begin, served.release, messages, sampling_of(request), rules)
        except BaseException:
            pinned.close()
            raise
        return cls(engine, served, generation, StopStrings((*request.stops, *rules.stops)), pinned)

    async def pieces(self, is_gone: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[str]:
        """Text as it becomes certain. Ends early when `is_gone` says that nobody reads it."""
        loop = asyncio.get_running_loop()
        while self.generation.finish_reason is None and not self._stops.hit:
            if is_gone is not None and await is_gone():
                return
            text = self._stops.feed(await loop.run_in_executor(self._engine.thread, self.generation.step))
            if text:
                yield text
        if self._stops.hit:
            return
        self.finish_reason = self.generation.finish_reason or "stop"
        if text := self._stops.flush():
            yield text

    def close(self) -> None:
        """Let go of the release. Repeating it is harmless."""
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
