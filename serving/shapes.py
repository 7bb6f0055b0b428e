"""The objects of OpenAI's API, exactly as its clients read them."""

import json
from dataclasses import dataclass
from typing import Any

from serving.engines.port import Generation
from serving.routing import Served

Json = dict[str, Any]
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What every object of one answer repeats."""

    id: str
    created: int
    served: Served

    def body(self, kind: str, choices: list[Json]) -> Json:
        """The common part of an answer and of its chunks."""
        fingerprint = self.served.fingerprint
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.model, "system_fingerprint": fingerprint, "choices": choices}


def usage(generation: Generation) -> Json:
    """Tokens that were read and made."""
    read, made = generation.prompt_tokens, generation.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def completion(heading: Heading, text: str, finish_reason: str, counts: Json) -> Json:
    """A whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    if heading.served.rules.answer:  # beside the text, which stays as it was said
        message["answer"] = heading.served.rules.extract(text)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {**heading.body("chat.completion", [choice]), "usage": counts}


def chunk(heading: Heading, delta: Json, finish_reason: str | None = None) -> Json:
    """A piece of a streamed answer."""
    return heading.body("chat.completion.chunk", [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


def usage_chunk(heading: Heading, counts: Json) -> Json:
    """The last piece of a stream that was asked for its usage."""
    return {**heading.body("chat.completion.chunk", []), "usage": counts}


def event(body: Json) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_card(model: str, served: Served, base: str) -> Json:
    """An entry of the model list. `parent` is the base of an adapter, null for the base itself."""
    return {"id": model, "object": "model", "created": served.created, "owned_by": "lorad", "parent": None if model == base else base}


def error_body(message: str, *, kind: str, param: str | None, code: str | None) -> Json:
    """What every failed request is answered with."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
