"""The sessions of a box: a message, its answer, and what is kept of both.

An exchange is kept once it is whole. One that failed, or whose caller went away, leaves the session as it was.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from core.deployment import ConversationConfig
from core.errors import StateError
from core.fingerprints import BASE_MARK
from core.names import DEFAULT_ADAPTER
from rendering.specs import Message as Turn
from serving.access.exchange import current
from serving.answers import Grounds, IsGone
from serving.conversation.context import Length, aim_tokens, turns, window
from serving.conversation.histories import Histories, History, Said
from serving.conversation.replies import Json, Question, Replies
from serving.detection import Detector, Spoken
from serving.engines.port import Sampling
from store.paths import Box


class SessionBusy(StateError):
    """The session is being answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a user says, and how it is to be answered."""

    text: str
    session: str = ""  # empty: a new one
    model: str = ""  # empty: the session's, else the default adapter
    length: Length = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    consent: bool = False  # a correction in it may be kept to train on


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the conversations of a box stand on. `count` gives the tokens of a text, `longest` is the server's bound of an answer."""

    box: Box
    config: ConversationConfig
    histories: Histories
    count: Callable[[str], int]
    longest: int
    now: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic


class Talk:
    """All sessions. For one event loop. Args: grounds: raises NotReady. detector: None: no corrections are looked for."""

    def __init__(self, standing: Standing, grounds: Callable[[], Grounds], detector: Detector | None = None) -> None:
        self._on = standing
        self._detector = detector
        self._grounds = grounds
        self._replies = Replies(standing.monotonic)
        self._busy: set[str] = set()

    async def exchange(self, message: Message, *, tells: bool, is_gone: IsGone | None = None) -> AsyncGenerator[Json, None]:
        """Events: `queued` with each new position (where `tells`), `begun`, `text` again and again, `done` with the whole.

        Raises SessionUnknown, SessionBusy, ModelNotFound, LineFull, PromptError, AnswerTimeout, NotReady, whatever the base raises;
        IntegrityError and OSError of the history.
        """
        grounds = self._grounds()
        if message.session:
            session, history = message.session, await asyncio.to_thread(self._on.histories.read, message.session, _owner())
        else:
            session, history = self._on.histories.begin(_owner(), message.model or DEFAULT_ADAPTER)
        with self._only(session):
            history = replace(history, model=message.model or history.model)
            question = await asyncio.to_thread(self._question, message, session, history)
            begun_at = self._on.now()
            async with aclosing(self._replies.reply(grounds, question, tells=tells, is_gone=is_gone)) as events:
                async for event in events:
                    if event["type"] == "done":
                        await asyncio.to_thread(self._keep, session, history, Said(role="user", content=message.text, at=begun_at), event)
                        await asyncio.to_thread(self._hear, grounds, session, history, message)
                    yield event if event["type"] in ("queued", "text") else {**event, "session_id": session}

    async def history(self, session: str) -> Json:
        """A session as its user may read it. Raises SessionUnknown, IntegrityError."""
        found = await asyncio.to_thread(self._on.histories.read, session, _owner())
        messages = [_shown(said) for said in found.messages]
        return {"session_id": session, "model": found.model, "began_at": found.began_at.isoformat(), "context_from": found.context_from, "messages": messages}

    async def reset(self, session: str) -> Json:
        """From now on the messages so far go with no new one; they stay in the history. Raises SessionUnknown, SessionBusy."""
        with self._only(session):
            found = await asyncio.to_thread(self._on.histories.read, session, _owner())
            await asyncio.to_thread(self._on.histories.write, session, replace(found, context_from=len(found.messages)))
        return {"session_id": session, "context_from": len(found.messages)}

    async def delete(self, session: str) -> Json:
        """Delete the session for good. Raises SessionUnknown, SessionBusy."""
        with self._only(session):
            await asyncio.to_thread(self._on.histories.delete, session, _owner())
        return {"session_id": session, "deleted": True}

    def _question(self, message: Message, session: str, history: History) -> Question:
        """Counts tokens, which takes a moment for a long history."""
        config = self._on.config
        said = window(history, config.messages, config.tokens, self._on.count)
        longest = min(self._on.longest, message.sampling.max_tokens or self._on.longest)
        return Question(
            model=history.model,
            prompt=config.personas.get(history.model.partition("/")[0].partition("@")[0], ""),
            said=said,
            text=message.text,
            user=session,
            aim=aim_tokens(message.length, said, message.text, longest),
            longest=longest,
            sampling=replace(message.sampling, max_tokens=longest),
        )

    def _hear(self, grounds: Grounds, session: str, history: History, message: Message) -> None:
        """Let the detector look whether the message corrects the answer before it."""
        if self._detector is None or len(history.messages) - history.context_from < 2:
            return
        config, (*earlier, asked, answer) = self._on.config, history.messages
        before = window(replace(history, messages=tuple(earlier)), config.messages, config.tokens, self._on.count)
        prompt = config.personas.get(history.model.partition("/")[0].partition("@")[0], "")
        spoken = Spoken(
            asked=tuple(turns(prompt, before, asked.content)),
            answer=Turn("assistant", answer.content),
            adapter=grounds.routes.table.adapter_of(history.model if answer.release == BASE_MARK else answer.model),
            response=answer.response_id,
            release=answer.release,
            user=session,
            consent=message.consent,
        )
        self._detector.hear_turn(spoken, message.text)

    def _keep(self, session: str, history: History, asked: Said, done: Json) -> None:
        answer = Said(
            role="assistant",
            content=done["text"],
            at=self._on.now(),
            response_id=done["response_id"],
            model=done["model"],
            release=done["release"],
            finish_reason=done["finish_reason"],
        )
        self._on.histories.write(session, replace(history, messages=(*history.messages, asked, answer)))

    @contextmanager
    def _only(self, session: str) -> Iterator[None]:
        """One at a time: of two exchanges at once, the later to end would lose the other. Raises SessionBusy."""
        if session in self._busy:
            raise SessionBusy("the session is being answered", hint="wait for that answer, or begin another session", code="SESSION_BUSY")
        self._busy.add(session)
        try:
            yield
        finally:
            self._busy.discard(session)


def _shown(said: Said) -> Json:
    body: Json = {"role": said.role, "content": said.content, "at": said.at.isoformat()}
    if said.role == "user":
        return body
    return {**body, "response_id": said.response_id, "model": said.model, "release": said.release, "finish_reason": said.finish_reason}


def _owner() -> str:
    """The id of the API key that asks; empty without keys."""
    exchange = current()
    return exchange.key if exchange else ""
