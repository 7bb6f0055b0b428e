"""The conversations of a typed row, and where in the row each of their turns stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rendering.rowtypes import CompletionRow, CorrectionRow, InstructionRow, PreferenceRow, SpecRow, Turn, UnpairedRow
from rendering.specs import Message, Spec, message_of
from validation.findings import is_blank

Answer = str | Sequence[Turn]

# (prompt, the answer that is learnt, the worse answer)
_PARTS: dict[type, tuple[str, str, str]] = {
    CompletionRow: ("prompt", "completion", ""),
    InstructionRow: ("instruction", "output", ""),
    PreferenceRow: ("prompt", "chosen", "rejected"),
    UnpairedRow: ("prompt", "completion", ""),
    CorrectionRow: ("prompt", "correction", "model_output"),
}


@dataclass(frozen=True, slots=True)
class Talk:
    """Turns in order. `places` are their JSON paths; a place in `texts` is itself a text, any other is a turn with a content.

    `own_prompt`: the answer brings turns before its own that are not those of the prompt.
    """

    messages: Sequence[Message]
    places: Sequence[str]
    texts: frozenset[str] = frozenset()
    turns: Sequence[Turn | None] = ()
    own_prompt: bool = False

    def content(self, index: int) -> str:
        """JSON path of a turn's text."""
        return self.places[index] if self.is_text(index) else f"{self.places[index]}.content"

    def role(self, index: int) -> str:
        """JSON path of a turn's role; of the text where the turn is only a text."""
        return self.places[index] if self.is_text(index) else f"{self.places[index]}.role"

    def is_text(self, index: int) -> bool:
        """Whether this turn is itself a text, and not an object with role and content."""
        return self.places[index] in self.texts

    def shows_picture(self, index: int) -> bool:
        """Whether the turn has a picture, which its rendered text does not show."""
        turn = self.turns[index] if self.turns else None
        return turn is not None and isinstance(turn.content, list) and any(part.type == "image" for part in turn.content)


def talks_of(spec: Spec, row: SpecRow, messages: Sequence[Message]) -> tuple[Talk, ...]:
    """The conversation that is learnt, then the worse one where the row has one."""
    turns = getattr(row, "messages", None)
    if isinstance(turns, list) and len(turns) == len(messages):
        return (Talk(messages, [f"$.messages[{index}]" for index in range(len(turns))], turns=turns),)
    parts = parts_of(type(row))
    if parts is None:
        places = [_holder(spec, row, message.content) for message in messages]
        return (Talk(messages, places, frozenset(places)),)
    prompt, better, worse = parts
    return tuple(_joined(spec, row, prompt, answer) for answer in (better, worse) if answer)


@lru_cache(maxsize=64)
def parts_of(row: type) -> tuple[str, str, str] | None:
    """The keys of a row type that hold (prompt, learnt answer, worse answer); a row with extra columns is a subclass."""
    return next((_PARTS[one] for one in row.__mro__ if one in _PARTS), None)


def _joined(spec: Spec, row: SpecRow, prompt_key: str, answer_key: str) -> Talk:
    prompt, answer = getattr(row, prompt_key), getattr(row, answer_key)
    if isinstance(row, InstructionRow):
        messages = spec.messages(row)
        return Talk(messages, [f"$.{prompt_key}", f"$.{answer_key}"], frozenset((f"$.{prompt_key}", f"$.{answer_key}")))
    before, before_places, before_turns = _part(prompt, "user", prompt_key)
    after, places, turns = _part(answer, "assistant", answer_key)
    texts = frozenset(f"$.{key}" for key, value in ((prompt_key, prompt), (answer_key, answer)) if isinstance(value, str))
    if before and after[: len(before)] == before:
        return Talk(after, places, texts, turns)
    if not isinstance(answer, str) and answer and answer[0].role in ("system", "developer", "user"):
        return Talk(after, places, texts, turns, own_prompt=True)
    return Talk([*before, *after], [*before_places, *places], texts, [*before_turns, *turns])


def _part(value: Answer, role: Any, key: str) -> tuple[list[Message], list[str], list[Turn | None]]:
    if isinstance(value, str):
        return [Message(role, value)], [f"$.{key}"], [None]
    return [message_of(turn) for turn in value], [f"$.{key}[{index}]" for index in range(len(value))], list(value)


def _holder(spec: Spec, row: SpecRow, text: str) -> str:
    """The path of the key whose text a message is made of; the row where none is."""
    held = {name: getattr(row, name, None) for name in row.__struct_fields__}
    names = dict(zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True))
    candidates = {name: value for name, value in held.items() if isinstance(value, str) and names[name] not in ("id", *spec.columns)}
    for name, value in candidates.items():
        if value == text:
            return f"$.{names[name]}"
    inside = [name for name, value in candidates.items() if value and value in text]
    return f"$.{names[max(inside, key=lambda name: len(candidates[name]))]}" if inside else "$"


def is_sound(row: SpecRow) -> bool:
    """Whether a row is a plain conversation in order, or all texts, and each of them can be seen: then few checks have anything to say."""
    turns = getattr(row, "messages", None)
    return _is_sound_talk(turns) if type(turns) is list else _are_sound_texts(row)


def _are_sound_texts(row: SpecRow) -> bool:
    parts = parts_of(type(row))
    if parts is None:
        return False
    for name in parts:
        if not name:
            continue
        text = getattr(row, name)
        if type(text) is not str or (not "!" <= text < "\x7f" and is_blank(text)):
            return False
    return True


def _is_sound_talk(turns: Sequence[Turn]) -> bool:
    expected = "user"
    for turn in turns:
        content, role = turn.content, turn.role
        if role != expected and (role != "system" or turn is not turns[0]):
            return False
        if type(content) is not str or (not "!" <= content < "\x7f" and is_blank(content)):
            return False
        if turn.tool_calls or turn.weight != 1 or turn.tool_call_id:
            return False
        if role != "system":
            expected = "user" if expected == "assistant" else "assistant"
    return expected == "user" and len(turns) > 1
