"""Row types of each spec: one JSON line in, messages out. Deny by default: a key that is not named here is an error.

Keys that are left out take the defaults below; null is not a way to leave a key out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")

BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding may raise. Bytes that are not UTF-8 and deep nesting do not come as msgspec errors."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn. `weight` 0 on an assistant turn keeps it as context and takes it out of the loss."""

    role: Role
    content: str
    name: str = ""
    weight: Literal[0, 1] = 1


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Keys that every spec allows. `metadata` is never trained on; `weight` scales the row's loss."""

    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    id: str | int = ""
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class ChatRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A conversation."""

    messages: list[Message]


class CompletionRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A prompt and what should follow it."""

    prompt: str
    completion: str


SpecRow = ChatRow | CompletionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a row of one schema is and how it becomes messages."""

    id: str
    title: str
    row: type[SpecRow]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    decode: Callable[[bytes], SpecRow]
    """A typed row of one line; a trailing "\\r" or "\\n" is JSON blank. Raises one of BAD_JSON."""
    messages: Callable[[SpecRow], list[Message]]
    """The turns that are rendered, trained on and served. Raises TypeError for a row of another spec."""
    example: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a row may have."""
        return self.required + self.optional


MESSAGE_REQUIRED = ("role", "content")
MESSAGE_OPTIONAL = ("name", "weight")
ROW_OPTIONAL = ("metadata", "id", "weight")

_decode_chat = msgspec.json.Decoder(ChatRow).decode
_decode_completion = msgspec.json.Decoder(CompletionRow).decode


def _chat(line: bytes) -> ChatRow:
    row = _decode_chat(line)
    if b'"weight"' in line:
        for index, message in enumerate(row.messages):
            if message.role != "assistant" and message.weight != 1:
                raise msgspec.ValidationError(f"Only assistant turns have a `weight` - at `$.messages[{index}].weight`")
    return row


def _chat_messages(row: SpecRow) -> list[Message]:
    if not isinstance(row, ChatRow):
        raise TypeError(f"{type(row).__name__} is not a ChatRow")
    return row.messages


def _completion_messages(row: SpecRow) -> list[Message]:
    # The same turns as /v1/chat/completions makes of one user message: what is trained is what is served.
    if not isinstance(row, CompletionRow):
        raise TypeError(f"{type(row).__name__} is not a CompletionRow")
    return [Message("user", row.prompt), Message("assistant", row.completion)]


SPECS: Mapping[str, Spec] = MappingProxyType(
    {
        "chat_sft_v1": Spec(
            id="chat_sft_v1",
            title="conversations; the assistant's turns are learnt",
            row=ChatRow,
            required=("messages",),
            optional=ROW_OPTIONAL,
            decode=_chat,
            messages=_chat_messages,
            example='{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
        ),
        "completion_v1": Spec(
            id="completion_v1",
            title="prompts and their completions; the completion is learnt",
            row=CompletionRow,
            required=("prompt", "completion"),
            optional=ROW_OPTIONAL,
            decode=_decode_completion,
            messages=_completion_messages,
            example='{"prompt": "…", "completion": "…"}',
        ),
    }
)
