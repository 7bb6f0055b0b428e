"""What a row of each schema is and how it becomes messages. One entry in SPECS is all that a schema needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from rendering.rowtypes import (
    ROLES,
    ChatRow,
    CompletionRow,
    CorrectionRow,
    InstructionRow,
    OwnRow,
    PreferenceRow,
    Role,
    SpecRow,
    Turn,
    UnpairedRow,
    VisionRow,
    plain_texts,
)

BAD_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding may raise. Bytes that are not UTF-8, half a surrogate pair and deep nesting do not come as msgspec errors."""

Objective = Literal["sft", "dpo", "kto", "orpo", "vision"]


class ToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call as it is rendered. `arguments` is the JSON text of an object, as it was written."""

    name: str
    arguments: str = "{}"
    id: str = ""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One turn as it is rendered. `weight` scales the loss of an assistant turn; 0 keeps it as context alone."""

    role: Role
    content: str
    name: str = ""
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a row of one schema is and how it becomes messages."""

    id: str
    title: str
    row: type[SpecRow]
    required: tuple[str, ...]
    own: tuple[str, ...] = ()
    """Optional keys of this spec alone; those of every spec come with `optional`."""
    turns: Callable[[Any], list[Message]]
    other: Callable[[Any], list[Message]] | None = None
    """The conversation that the row says is worse, where it says so."""
    plain: Callable[[Any], list[str] | None] = lambda row: None
    """The texts of a row that is nothing but a plain conversation, as `plain_texts` tells them; None for any other row."""
    objective: Objective = "sft"
    family: Literal["chat", "completion", "pair", "vision"] = "completion"
    """Which checks of turns apply: chat has turns of its own, completion has texts, pair two answers."""
    columns: tuple[str, ...] = ()
    """Extra columns that are passed through and never looked at."""
    example: str = ""
    hint: str = ""
    """How rows of other layouts become rows of this spec, in one sentence."""
    file: str = ""
    """Path of a project's own spec."""
    decode: Callable[[bytes], SpecRow] = field(default=lambda line: _never(line), compare=False)
    """A typed row of one line; a trailing "\\r" or "\\n" is JSON blank. Raises one of BAD_JSON."""
    decode_plain: Callable[[bytes], tuple[SpecRow, list[str] | None]] = field(default=lambda line: (_never(line), None), compare=False)
    """The same row, and its `plain` texts."""

    @property
    def optional(self) -> tuple[str, ...]:
        """Keys that a row may have beside the required ones."""
        return self.own + ROW_OPTIONAL

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a row may have."""
        return self.required + self.optional + self.columns

    def messages(self, row: SpecRow) -> list[Message]:
        """The turns that are rendered, trained on and served. Raises TypeError for a row of another spec."""
        if not isinstance(row, self.row):
            raise TypeError(f"{type(row).__name__} is not a {self.row.__name__}")
        return self.turns(row)

    def tools(self, row: SpecRow) -> Tools:
        """The declarations of the tools that the row's assistant may call."""
        return row.tools if isinstance(row, ChatRow) else ()

    def rejected(self, row: SpecRow) -> list[Message] | None:
        """The worse conversation of a preference or a correction; None where the row holds one conversation."""
        return self.other(row) if self.other else None

    def with_columns(self, columns: Sequence[str]) -> "Spec":
        """The same spec with further columns that are passed through and never looked at."""
        extra = tuple(column for column in columns if column not in self.keys)
        return self.decoding(self.columns + extra) if extra else self

    def with_any_columns(self) -> "Spec":
        """The same spec for rows whose columns were judged before: unknown ones are passed over."""
        return self.decoding(self.columns, any_columns=True)

    def decoding(self, columns: tuple[str, ...] = (), *, any_columns: bool = False) -> "Spec":
        """The same spec with its decoder made; a project's own spec decodes only rows that its function can turn into messages."""
        decode = decoder(self.row, columns, any_columns=any_columns)
        if self.file:
            decode = _turned(decode, self.turns)
            return replace(self, columns=columns, decode=decode, decode_plain=lambda line: (decode(line), None))
        return replace(self, columns=columns, decode=decode, decode_plain=_with_texts(self.plain, *_decoding(self.row, columns, any_columns)))


MESSAGE_REQUIRED = ("role", "content")
MESSAGE_OPTIONAL = ("name", "weight", "tool_calls", "tool_call_id")
ROW_OPTIONAL = ("metadata", "id", "weight")


def _never(line: bytes) -> SpecRow:
    raise AssertionError("a spec without a decoder")


def decoder(row: type[SpecRow], columns: tuple[str, ...] = (), *, any_columns: bool = False) -> Callable[[bytes], SpecRow]:
    """A decoder of one line into `row`; `columns` may hold anything, and with `any_columns` every unknown key of a row is passed over.

    It refuses what types cannot say: a turn without content and calls, a weight or calls of a turn that is not the
    assistant's, pictures in rows that are not of vision_v1.
    """
    decode, check = _decoding(row, columns, any_columns)
    if check is None:
        return decode

    def checked(line: bytes) -> SpecRow:
        found = decode(line)
        check(found)
        return found

    return checked


@cache
def _decoding(row: type[SpecRow], columns: tuple[str, ...], any_columns: bool) -> tuple[Callable[[bytes], SpecRow], Callable[[SpecRow], None] | None]:
    """A decoder by types alone, and what refuses the rest; None where types say it all."""
    held = tuple(field.name for field in msgspec.structs.fields(row) if _holds_turns(field.type))
    pictures = row is VisionRow

    def check(found: SpecRow) -> None:
        for name in held:
            turns = getattr(found, name)
            if type(turns) is list:
                for index, turn in enumerate(turns):
                    if type(turn.content) is not str or turn.weight != 1 or turn.tool_calls:
                        _refuse_turn(turn, f"$.{name}[{index}]", pictures)

    return msgspec.json.Decoder(_widened(row, columns, any_columns)).decode, check if held else None


def _with_texts(
    plain: Callable[[Any], list[str] | None], decode: Callable[[bytes], SpecRow], check: Callable[[SpecRow], None] | None
) -> Callable[[bytes], tuple[SpecRow, list[str] | None]]:
    def decoded(line: bytes) -> tuple[SpecRow, list[str] | None]:
        row = decode(line)
        texts = plain(row)
        # A plain conversation has nothing that a check would refuse.
        if texts is None and check is not None:
            check(row)
        return row, texts

    return decoded


def _turned(decode: Callable[[bytes], SpecRow], turns: Callable[[Any], list[Message]]) -> Callable[[bytes], SpecRow]:
    def tried(line: bytes) -> SpecRow:
        row = decode(line)
        try:
            good = all(isinstance(message, Message) for message in turns(row))
        except Exception as error:  # a person's own function may raise anything; it must not end the gate
            raise msgspec.ValidationError(f"The spec's own `turns` fails on this row: {type(error).__name__}: {error}") from None
        if not good:
            raise msgspec.ValidationError("The spec's own `turns` does not give a list of messages")
        return row

    return tried


def _widened(row: type[SpecRow], columns: tuple[str, ...], any_columns: bool) -> type[SpecRow]:
    if not columns and not any_columns:
        return row
    fields = [(f"column_{place}", Any, msgspec.UNSET) for place in range(len(columns))]
    rename = {f"column_{place}": column for place, column in enumerate(columns)}
    # A subclass: rows still are rows of their spec.
    made = msgspec.defstruct(row.__name__, fields, bases=(row,), rename=rename, frozen=True, forbid_unknown_fields=not any_columns, kw_only=True)
    return cast(type[SpecRow], made)


def _holds_turns(kind: Any) -> bool:
    return kind is Turn or any(_holds_turns(inner) for inner in get_args(kind))


def _refuse_turn(turn: Turn, path: str, pictures: bool) -> None:
    if turn.role != "assistant" and turn.weight != 1:
        raise msgspec.ValidationError(f"Only assistant turns have a `weight` - at `{path}.weight`")
    if turn.role != "assistant" and turn.tool_calls:
        raise msgspec.ValidationError(f"Only assistant turns have `tool_calls` - at `{path}.tool_calls`")
    if turn.content is None and not turn.tool_calls:
        raise msgspec.ValidationError(f"Object missing required field `content` - at `{path}`")
    if not pictures and not isinstance(turn.content, str):
        for index, part in enumerate(turn.content or ()):
            if part.type == "image":
                raise msgspec.ValidationError(f"Pictures belong to rows of vision_v1 - at `{path}.content[{index}]`")


# --- rows to messages


def message_of(turn: Turn) -> Message:
    """A turn as it is rendered: text parts joined, `developer` as system, pictures left out."""
    content = turn.content
    if type(content) is str and not turn.tool_calls and turn.role != "developer":
        return Message(turn.role, content, turn.name, turn.weight, (), turn.tool_call_id)
    if content is None:
        content = ""
    elif not isinstance(content, str):
        content = "".join(part.text for part in content)
    role: Role = "system" if turn.role == "developer" else turn.role
    calls = tuple(ToolCall(call.function.name, _arguments(call.function.arguments), call.id) for call in turn.tool_calls)
    return Message(role, content, turn.name, turn.weight, calls, turn.tool_call_id)


def plain_messages(texts: Sequence[str]) -> list[Message]:
    """The turns of a plain conversation whose texts these are."""
    roles: list[Role] = ["user", "assistant"] * (len(texts) // 2)
    if len(texts) % 2:
        roles.insert(0, "system")
    return [Message(role, text) for role, text in zip(roles, texts, strict=True)]


def _arguments(arguments: str | Mapping[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _conversation(row: ChatRow | VisionRow) -> list[Message]:
    return [message_of(turn) for turn in row.messages]


def _turns_of(value: str | Sequence[Turn], role: Role) -> list[Message]:
    return [Message(role, value)] if isinstance(value, str) else [message_of(turn) for turn in value]


def _joined(prompt: str | Sequence[Turn], answer: str | Sequence[Turn]) -> list[Message]:
    """Prompt and answer as one conversation. An answer that repeats the whole prompt, as some exports do, is taken as it is."""
    before, after = _turns_of(prompt, "user"), _turns_of(answer, "assistant")
    return after if before and after[: len(before)] == before else before + after


def _completion(row: CompletionRow) -> list[Message]:
    # The same turns as /v1/chat/completions makes of one user message: what is trained is what is served.
    return [Message("user", row.prompt), Message("assistant", row.completion)]


def _instruction(row: InstructionRow) -> list[Message]:
    return [Message("user", _task(row)), Message("assistant", row.output)]


def _task(row: InstructionRow) -> str:
    return f"{row.instruction}\n\n{row.input}" if row.input else row.instruction


_ALL = (
    Spec(
        id="chat_sft_v1",
        title="conversations; the assistant's turns are learnt",
        row=ChatRow,
        required=("messages",),
        own=("tools", "parallel_tool_calls"),
        turns=_conversation,
        plain=plain_texts,
        family="chat",
        example='{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
        hint="ShareGPT, Alpaca, prompt and response, Gemini contents: `lorad fix FILE -o OUT --schema chat_sft_v1` converts them",
    ),
    Spec(
        id="completion_v1",
        title="prompts and their completions; the completion is learnt",
        row=CompletionRow,
        required=("prompt", "completion"),
        turns=_completion,
        plain=lambda row: [row.prompt, row.completion],
        example='{"prompt": "…", "completion": "…"}',
        hint="question and answer under other names: `lorad fix FILE -o OUT --schema completion_v1` renames them",
    ),
    Spec(
        id="syllo_v1",
        title="word puzzles: chat rows whose answer is JSON made of the puzzle's syllable tiles",
        row=ChatRow,
        required=("messages",),
        own=("tools", "parallel_tool_calls"),
        turns=_conversation,
        plain=plain_texts,
        family="chat",
        example='{"messages": [{"role": "user", "content": "…Syllable bank: pa, tri…"}, {"role": "assistant", "content": "{…}"}], "metadata": {"level": 1}}',
        hint="write each puzzle as one chat row; its answer is the JSON text alone",
    ),
    Spec(
        id="instruction_v1",
        title="tasks (instruction, input) and their results; the output is learnt",
        row=InstructionRow,
        required=("instruction", "output"),
        own=("input",),
        turns=_instruction,
        plain=lambda row: [_task(row), row.output],
        example='{"instruction": "…", "input": "", "output": "…"}',
        hint="Alpaca files are rows of this spec as they are",
    ),
    Spec(
        id="preference_v1",
        title="prompts with a better and a worse answer",
        row=PreferenceRow,
        required=("prompt", "chosen", "rejected"),
        turns=lambda row: _joined(row.prompt, row.chosen),
        other=lambda row: _joined(row.prompt, row.rejected),
        objective="dpo",
        family="pair",
        example='{"prompt": "…", "chosen": "…", "rejected": "…"}',
        hint="pairs under other names: rename them to prompt, chosen, rejected",
    ),
    Spec(
        id="unpaired_v1",
        title="prompts, answers, and whether each answer is a good one",
        row=UnpairedRow,
        required=("prompt", "completion", "label"),
        turns=lambda row: _joined(row.prompt, row.completion),
        objective="kto",
        example='{"prompt": "…", "completion": "…", "label": true}',
        hint="a thumb up is label true, a thumb down is label false",
    ),
    Spec(
        id="correction_v1",
        title="what a model answered and what it should have answered; the correction is learnt",
        row=CorrectionRow,
        required=("prompt", "model_output", "correction"),
        own=("signal",),
        turns=lambda row: _joined(row.prompt, row.correction),
        other=lambda row: _joined(row.prompt, row.model_output),
        example='{"prompt": "…", "model_output": "…", "correction": "…", "signal": "user_correction"}',
        hint="a correction without the model's own answer is a row of completion_v1",
    ),
    Spec(
        id="vision_v1",
        title="conversations about pictures",
        row=VisionRow,
        required=("messages",),
        own=("images",),
        turns=_conversation,
        objective="vision",
        family="vision",
        example='{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "…"}]}, {"role": "assistant", "content": "…"}], '
        '"images": ["images/one.png"]}',
        hint="a text marker <image> becomes a part of type image; pictures lie in a folder beside the file",
    ),
)

SPECS: Mapping[str, Spec] = MappingProxyType({spec.id: spec.decoding() for spec in _ALL})

__all__ = [
    "BAD_JSON",
    "ROLES",
    "SPECS",
    "ChatRow",
    "CompletionRow",
    "Message",
    "OwnRow",
    "Role",
    "Spec",
    "SpecRow",
    "ToolCall",
    "Tools",
    "decoder",
    "message_of",
    "plain_messages",
    "plain_texts",
]
