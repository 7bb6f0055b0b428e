"""What a client of the conversation service sends, and how it is told that something failed."""

import json
import logging
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, StringConstraints, ValidationError

from core.errors import LoradError
from serving.conversation.histories import SessionUnknown
from serving.conversation.talk import Message, SessionBusy
from serving.engines.port import Sampling
from serving.failures import failure, of_lorad, of_validation
from serving.schemas import Strict, Text

log = logging.getLogger(__name__)

Session = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class TooOften(LoradError):
    """More messages than serving.rates allows."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many requests", hint=f"try again in {retry_after_s} s; serving.rates is the limit", code="RATE_LIMIT_EXCEEDED")
        self.retry_after_s = retry_after_s


class ChatBody(Strict):
    """What a user says. Without `session_id` a session begins; without `model` its own, else default/main, answers.

    `consent`: the user agrees that a correction in it is kept to train on.
    """

    message: Annotated[Text, Field(min_length=1)]
    session_id: Session | None = None
    model: Text | None = None
    length: Literal["auto", "short", "medium", "long"] = "auto"
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool = False
    consent: bool = False

    def as_message(self, default: Sampling) -> Message:
        """The message; `default` fills in where the body is silent."""
        temperature = default.temperature if self.temperature is None else self.temperature
        sampling = replace(default, temperature=temperature, max_tokens=self.max_tokens, seed=self.seed)
        return Message(text=self.message, session=self.session_id or "", model=self.model or "", length=self.length, sampling=sampling, consent=self.consent)


class SessionBody(Strict):
    """Which session is meant."""

    session_id: Session


def failure_of(error: Exception) -> JSONResponse:
    """The response of whatever an exchange raised."""
    if isinstance(error, SessionUnknown):
        return failure(404, f"{error.what}: {error.hint}", param="session_id", code="session_unknown")
    if isinstance(error, SessionBusy):
        return failure(409, f"{error.what}: {error.hint}", param="session_id", code="session_busy", headers={"retry-after": "1"})
    if isinstance(error, TooOften):
        return failure(429, f"{error.what}: {error.hint}", code="rate_limit_exceeded", headers={"retry-after": str(error.retry_after_s)})
    if isinstance(error, ValidationError):
        return of_validation(RequestValidationError(error.errors()))
    if isinstance(error, LoradError):
        return of_lorad(error)
    log.error("an exchange failed", exc_info=error, extra={"action": "exchange_failed"})
    return failure(500, "the server failed at this message; its log says why", code="internal_error")


def failed(error: Exception) -> dict[str, Any]:
    """The same as an event."""
    response = failure_of(error)
    told = json.loads(bytes(response.body))["error"]
    event = {"type": "error", "status": response.status_code, "code": told["code"], "message": told["message"]}
    wait = response.headers.get("retry-after")
    return event | ({"retry_after_s": int(wait)} if wait else {})
