"""POST /v1/chat/completions."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from core.fingerprints import response_id
from serving import shapes
from serving.access.exchange import note
from serving.answers import Answer, IsGone, Said
from serving.engines.port import Chosen
from serving.openai import objects
from serving.openai.asking import wanted_chat
from serving.openai.hearing import Hearing
from serving.openai.page import ERRORS
from serving.openai.streams import RELEASE_HEADER, AnswerStream
from serving.schemas import ChatRequest
from serving.service import Service
from serving.toolcalls import Call, CallReader, Heard

KIND, CHUNK = "chat.completion", "chat.completion.chunk"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What became certain of one choice, its calls read."""

    text: str
    calls: tuple[Call, ...]
    tokens: tuple[Chosen, ...]
    finish_reason: str | None


@dataclass(slots=True, kw_only=True)
class Speaker:
    """One choice of a chat answer, while it comes. `reader` None: it may call nothing."""

    reader: CallReader | None
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[Chosen] = field(default_factory=list)
    finish_reason: str = "stop"

    def hear(self, said: Said) -> Spoken:
        """What of it is text and what is a call. A text that ends in a call ended with `tool_calls`."""
        heard = Heard(text=said.text) if self.reader is None else self.reader.feed(said.text)
        rest = self.reader.flush() if self.reader is not None and said.finish_reason else Heard()
        text, calls = heard.text + rest.text, heard.calls + rest.calls
        self.text += text
        self.calls += calls
        self.tokens += said.tokens
        reason = "tool_calls" if said.finish_reason == "stop" and self.calls else said.finish_reason
        self.finish_reason = reason or self.finish_reason
        return Spoken(text=text, calls=calls, tokens=said.tokens, finish_reason=reason)


def add_chat(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.post("/v1/chat/completions", response_model=objects.ChatCompletion, responses=ERRORS | objects.STREAMED)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """An answer by the model, whole or streamed."""
        wanted = wanted_chat(body, service.sampling)
        answer = await Answer.begin(service.grounds(), wanted, request.is_disconnected)
        heading = shapes.Heading(id=response_id(answer.served.label, secrets.token_hex(12)), created=int(time.time()), served=answer.served)
        note(response=heading.id, model=body.model)
        speakers = [Speaker(reader=_reader(body)) for _ in answer.choices]
        hearing = Hearing(service, body, wanted, answer.served)
        hearing.request()
        if body.stream:
            last = (lambda: heading.body(CHUNK, []) | {"usage": shapes.usage(answer)}) if body.includes_usage else None
            return AnswerStream(answer, _heard(_chunks(answer, heading, speakers, body), lambda: _tell(hearing, answer, heading, speakers)), last)
        try:
            await _listen(answer, speakers, request.is_disconnected)
            _tell(hearing, answer, heading, speakers)
        finally:
            answer.close()
        choices = [_choice(place, speaker, heading, body) for place, speaker in enumerate(speakers)]
        whole = heading.body(KIND, choices) | {"usage": shapes.usage(answer)}
        return JSONResponse(whole, headers={RELEASE_HEADER: answer.served.label})


async def _listen(answer: Answer, speakers: list[Speaker], is_gone: IsGone) -> None:
    async for said in answer.said(is_gone):
        spoken = speakers[said.choice].hear(said)
        note(finish=spoken.finish_reason or "")


async def _heard(chunks: AsyncIterator[Json], over: Callable[[], None]) -> AsyncIterator[Json]:
    async for chunk in chunks:
        yield chunk
    over()


def _tell(hearing: Hearing, answer: Answer, heading: shapes.Heading, speakers: list[Speaker]) -> None:
    for choice, speaker in zip(answer.choices, speakers, strict=True):
        if choice.is_over:
            hearing.answer(heading.id, speaker.text, speaker.calls, is_cut=speaker.finish_reason == "length")


def _reader(body: ChatRequest) -> CallReader | None:
    names = frozenset(tool.function.name for tool in body.callable_tools)
    return CallReader(names=names, most=1 if body.parallel_tool_calls is False else None) if names else None


def _choice(place: int, speaker: Speaker, heading: shapes.Heading, body: ChatRequest) -> Json:
    message: Json = {"role": "assistant", "content": None if speaker.calls and not speaker.text else speaker.text, "refusal": None}
    if speaker.calls:
        message["tool_calls"] = [shapes.tool_call(call, streamed=False) for call in speaker.calls]
    if heading.served.rules.answer:  # beside the text, which stays as it was said
        message["answer"] = heading.served.rules.extract(speaker.text)
    logprobs = shapes.chat_logprobs(speaker.tokens) if body.logprobs else None
    return shapes.choice(place, {"message": message}, speaker.finish_reason, logprobs)


async def _chunks(answer: Answer, heading: shapes.Heading, speakers: list[Speaker], body: ChatRequest) -> AsyncIterator[Json]:
    def chunk(place: int, delta: Json, reason: str | None = None, logprobs: Json | None = None) -> Json:
        return heading.body(CHUNK, [shapes.choice(place, {"delta": delta}, reason, logprobs)])

    for place in range(len(speakers)):
        yield chunk(place, {"role": "assistant", "content": ""})
    async for said in answer.said():
        spoken = speakers[said.choice].hear(said)
        logprobs = shapes.chat_logprobs(spoken.tokens) if body.logprobs and spoken.tokens else None
        if spoken.text or logprobs:
            yield chunk(said.choice, {"content": spoken.text}, None, logprobs)
        if spoken.calls:
            yield chunk(said.choice, {"tool_calls": [shapes.tool_call(call, streamed=True) for call in spoken.calls]})
        if spoken.finish_reason:
            note(finish=spoken.finish_reason)
            yield chunk(said.choice, {}, spoken.finish_reason)
