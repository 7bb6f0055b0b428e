"""What a request may say: the fields of OpenAI's chat route and those that every route shares, strictly typed.

A field that would change the answer and is not served is refused by name; one that would not is accepted and ignored.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from serving.jsonschemas import refuse_schema

Role = Literal["system", "developer", "user", "assistant", "tool"]

MOST_CHOICES = 16  # answers to one request: each takes a stream of the engine
MOST_STOPS = 4
MOST_BIASES = 1024
MOST_ADAPTERS = 8
MOST_LIKELY = 20  # tokens beside the chosen one


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (UnicodeEncodeError, RecursionError, ValueError) as error:
        raise ValueError(f"this cannot be written as JSON: {type(error).__name__}") from None
    return value


def _schema(value: dict[str, Any]) -> dict[str, Any]:
    refuse_schema(_json(value))
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(_schema)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """No coercion of text to numbers; unknown fields are ignored, as OpenAI's clients expect of an older server."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class TextPart(Strict):
    """One part of a message's content; only text is served."""

    type: Literal["text"]
    text: Text


class CalledFunction(Strict):
    """What an assistant turn called. `arguments` is JSON text."""

    name: Text
    arguments: Text = "{}"


class MessageCall(Strict):
    """A tool call of an assistant turn that is sent back."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Strict):
    """One turn of the conversation."""

    role: Role
    content: Text | list[TextPart] | None = None
    name: Text | None = None
    tool_calls: list[MessageCall] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "ChatMessage":
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant message has tool_calls")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs tool_call_id")
        if self.content is None and not self.tool_calls:
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


class PlainText(Strict):
    """The answer is free."""

    type: Literal["text"]


class AnyObject(Strict):
    """The answer is a JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """A JSON Schema by name."""

    name: Name
    description: Text | None = None
    schema_: JsonSchema = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class BySchema(Strict):
    """The answer is JSON that follows a schema, whether `strict` is said or not."""

    type: Literal["json_schema"]
    json_schema: SchemaFormat


ResponseFormat = Annotated[PlainText | AnyObject | BySchema, Field(discriminator="type")]


class Function(Strict):
    """A function that the model may call. `parameters` is the JSON Schema of its arguments."""

    name: Name
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool; only functions are served."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """A function by name."""

    name: Text


class NamedTool(Strict):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class AdapterPart(Strict):
    """An adapter beside what `model` names: an alias, `persona/domain@vN` or `shared/name`, and the factor of its weights."""

    name: Text
    scale: Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False)] = 1.0


class Drawn(Strict):
    """What chat and plain completions share: which model, how tokens are chosen, how much, in which form."""

    model: Text
    adapters: Annotated[list[AdapterPart], Field(max_length=MOST_ADAPTERS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]], Field(max_length=MOST_BIASES)] | None = None
    max_tokens: Tokens | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    user: Annotated[Text, Field(max_length=512)] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if wrong := next((key for key in value or {} if not (key.isascii() and key.isdecimal() and len(key) < 10)), None):
            raise ValueError(f"{wrong!r} is no token id")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def token_limit(self) -> int | None:
        """Most tokens of an answer; None where the request is silent."""
        return self.max_tokens

    @property
    def num_likely(self) -> int | None:
        """How many likeliest tokens are wanted beside each one; None where no log-probabilities are."""
        return None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Drawn):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LIKELY)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None  # the user agrees that what was said is kept to train on
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None

    @field_validator("functions", "audio", "web_search_options")
    @classmethod
    def _unserved(cls, value: Any) -> Any:
        if value:
            raise ValueError("not served here; leave it out (functions: use tools)")
        return value

    @field_validator("function_call")
    @classmethod
    def _no_function_call(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise ValueError("not served here; use tool_choice")
        return value

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: list[str] | None) -> list[str] | None:
        if value not in (None, ["text"]):
            raise ValueError("only text is served")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, value: int | None, found: Any) -> int | None:
        if value and not found.data.get("logprobs"):
            raise ValueError("top_logprobs needs logprobs true")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _is_declared(cls, value: str | NamedTool | None, found: Any) -> str | NamedTool | None:
        names = [tool.function.name for tool in found.data.get("tools") or ()]
        if isinstance(value, NamedTool) and value.function.name not in names:
            raise ValueError(f"no tool {value.function.name!r} is declared")
        if value == "required" and not names:
            raise ValueError("required, and no tools are declared")
        return value

    @property
    def token_limit(self) -> int | None:
        """Most tokens of an answer; the newer field wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_likely(self) -> int | None:
        """None without `logprobs`."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that this answer may call: with `tool_choice` none, none of them; with a named one, it alone."""
        if self.tool_choice == "none":
            return ()
        if isinstance(self.tool_choice, NamedTool):
            return tuple(tool for tool in self.tools or () if tool.function.name == self.tool_choice.function.name)
        return tuple(self.tools or ())

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def answer_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema that the answer follows; None: free text."""
        if isinstance(self.response_format, BySchema):
            return self.response_format.json_schema.schema_
        return {} if isinstance(self.response_format, AnyObject) else None
