"""Takes what people say of answers; it is durable before it is answered for.

An answer is named by its response id, where this box captured it (`serving.capture`); else the conversation comes along. The
release may be long gone: the id leads to it by the box's ledger. What a client says itself passes the content filters, as what it
asks does; what is captured has passed them. What is wrong with a request is said in full; nothing of it is kept then.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi.responses import Response
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from core.errors import IntegrityError
from core.fingerprints import mark_in
from core.signals import Signal, SignalKind, signal_id
from rendering.specs import Message
from rendering.tooltext import as_text
from serving.failures import failure
from serving.ledger import Ledger
from serving.openai.asking import message_of
from serving.routing import Routes
from serving.schemas import ChatMessage, Strict, Text
from store.boxsecret import purpose_key
from store.capture import Captured, Captures
from store.paths import Box
from store.spool import Spool

log = logging.getLogger(__name__)

SOURCE = "api"
MOST_METADATA = 16
MOST_MESSAGES, MOST_CONVERSATION, MOST_CORRECTION = 512, 128_000, 32_000  # turns; characters: more than any row may have
CAPTURE_S, LOOK_S = 2.0, 0.05  # an answer is captured a moment after its reader has it
PURPOSE = "feedback users"

Label = Annotated[Text, Field(max_length=128)]


class FeedbackRequest(Strict):
    """Body of POST /v1/feedback. `messages`: the conversation; where it ends with an answer, that is the one which is meant."""

    response_id: Label | None = None
    kind: Literal["mistake", "correction", "positive"]
    correction: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    model: Label | None = None
    user: Annotated[Text, Field(max_length=512)] | None = None
    consent: bool
    metadata: Annotated[dict[Label, Annotated[Text, Field(max_length=512)]], Field(max_length=MOST_METADATA)] | None = None

    @field_validator("correction")
    @classmethod
    def _is_short(cls, value: str | None) -> str | None:
        _bound(len(value or ""), MOST_CORRECTION)
        return value

    @field_validator("messages")
    @classmethod
    def _are_short(cls, value: list[ChatMessage] | None) -> list[ChatMessage] | None:
        _bound(sum(map(_characters, value or ())), MOST_CONVERSATION)
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> "FeedbackRequest":
        if not self.response_id and not self.messages:
            raise ValueError("say which answer it is about: response_id, or messages and model")
        if self.kind == "correction" and not (self.correction or "").strip():
            raise ValueError("a correction needs the right answer in `correction`")
        if self.kind != "correction" and self.correction is not None:
            raise ValueError(f"`correction` goes with kind correction, not {self.kind}")
        return self


class Unusable(Exception):
    """The request cannot be taken, and why."""

    def __init__(self, status: int, message: str, *, param: str, code: str) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def response(self) -> Response:
        """In the form of every failed request."""
        return failure(self.status, self.message, param=self.param, code=self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What a request says itself, as the content filters let it in."""

    turns: tuple[Message, ...]
    correction: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """An answer: the conversation before it, its text, who gave it. Empty: not known."""

    messages: tuple[dict[str, Any], ...]
    answer: str
    model: str = ""
    release: str = ""


@dataclass(slots=True, kw_only=True)
class Desk:
    """What feedback is taken with.

    Args: clean: a message as the content filters let it in; raises ContentRefused. owns: whether the request may speak of what the
    key of that id asked. weight: of a person's word. heard: told of each signal that is durable, on the event loop.
    """

    spool: Spool
    box: Box
    routes: Routes
    ledger: Ledger
    now: Callable[[], datetime]
    clean: Callable[[Message], Message]
    owns: Callable[[str], bool]
    captures: Captures | None = None
    weight: float = 1.0
    heard: Callable[[Signal], None] = lambda signal: None
    _key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._key = purpose_key(self.box, PURPOSE)

    def hide(self, user: str) -> str:
        """A user's name as it leaves this box: 32 hex digits of an HMAC under the box's secret; empty for none."""
        return hmac.new(self._key, user.encode(), hashlib.sha256).hexdigest()[:32] if user else ""

    async def take(self, said: FeedbackRequest) -> Signal:
        """The signal, durable. Raises Unusable; ContentRefused; SpoolFull where nothing more can be kept now."""
        words = await asyncio.to_thread(self._filtered, said)  # a classifier takes its time
        about = self._told(said, words.turns) or await self._captured(said)
        persona, _, domain = self._adapter(said, about).partition("/")
        is_praise = said.kind == "positive"
        signal = Signal(
            id="",
            kind=SignalKind(said.kind),
            persona=persona,
            domain=domain,
            input=about.messages,
            wrong_output="" if is_praise else about.answer,
            correct_output=about.answer if is_praise else words.correction,
            source=SOURCE,
            weight=self.weight,
            at=self.now(),
            release=about.release or self._release(said.response_id or ""),
            response=said.response_id or "",
            user=self.hide(said.user or ""),
            consent=said.consent,
            metadata=words.metadata,
        )
        signal = replace(signal, id=signal_id(signal))
        await asyncio.wrap_future(self.spool.put([signal]))
        self.heard(signal)
        return signal

    def _filtered(self, said: FeedbackRequest) -> _Words:
        turns = tuple(self.clean(message_of(turn)) for turn in said.messages or ())
        metadata = {self._text(key): self._text(value) for key, value in (said.metadata or {}).items()}
        return _Words(turns=turns, correction=self._text(said.correction or ""), metadata=metadata)

    def _text(self, text: str) -> str:
        return self.clean(Message("user", text)).content if text else ""

    def _told(self, said: FeedbackRequest, turns: tuple[Message, ...]) -> _About | None:
        """The answer as the request itself has it; None where it does not. Raises Unusable."""
        if not turns:
            return None
        answer = ""
        if turns[-1].role == "assistant":
            answer, turns = as_text([turns[-1]], ())[0].content, turns[:-1]
        if said.kind == "positive" and not answer.strip():
            raise Unusable(400, "messages must end with the answer that was right", param="messages", code="answer_missing")
        if not turns or turns[-1].role not in ("user", "tool"):
            raise Unusable(400, "before the answer, messages must end with what was asked", param="messages", code="question_missing")
        return _About(messages=tuple(plain(turn) for turn in turns), answer=answer)

    async def _captured(self, said: FeedbackRequest) -> _About:
        """The answer as this box kept it. Raises Unusable."""
        response, found = said.response_id or "", None
        if self.captures is not None and mark_in(response) is not None:
            found = await self._find(self.captures, response)
        if found is None:
            why = (
                "nothing is kept under it any more that this API key has asked"
                if self.captures is not None
                else "this box keeps no conversations (serving.capture)"
            )
            message = f"response_id {response!r}: {why}; send messages (the answer last) and model"
            raise Unusable(404 if self.captures is not None else 400, message, param="response_id", code="response_unknown")
        answers = [one for one in found.answers if one.answer.strip()] or list(found.answers)
        if len(answers) != 1:
            message = f"{response!r} has {len(answers)} answers: send messages, with the one that is meant at their end, and model"
            raise Unusable(400, message, param="messages", code="answer_ambiguous")
        asked = tuple({"role": role or "user", "content": text} for role, text in answers[0].asked)
        return _About(messages=asked, answer=answers[0].answer, model=found.model, release=answers[0].release.partition("+")[0])

    async def _find(self, captures: Captures, response: str) -> Captured | None:
        until = asyncio.get_running_loop().time() + CAPTURE_S
        while True:
            try:
                found = await asyncio.to_thread(captures.find, response)
            except IntegrityError as error:
                log.warning("%s", error.what, extra={"action": "capture_damaged"})
                return None
            if found is not None and self.owns(found.key):
                return found
            if asyncio.get_running_loop().time() >= until:  # so long too for what another key has asked: nobody learns that it is there
                return None
            await asyncio.sleep(LOOK_S)

    def _adapter(self, said: FeedbackRequest, about: _About) -> str:
        """The adapter that learns from it: of the model that was asked, else of the release that answered. Raises Unusable."""
        table = self.routes.table
        if about.model:
            return table.adapter_of(about.model)
        if said.model:
            if not (table.find(said.model) or said.model.partition("@")[0] in self.ledger.aliases):
                raise Unusable(404, f"no model {said.model!r}: models here are {', '.join(table.names())}", param="model", code="model_not_found")
            return table.adapter_of(said.model)
        if line := self.ledger.line_of(_mark(said.response_id or "")):
            return line.alias
        raise Unusable(400, "say which model answered: model, as the request named it", param="model", code="model_missing")

    def _release(self, response: str) -> str:
        """The release that the id of a response leads to: whole where the ledger knows it, else its mark; base; or empty."""
        mark = _mark(response)
        line = self.ledger.line_of(mark)
        return line.release or mark if line else mark


def _mark(response: str) -> str:
    """The mark of a response id; base; empty where it carries none."""
    return mark_in(response) or ""


def plain(message: Message) -> dict[str, Any]:
    """A message as a signal keeps it: what a row may say of a turn."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls]
    return turn | {key: value for key, value in (("name", message.name), ("tool_call_id", message.tool_call_id)) if value}


def _characters(turn: ChatMessage) -> int:
    calls = sum(len(call.id) + len(call.function.name) + len(call.function.arguments) for call in turn.tool_calls or ())
    return len(turn.text) + len(turn.name or "") + len(turn.tool_call_id or "") + calls


def _bound(size: int, most: int) -> None:
    """Raises what pydantic tells of the field."""
    if size > most:
        raise PydanticCustomError("too_long", "{size} characters are too many, the limit is {most}", {"size": size, "most": most})
