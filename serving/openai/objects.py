"""What the routes answer, as types: the OpenAPI page is made from them."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, server-sent events that end with `data: [DONE]`.",
        "content": {"text/event-stream": {"schema": {}}},
    }
}


class Problem(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(TypedDict):
    """Every failed request is answered with one."""

    error: Problem


class CachedTokens(TypedDict):
    """Of the prompt."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens that were read and made."""

    prompt_tokens: int
    completion_tokens: NotRequired[int]
    total_tokens: int
    prompt_tokens_details: NotRequired[CachedTokens]


class CallFunction(TypedDict):
    """What is called; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallObject(TypedDict):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: CallFunction


class AssistantMessage(TypedDict):
    """What the model said. `answer`: what counts of it, where the release's profile marks that."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[ToolCallObject]]
    answer: NotRequired[str]


class TokenLogprob(TypedDict):
    """A token and its log-probability (nats)."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token of the answer and the likeliest beside it."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(TypedDict):
    """Of all tokens of the answer."""

    content: list[ChosenLogprob]
    refusal: None


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(TypedDict):
    """A whole answer of the chat route."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class PlainLogprobs(TypedDict):
    """Of all tokens of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(TypedDict):
    """One continuation."""

    index: int
    text: str
    logprobs: PlainLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(TypedDict):
    """A whole answer of the plain route."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class EmbeddingObject(TypedDict):
    """A text as numbers: a list, or their bytes (float32, little-endian) in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(TypedDict):
    """All of them, in the order of the request."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class ModelCard(TypedDict):
    """A name that is served. `parent` is the base of an adapter."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: str | None


class ModelList(TypedDict):
    """All names."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(TypedDict):
    """The process is alive."""

    status: Literal["ok"]
