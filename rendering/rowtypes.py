"""The keys and types of a row of each spec, as JSON Lines bring them. Deny by default: a key that is not named is an error.

Keys that are left out take the defaults below; null is not a way to leave a key out, but for a content beside tool calls.
"""

from typing import Annotated, Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One part of a content: a text, or the place of a picture."""

    type: Literal["text", "image"]
    text: str = ""
    image: str = ""  # path of the picture where the row has no list `images`


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a tool call calls. `arguments` is a JSON text, as OpenAI writes it, or the object itself."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool call of an assistant turn."""

    function: Function
    id: str = ""
    type: Literal["function"] = "function"


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A message as it is written. `developer` is another word for system; `weight` scales the loss of an assistant turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str = ""
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    tool_calls: tuple[Call, ...] = ()
    tool_call_id: str = ""


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Keys that every spec allows. `metadata` is never trained on; `weight` scales the row's loss."""

    metadata: dict[str, Any] = {}
    id: str | int = ""
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class ChatRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A conversation, and the tools that the assistant may call in it."""

    messages: list[Turn]
    tools: tuple[dict[str, Any], ...] = ()
    parallel_tool_calls: bool | msgspec.UnsetType = msgspec.UNSET


class CompletionRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A prompt and what should follow it."""

    prompt: str
    completion: str


class InstructionRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A task, the text it is to be done on (may be empty), and the result."""

    instruction: str
    output: str
    input: str = ""


class PreferenceRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A prompt with a better and a worse answer, as texts or as conversations."""

    prompt: str | list[Turn]
    chosen: str | list[Turn]
    rejected: str | list[Turn]


class UnpairedRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A prompt, an answer, and whether it is a good one."""

    prompt: str | list[Turn]
    completion: str | list[Turn]
    label: bool


class CorrectionRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """What a model answered, what it should have answered, and where that is known from."""

    prompt: str | list[Turn]
    model_output: str
    correction: str
    signal: str | dict[str, Any] = ""


class VisionRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A conversation about pictures. Paths are relative to the file; each image part stands for the next of `images`."""

    messages: list[Turn]
    images: list[str] = []


class OwnRow(Common, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A row of a project's own spec; its keys are added to this type."""


SpecRow = ChatRow | CompletionRow | InstructionRow | PreferenceRow | UnpairedRow | CorrectionRow | VisionRow | OwnRow


def plain_texts(row: ChatRow) -> list[str] | None:
    """The texts of a conversation in which user and assistant take turns, after a system turn or without one, all of it learnt.

    The last text is the assistant's; an odd number of them begins with the system turn. None for a conversation of another
    order, and for one with tools, names, parts or weights.
    """
    turns = row.messages
    if len(turns) < 2 or row.tools:
        return None
    expected = "system" if turns[0].role == "system" else "user"
    texts = []
    for turn in turns:
        content = turn.content
        if turn.role != expected or type(content) is not str or turn.weight != 1 or turn.tool_calls or turn.name or turn.tool_call_id:
            return None
        texts.append(content)
        expected = "assistant" if expected == "user" else "user"
    return texts if expected == "user" else None
