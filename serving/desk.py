"""Takes what people say of answers; it is durable before it is answered for.

An answer is named by its response id, where this box captured it (`serving.capture`); else the conversation comes along. The
release may be long gone: the id leads to it by the box's ledger. What is wrong with a request is said in full; nothing of it
is kept then.
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
from pydantic import Field, model_validator

from core.errors import IntegrityError
from core.fingerprints import mark_in
from core.signals import Signal, SignalKind, signal_id
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
CAPTURE_S, LOOK_S = 2.0, 0.05  # an answer is captured a moment after its reader has it
PURPOSE = "feedback users"

Label = Annotated[Text, Field(max_length=128)]


class FeedbackRequest(Strict):
    """Body of POST /v1/feedback. `messages`: the conversation; where it ends with an answer, that is the one which is meant."""

    response_id: Label | None = None
    kind: Literal["mistake", "correction", "positive"]
    correction: Text | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    model: Label | None = None
    user: Annotated[Text, Field(max_length=512)] | None = None
    consent: bool
    metadata: Annotated[dict[Label, Annotated[Text, Field(max_length=512)]], Field(max_length=MOST_METADATA)] | None = None

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
class _About:
    """An answer: the conversation before it, its text, who gave it. Empty: not known."""

    messages: tuple[dict[str, Any], ...]
    answer: str
    model: str = ""
    release: str = ""


@dataclass(slots=True, kw_only=True)
class Desk:
    """What feedback is taken with. Args: weight: of a person's word. heard: told of each signal that is durable, on the event loop."""

    spool: Spool
    box: Box
    routes: Routes
    ledger: Ledger
    now: Callable[[], datetime]
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
        """The signal, durable. Raises Unusable; SpoolFull where nothing more can be kept now."""
        about = self._told(said) or await self._captured(said)
        persona, _, domain = self._adapter(said, about).partition("/")
        is_praise = said.kind == "positive"
        signal = Signal(
            id="",
            kind=SignalKind(said.kind),
            persona=persona,
            domain=domain,
            input=about.messages,
            wrong_output="" if is_praise else about.answer,
            correct_output=about.answer if is_praise else said.correction or "",
            source=SOURCE,
            weight=self.weight,
            at=self.now(),
            release=about.release or self._release(said.response_id or ""),
            response=said.response_id or "",
            user=self.hide(said.user or ""),
            consent=said.consent,
            metadata=dict(said.metadata or {}),
        )
        signal = replace(signal, id=signal_id(signal))
        await asyncio.wrap_future(self.spool.put([signal]))
        self.heard(signal)
        return signal

    def _told(self, said: FeedbackRequest) -> _About | None:
        """The answer as the request itself has it; None where it does not. Raises Unusable."""
        if not said.messages:
            return None
        turns, answer = said.messages, ""
        if turns[-1].role == "assistant":
            answer, turns = as_text([message_of(turns[-1])], ())[0].content, turns[:-1]
        if said.kind == "positive" and not answer.strip():
            raise Unusable(400, "messages must end with the answer that was right", param="messages", code="answer_missing")
        if not turns or turns[-1].role not in ("user", "tool"):
            raise Unusable(400, "before the answer, messages must end with what was asked", param="messages", code="question_missing")
        return _About(messages=tuple(_plain(turn) for turn in turns), answer=answer)

    async def _captured(self, said: FeedbackRequest) -> _About:
        """The answer as this box kept it. Raises Unusable."""
        response, found = said.response_id or "", None
        if self.captures is not None and mark_in(response) is not None:
            found = await self._find(self.captures, response)
        if found is None:
            why = "nothing is kept under it any more" if self.captures is not None else "this box keeps no conversations (serving.capture)"
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
            if found is not None or asyncio.get_running_loop().time() >= until:
                return found
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


def _plain(turn: ChatMessage) -> dict[str, Any]:
    message = message_of(turn)
    said: dict[str, Any] = {"role": message.role, "content": turn.text}
    said |= {key: value for key, value in (("name", turn.name), ("tool_call_id", turn.tool_call_id)) if value}
    if turn.tool_calls:
        said["tool_calls"] = [call.model_dump() for call in turn.tool_calls]
    return said
