"""The answers to one request: pinned to what its model named when their turn came, heard from the engine's threads."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from core.errors import LoradError
from rendering.profiles import with_system
from rendering.specs import Message
from serving.engines.port import Ask, Chosen, Engine, Generation, Piece, Sampling
from serving.failures import AnswerTimeout, ClientGone, NotReady
from serving.line import Line, Ticket
from serving.routing import Routes, Served
from serving.text import StopStrings

LOOK_S = 1.0  # how often a caller that waits is looked after
IsGone = Callable[[], Awaitable[bool]]
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request asks for: `messages` by the chat template, or each of `texts` as it stands. `adapters`: names and scales beside `model`."""

    model: str
    adapters: tuple[tuple[str, float], ...] = ()
    messages: tuple[Message, ...] = ()
    texts: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    choices: int = 1  # answers to the messages, or to each text; each has a seed of its own, counted up from the request's
    user: str = ""  # who asks, by their own word: stays on one side of a canary

    @property
    def total(self) -> int:
        """All answers, those to one text side by side."""
        return self.choices * max(1, len(self.texts))

    def ask(self, served: Served, place: int) -> Ask:
        """What the engine is asked for one of the answers."""
        turn, choice = divmod(place, self.choices)
        text = self.texts[turn] if self.texts else None
        sampling = self.sampling if self.sampling.seed is None else replace(self.sampling, seed=_next_seed(self.sampling.seed, choice))
        messages = tuple(with_system(self.messages, served.rules.system)) if self.messages else ()
        return Ask(blend=served.blend, messages=messages, text=text, tools=self.tools, schema=self.schema, sampling=sampling, rules=served.rules)


def _next_seed(seed: int, by: int) -> int:
    return (seed + by + 2**63) % 2**64 - 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What answers are made from, and how long a request may take, the wait for its turn included."""

    engine: Engine
    routes: Routes
    line: Line
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What became certain of one answer. The last of each has its `finish_reason`: stop or length."""

    choice: int
    text: str = ""
    tokens: tuple[Chosen, ...] = ()
    finish_reason: str | None = None


class Choice:
    """One answer of a request: what of the engine's pieces may be given out."""

    def __init__(self, place: int, stops: tuple[str, ...]) -> None:
        self.place = place
        self.generation: Generation | None = None
        self.is_over = False
        self._stops = StopStrings(stops)
        self._trail: deque[tuple[int, tuple[Chosen, ...]]] = deque()  # where the text of tokens begins that were not given out
        self._heard = 0  # characters
        self._told = 0

    def hear(self, piece: Piece) -> Said:
        """What the piece makes certain: nothing of a stop string, and tokens together with their text. Raises what the engine told."""
        if self.is_over:
            return Said(choice=self.place)
        if piece.error is not None:
            raise piece.error
        if piece.end == "cancelled":  # not by us: we stop listening first
            raise NotReady("the answer was broken off: this server is ending", hint="ask again", code="SERVER_ENDING")
        if piece.tokens:
            self._trail.append((self._heard, piece.tokens))
        self._heard += len(piece.text)
        text = self._stops.feed(piece.text)
        reason: str | None = "stop" if self._stops.hit else piece.end
        if reason and not self._stops.hit:
            text += self._stops.flush()
        self._told += len(text)
        self.is_over = reason is not None
        return Said(choice=self.place, text=text, tokens=self._certain(), finish_reason=reason)

    def cancel(self) -> None:
        """Stop computing. Repeating it is harmless."""
        if self.generation is not None:
            self.generation.cancel()

    def _certain(self) -> tuple[Chosen, ...]:
        found: list[Chosen] = []
        while self._trail and (self._trail[0][0] < self._told or (self._told == self._heard and not self._stops.hit)):
            found += self._trail.popleft()[1]
        return tuple(found)


class Answer:
    """All answers to one request. Made by `begin`; `said` once; `close` always."""

    def __init__(self, grounds: Grounds, wanted: Wanted) -> None:
        self.served: Served
        self._grounds = grounds
        self._wanted = wanted
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._deadline_s = self._loop.time() + grounds.timeout_s
        self._look_at_s = self._loop.time() + LOOK_S
        self._tickets: list[Ticket] = []
        self._later: list[asyncio.Task[None]] = []
        self._pinned = ExitStack()
        self.choices: tuple[Choice, ...] = ()

    @classmethod
    async def begin(cls, grounds: Grounds, wanted: Wanted, is_gone: IsGone | None = None, ticket: Ticket | None = None) -> "Answer":
        """Wait for a turn, look the model up, render the prompt, start; further answers start when their own turns come.

        Args: ticket: a place in the line that the caller took already, for the first answer.
        Raises ModelNotFound, PromptError, LineFull, AnswerTimeout, ClientGone.
        """
        grounds.routes.find(wanted.model, wanted.adapters)  # nobody waits in line for a model that is not there
        answer = cls(grounds, wanted)
        try:
            for _ in range(wanted.total):
                answer._tickets.append(ticket if ticket and not answer._tickets else grounds.line.join())
            await answer._wait(answer._tickets[0].turn(), is_gone)
            served = answer.served = answer._pinned.enter_context(grounds.routes.pin(wanted.model, wanted.adapters, wanted.user))
            stops = (*wanted.stops, *served.rules.stops)
            answer.choices = tuple(Choice(place, stops) for place in range(wanted.total))
            await answer._start(0)
            answer._later = [asyncio.create_task(answer._start_later(place)) for place in range(1, wanted.total)]
        except BaseException:
            answer.close()
            raise
        return answer

    async def said(self, is_gone: IsGone | None = None) -> AsyncIterator[Said]:
        """What becomes certain, of all answers as it comes. Ends early when `is_gone` says that nobody reads it. Raises what the engine told."""
        while not all(choice.is_over for choice in self.choices):
            try:
                await self._look(is_gone)
                place, piece = self._pieces.get_nowait() if self._pieces.qsize() else await self._wait(self._pieces.get(), is_gone)
            except ClientGone:
                return
            choice = self.choices[place]
            said = choice.hear(piece)
            if choice.is_over:
                if place:  # an engine may end an answer before it has handed it over
                    await asyncio.wait({self._later[place - 1]})
                choice.cancel()
                self._tickets[place].leave()
            if said.text or said.tokens or said.finish_reason:
                yield said

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts; answers to one prompt share it."""
        return sum(choice.generation.prompt_tokens for choice in self.choices[:: self._wanted.choices] if choice.generation)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that a cache already held."""
        return sum(choice.generation.cached_tokens for choice in self.choices[:: self._wanted.choices] if choice.generation)

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far, of all answers."""
        return sum(choice.generation.completion_tokens for choice in self.choices if choice.generation)

    def close(self) -> None:
        """Stop computing, let go of the turns and the release. Repeating it is harmless."""
        for task in self._later:
            task.cancel()
        for choice in self.choices:
            choice.is_over = True
            choice.cancel()
        for ticket in self._tickets:
            ticket.leave()
        self._pinned.close()

    async def _start(self, place: int) -> None:
        def hear(piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop has ended, and whoever listened with it
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, (place, piece))

        choice = self.choices[place]
        begun = asyncio.ensure_future(asyncio.to_thread(self._grounds.engine.begin, self._wanted.ask(self.served, place), hear))
        try:
            choice.generation = await asyncio.shield(begun)
        except asyncio.CancelledError:  # the thread goes on: what it has begun is stopped when it is there
            begun.add_done_callback(_stop)
            raise
        if choice.is_over:  # closed meanwhile
            choice.cancel()

    async def _start_later(self, place: int) -> None:
        try:
            await self._tickets[place].turn()
            await self._start(place)
        except LoradError as error:
            self._pieces.put_nowait((place, Piece(error=error)))
        except Exception:  # the border of the task: the request waits for its pieces
            log.exception("an answer could not be begun", extra={"action": "answer_failed"})
            broken = LoradError("the engine failed at this answer", hint="the server's log says where", code="ENGINE_FAILED")
            self._pieces.put_nowait((place, Piece(error=broken)))

    async def _wait(self, coming: Awaitable[T], is_gone: IsGone | None) -> T:
        """What comes, before the deadline and while somebody waits for it. Raises AnswerTimeout, ClientGone."""
        task = asyncio.ensure_future(coming)
        try:
            while True:
                await self._look(is_gone)
                done, _ = await asyncio.wait({task}, timeout=max(0.0, min(self._look_at_s, self._deadline_s) - self._loop.time()))
                if done:
                    return task.result()
        finally:
            task.cancel()

    async def _look(self, is_gone: IsGone | None) -> None:
        now_s = self._loop.time()
        if now_s >= self._deadline_s:
            what = f"the answer took longer than {self._grounds.timeout_s:g} s"
            raise AnswerTimeout(what, hint="ask for fewer tokens; serving.timeout_s is the bound", code="ANSWER_TIMEOUT")
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            if is_gone is not None and await is_gone():
                raise ClientGone("nobody reads the answer any more", hint="ask again", code="CLIENT_GONE")


def _stop(begun: "asyncio.Future[Generation]") -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()
