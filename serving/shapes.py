"""The objects of OpenAI's API, exactly as its clients read them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.engines.port import Chosen, Likely
from serving.routing import Served
from serving.toolcalls import Call

if TYPE_CHECKING:
    from serving.answers import Answer  # whose errors are answered in the shape below

Json = dict[str, Any]
DONE = "data: [DONE]\n\n"
LEAST_LOGPROB = -9999.0  # JSON has no infinity


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


def usage(answer: "Answer") -> Json:
    """Tokens that were read and made."""
    read, made = answer.prompt_tokens, answer.completion_tokens
    counts: Json = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    return counts | ({"prompt_tokens_details": {"cached_tokens": answer.cached_tokens}} if answer.cached_tokens else {})


def choice(place: int, said: Json, finish_reason: str | None, logprobs: Json | None) -> Json:
    """One of an answer's choices. `said` is {"message": …}, {"delta": …} or {"text": …}."""
    return {"index": place, **said, "logprobs": logprobs, "finish_reason": finish_reason}


def tool_call(call: Call, *, streamed: bool) -> Json:
    """A call of a tool. A streamed one carries its place, and comes whole."""
    return ({"index": call.index} if streamed else {}) | {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def chat_logprobs(tokens: Sequence[Chosen]) -> Json:
    """Log-probabilities as the chat route gives them."""
    content = [_likely(chosen.token) | {"top_logprobs": [_likely(other) for other in chosen.top]} for chosen in tokens]
    return {"content": content, "refusal": None}


def plain_logprobs(tokens: Sequence[Chosen], start: int) -> Json:
    """The same as the older route gives them; `start` is where the first token stands in the text."""
    texts = [chosen.token.text for chosen in tokens]
    offsets = [start + sum(map(len, texts[:place])) for place in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [_number(chosen.token) for chosen in tokens],
        "top_logprobs": [{other.text: _number(other) for other in chosen.top} for chosen in tokens],
        "text_offset": offsets,
    }


def _likely(token: Likely) -> Json:
    return {"token": token.text, "logprob": _number(token), "bytes": list(token.raw)}


def _number(token: Likely) -> float:
    return max(token.logprob, LEAST_LOGPROB)


def event(body: Json) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_card(model: str, served: Served, base: str) -> Json:
    """An entry of the model list. `parent` is the base of an adapter, null for the base itself."""
    return {"id": model, "object": "model", "created": served.created, "owned_by": "lorad", "parent": None if model == base else base}


def error_body(message: str, *, kind: str, param: str | None, code: str | None) -> Json:
    """What every failed request is answered with."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
