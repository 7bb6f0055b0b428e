"""What a request may say: OpenAI's chat completion fields, strictly typed.

A field that would change the answer and is not served is refused by name; one that would not is accepted and ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Role = Literal["system", "developer", "user", "assistant"]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Strict(BaseModel):
    """No coercion of text to numbers; unknown fields are ignored, as OpenAI's clients expect of an older server."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class TextPart(Strict):
    """One part of a message's content; only text is served."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """One turn of the conversation."""

    role: Role
    content: Text | list[TextPart] | None = None
    name: Text | None = None
    tool_calls: list[Any] | None = None

    @field_validator("tool_calls")
    @classmethod
    def _no_tools(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("tool calls are not served here")
        return value

    @model_validator(mode="after")
    def _has_content(self) -> "ChatMessage":
        if self.content is None:
            raise ValueError("a message needs content")
        return self

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool = False


class ResponseFormat(Strict):
    """The form of the answer; only text is served."""

    type: Literal["text"]


class ChatRequest(Strict):
    """Body of POST /v1/chat/completions."""

    model: Text
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None

    @field_validator("n")
    @classmethod
    def _one_answer(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError("only one answer a request is served (n = 1)")
        return value

    @field_validator("logprobs", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "tools", "functions", "audio", "web_search_options")
    @classmethod
    def _unserved(cls, value: Any) -> Any:
        if value:
            raise ValueError("not served here; leave it out")
        return value

    @field_validator("tool_choice", "function_call")
    @classmethod
    def _no_tool_choice(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise ValueError("tools are not served here; leave it out")
        return value

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: list[str] | None) -> list[str] | None:
        if value not in (None, ["text"]):
            raise ValueError("only text is served")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
