"""The answer to one message of a session, as events while it comes.

A release that fails to answer is not the user's trouble: before the first text has gone out the base is asked instead, and
the answer says so in `fallback`. After three failures in a row the release rests for half a minute (`health`).
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from core.errors import LoradError
from core.fingerprints import response_id
from serving.access.exchange import note
from serving.answers import Answer, Grounds, IsGone, Wanted
from serving.conversation.context import half, sentence_end, turns
from serving.conversation.health import Health
from serving.conversation.histories import Said
from serving.engines.port import AdapterError, PromptError, Sampling
from serving.failures import AnswerTimeout
from serving.line import Ticket
from serving.routing import Served

log = logging.getLogger(__name__)

Json = dict[str, Any]
ENGINE_FAILED = "ENGINE_FAILED"
ADAPTED = "adapted"  # finish reason: the answer was as long as it was aimed at, and a sentence had ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be answered. `said` goes before `text`; the answer may end at the first sentence after `aim` tokens of `longest`."""

    model: str
    prompt: str  # of the persona; empty for none
    said: Sequence[Said]
    text: str
    user: str  # keeps the session on one side of a canary
    aim: int
    longest: int
    sampling: Sampling


@dataclass(slots=True, kw_only=True)
class _Reply:
    """One attempt at an answer."""

    question: Question
    fallback: Json | None
    text: str = ""
    told: int = 0  # characters that went out
    aim_from: int | None = None  # characters there were when the aim was reached
    finish_reason: str = ""
    heading: Json = field(default_factory=dict)

    def hear(self, text: str, tokens: int) -> str:
        """The text that goes out now. Sets `finish_reason` where the answer is long enough."""
        if self.aim_from is None and tokens >= self.question.aim < self.question.longest:
            self.aim_from = len(self.text)
        self.text += text
        end = None if self.aim_from is None else sentence_end(self.text, self.aim_from)
        if end is not None and self.text[end:].strip():  # nothing is cut off where the model has ended by itself
            self.text, self.finish_reason = self.text[:end], ADAPTED
        fresh, self.told = self.text[self.told :], len(self.text)
        return fresh


class Replies:
    """Answers for conversations. For one event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._health = Health(monotonic)

    async def reply(self, grounds: Grounds, question: Question, *, tells: bool, is_gone: IsGone | None) -> AsyncGenerator[Json, None]:
        """Events: `queued` with each new position (where `tells`), `begun`, `text` again and again, `done` with the whole.

        Raises what `Answer.begin` and `Answer.said` raise, where the base has nothing to do with it or gave no answer either.
        """
        served, base = grounds.routes.find(question.model), grounds.routes.table.base.model
        note(model=question.model)
        fallback = self._standing(question.model, served, base)
        names = [base] if fallback and fallback["code"] == "ADAPTER_RESTS" else list(dict.fromkeys((question.model, base)))
        for name in names:
            reply = _Reply(question=question, fallback=fallback)
            try:
                async with aclosing(self._attempt(grounds, name, reply, tells, is_gone)) as events:
                    async for event in events:
                        yield event
            except Exception as error:  # the border of an answer: whatever an adapter broke, the base may still answer
                if name == base or not served.blend or not _is_sick(error):
                    raise
                what, code = (error.what, error.code) if isinstance(error, LoradError) else (type(error).__name__, ENGINE_FAILED)
                self._health.failed(served.label, what)
                if reply.text:
                    raise
                log.exception("%s gave no answer: the base is asked", name, extra={"action": "fell_back"})
                fallback = _fallback(question.model, served, code, what)
                continue
            if name != base and reply.finish_reason:
                self._health.answered(served.label)
            return

    def _standing(self, model: str, served: Served, base: str) -> Json | None:
        """Why the base answers from the first; None where it need not."""
        if not served.blend:
            return None if model == base else _fallback(model, served, "NO_RELEASE", "no release of it is live here")
        trouble = self._health.trouble(served.label)
        return _fallback(model, served, "ADAPTER_RESTS", trouble) if trouble else None

    async def _attempt(self, grounds: Grounds, name: str, reply: _Reply, tells: bool, is_gone: IsGone | None) -> AsyncGenerator[Json, None]:
        ticket = grounds.line.join()
        answer: Answer | None = None
        try:
            if tells:  # else `begin` waits, and looks whether the caller is still there
                async with aclosing(_positions(ticket, grounds.timeout_s)) as positions:
                    async for position in positions:
                        yield {"type": "queued", "position": position}
            answer = await _begin(grounds, name, reply.question, ticket, is_gone)
            reply.heading = _heading(answer.served, reply.fallback)
            yield {"type": "begun", **reply.heading}
            async for said in answer.said(is_gone):
                if text := reply.hear(said.text, answer.completion_tokens):
                    yield {"type": "text", "text": text}
                reply.finish_reason = reply.finish_reason or said.finish_reason or ""
                if reply.finish_reason:
                    break
            if reply.finish_reason:
                yield _done(reply, answer)
        finally:
            ticket.leave()
            if answer is not None:
                answer.close()


async def _positions(ticket: Ticket, timeout_s: float) -> AsyncGenerator[int, None]:
    """Each new position in the line, until it is the ticket's turn. Raises AnswerTimeout."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    async with aclosing(ticket.positions()) as positions:
        while True:
            left_s = deadline_s - asyncio.get_running_loop().time()
            try:
                position = await asyncio.wait_for(anext(positions), max(0.0, left_s))
            except TimeoutError:
                what = f"no turn came within {timeout_s:g} s"
                raise AnswerTimeout(what, hint="ask again later; serving.timeout_s is the bound", code="ANSWER_TIMEOUT") from None
            if position == 0:
                return
            yield position


async def _begin(grounds: Grounds, model: str, question: Question, ticket: Ticket | None, is_gone: IsGone | None) -> Answer:
    """The answer begun, with less and less of what was said before where the model's context is too small for it."""
    said = list(question.said)
    while True:
        wanted = Wanted(model=model, messages=tuple(turns(question.prompt, said, question.text)), sampling=question.sampling, user=question.user)
        try:
            return await Answer.begin(grounds, wanted, is_gone, ticket)
        except PromptError as error:
            if error.code != "CONTEXT_LENGTH" or not said:
                raise
            said, ticket = half(said), None  # the failed one has left its place


def _heading(served: Served, fallback: Json | None) -> Json:
    identity = response_id(served.label, secrets.token_hex(12))
    note(response=identity)
    return {"response_id": identity, "model": served.model, "release": served.label, "system_fingerprint": served.fingerprint, "fallback": fallback}


def _done(reply: _Reply, answer: Answer) -> Json:
    note(finish=reply.finish_reason)
    read, made = answer.prompt_tokens, answer.completion_tokens
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    return {"type": "done", **reply.heading, "text": reply.text, "finish_reason": reply.finish_reason, "aim_tokens": reply.question.aim, "usage": usage}


def _fallback(model: str, served: Served, code: str, why: str) -> Json:
    """What a response says when the base answered in the place of `model`."""
    return {"wanted": model, "release": served.label, "code": code, "reason": why}


def _is_sick(error: Exception) -> bool:
    """Whether the release is to blame: not the request, not the box's load, not a filter."""
    return isinstance(error, AdapterError) or not isinstance(error, LoradError) or error.code == ENGINE_FAILED
