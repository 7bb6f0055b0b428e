"""POST /v1/completions: the text goes on as it stands, without a chat template."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, field_validator, model_validator

from core.fingerprints import response_id
from serving import shapes
from serving.access.exchange import note
from serving.answers import Answer, Said
from serving.engines.port import Chosen
from serving.openai import objects
from serving.openai.asking import wanted_texts
from serving.openai.page import ERRORS
from serving.openai.streams import RELEASE_HEADER, AnswerStream
from serving.schemas import MOST_CHOICES, Drawn, Text
from serving.service import Service

KIND = "text_completion"
MOST_LIKELY = 5
Json = dict[str, Any]


class CompletionRequest(Drawn):
    """Body of POST /v1/completions."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_CHOICES)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LIKELY)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("suffix", "best_of")
    @classmethod
    def _unserved(cls, value: Any) -> Any:
        if value and value != 1:
            raise ValueError("not served here; leave it out")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "CompletionRequest":
        if len(self.prompts) * (self.n or 1) > MOST_CHOICES:
            raise ValueError(f"prompts times n may be {MOST_CHOICES} at most")
        if self.echo and self.logprobs is not None:
            raise ValueError("log-probabilities of the prompt are not served: leave echo or logprobs out")
        if not all(self.prompts):
            raise ValueError("an empty prompt cannot be continued")
        return self

    @property
    def prompts(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def opening(self, place: int) -> str:
        """What stands in front of the answer at this place."""
        return self.prompts[place // (self.n or 1)] if self.echo else ""

    @property
    def num_likely(self) -> int | None:
        """None where no log-probabilities are wanted."""
        return self.logprobs


@dataclass(slots=True, kw_only=True)
class Continued:
    """One choice while it comes: its text, the prompt in front where that is wanted."""

    text: str
    tokens: list[Chosen] = field(default_factory=list)
    finish_reason: str = "stop"

    def hear(self, said: Said) -> None:
        """Add what was said."""
        self.text += said.text
        self.tokens += said.tokens
        self.finish_reason = said.finish_reason or self.finish_reason


def add_completions(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.post("/v1/completions", response_model=objects.Completion, responses=ERRORS | objects.STREAMED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """What follows a text, whole or streamed."""
        answer = await Answer.begin(service.grounds(), wanted_texts(body, body.prompts, service.sampling), request.is_disconnected)
        heading = shapes.Heading(id=response_id(answer.served.label, secrets.token_hex(12)), created=int(time.time()), served=answer.served)
        note(response=heading.id, model=body.model)
        if body.stream:
            last = (lambda: heading.body(KIND, []) | {"usage": shapes.usage(answer)}) if body.includes_usage else None
            return AnswerStream(answer, _chunks(answer, heading, body), last)
        heard = [Continued(text=body.opening(place)) for place in range(len(answer.choices))]
        try:
            async for said in answer.said(request.is_disconnected):
                heard[said.choice].hear(said)
                note(finish=said.finish_reason or "")
        finally:
            answer.close()
        choices = [_choice(place, one.text, one.finish_reason, body, (one.tokens, 0)) for place, one in enumerate(heard)]
        return JSONResponse(heading.body(KIND, choices) | {"usage": shapes.usage(answer)}, headers={RELEASE_HEADER: answer.served.label})


def _choice(place: int, text: str, reason: str | None, body: CompletionRequest, tokens: tuple[Sequence[Chosen], int]) -> Json:
    logprobs = shapes.plain_logprobs(*tokens) if body.logprobs is not None else None
    return shapes.choice(place, {"text": text}, reason, logprobs)


async def _chunks(answer: Answer, heading: shapes.Heading, body: CompletionRequest) -> AsyncIterator[Json]:
    told = [0] * len(answer.choices)  # characters
    for place in range(len(answer.choices)):
        if opening := body.opening(place):
            yield heading.body(KIND, [_choice(place, opening, None, body, ((), 0))])
    async for said in answer.said():
        note(finish=said.finish_reason or "")
        yield heading.body(KIND, [_choice(said.choice, said.text, said.finish_reason, body, (said.tokens, told[said.choice]))])
        told[said.choice] += len(said.text)
