"""What a request asks the engine for."""

from collections.abc import Mapping, Sequence
from typing import Any

from rendering.specs import Message, ToolCall
from serving.answers import Wanted
from serving.engines.port import Sampling
from serving.jsonschemas import call_schema
from serving.schemas import ChatMessage, ChatRequest, Drawn

ROLES = {"developer": "system"}  # OpenAI's newer word for it, which chat templates do not know


def wanted_chat(request: ChatRequest, default: Sampling) -> Wanted:
    """Of a chat request; `default` fills in where it is silent. A call that must be made is made by a schema of all that may be."""
    tools = request.callable_tools
    schema = request.answer_schema
    if request.must_call:
        schema = call_schema([(tool.function.name, tool.function.parameters or {}) for tool in tools])
    return Wanted(
        model=request.model,
        adapters=_adapters(request),
        messages=tuple(message_of(message) for message in request.messages),
        tools=tuple(_declaration(tool.model_dump(exclude_none=True)) for tool in tools),
        schema=schema,
        sampling=sampling_of(request, default),
        stops=request.stops,
        choices=request.n or 1,
        user=request.user or "",
    )


def wanted_texts(request: Drawn, texts: Sequence[str], default: Sampling) -> Wanted:
    """Of a plain completion."""
    return Wanted(
        model=request.model,
        adapters=_adapters(request),
        texts=tuple(texts),
        sampling=sampling_of(request, default),
        stops=request.stops,
        choices=request.n or 1,
        user=request.user or "",
    )


def message_of(message: ChatMessage) -> Message:
    """A request's message as a turn for the chat template."""
    calls = tuple(ToolCall(call.function.name, call.function.arguments, call.id) for call in message.tool_calls or ())
    role = ROLES.get(message.role, message.role)
    return Message(role, message.text, message.name or "", 1.0, calls, message.tool_call_id or "")  # type: ignore[arg-type]


def sampling_of(request: Drawn, default: Sampling) -> Sampling:
    """A request's wishes, with defaults where it is silent."""
    return Sampling(
        temperature=_or(request.temperature, default.temperature),
        top_p=_or(request.top_p, default.top_p),
        top_k=max(0, int(_or(request.top_k, default.top_k))),  # -1 is vLLM's word for all
        repetition_penalty=_or(request.repetition_penalty, default.repetition_penalty),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        max_tokens=request.token_limit or default.max_tokens,
        seed=request.seed,
        logprobs=request.num_likely,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _adapters(request: Drawn) -> tuple[tuple[str, float], ...]:
    return tuple((part.name, part.scale) for part in request.adapters or ())


def _declaration(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    # `strict` is a wish about decoding; models never saw it in a declaration.
    return {**tool, "function": {key: value for key, value in tool["function"].items() if key != "strict"}}
