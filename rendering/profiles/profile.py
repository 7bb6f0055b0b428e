"""What a profile is. One of one's own is a class derived from DataProfile, in a file that the config names."""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from core.answering import NO_RULES, AnswerRules, ProfileRecord
from core.errors import ConfigError, LoradError
from rendering.rows import Row
from rendering.specs import Message

THINK_TAG = re.compile(r"\s*</?think>\s*")


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a profile that asks for nothing."""


class DataProfile:
    """Changes rows after the gate, once each, and says what it adds.

    A subclass names itself, gives `change`, and raises `version` whenever the same row would come out otherwise. Weights,
    groups and splits stay as they are; what is drawn comes from the hash of the row, so that every run draws the same.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    adds: ClassVar[str]
    """What it adds to a row, in one sentence."""
    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    """What the config may say in profile.options."""
    sha256: str = ""
    """SHA-256 of the file of a profile of one's own."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Raises ConfigError PROFILE_OPTION naming the option, with the nearest known one."""
        self.given = dict(options or {})
        self.options: Any = self._read(self.given)

    @property
    def rules(self) -> AnswerRules:
        """What serving and ranking of such a model must know."""
        return NO_RULES

    @property
    def record(self) -> ProfileRecord:
        """Name, version, options and rules, as they travel with a checkpoint."""
        return ProfileRecord(name=self.name, version=self.version, options=self.given, sha256=self.sha256, rules=self.rules)

    def change(self, messages: Sequence[Message], draw: bytes) -> list[Message]:
        """The conversation as it is learnt. `draw` are 32 bytes that hang on the row alone."""
        raise NotImplementedError

    def is_marked(self, messages: Sequence[Message]) -> bool:
        """Whether the conversation bears the marks of this profile already, by whoever wrote the file."""
        return False

    def apply(self, row: Row) -> Row:
        """The row as it is learnt; the row itself where a profile was applied to it before.

        Raises LoradError PROFILE_FAILED naming the row, where a profile of one's own raises, or changes weights.
        """
        if row.profile or self.is_marked(row.messages):
            return row
        draw = draw_of(row.messages)
        try:
            changed = self.change(row.messages, draw)
            worse = self.change(row.rejected, draw) if row.rejected is not None else None
            good = _weights(changed) == _weights(row.messages)
        except Exception as error:  # a person's own profile may raise anything
            raise self._failed(row, f"{type(error).__name__}: {error}") from error
        if not good:
            raise self._failed(row, "it takes away, adds or weighs assistant turns")
        if worse is not None and row.rejected is not None and changed[:-1] != worse[:-1] and row.messages[:-1] == row.rejected[:-1]:
            changed, worse = row.messages, row.rejected  # two answers to one question must stay that
        return replace(row, messages=changed, rejected=worse, profile=f"{self.name} {self.version}")

    def _failed(self, row: Row, why: str) -> LoradError:
        return LoradError(
            f"profile {self.name!r} fails on line {row.line} of drop {row.drop!r}: {why}", hint="correct the profile, then retry the job", code="PROFILE_FAILED"
        )

    def _read(self, options: Mapping[str, Any]) -> msgspec.Struct:
        known = self.Options.__struct_fields__
        for key in options:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}" if known else "it has no options"
                raise ConfigError(f"profile.options: profile {self.name!r} has no option {key!r}", hint=hint, code="PROFILE_OPTION")
        try:
            return msgspec.convert(dict(options), self.Options)
        except msgspec.ValidationError as error:
            hint = f"its options are {', '.join(known) or 'none'}; see docs/howto/profiles.md"
            raise ConfigError(f"profile.options of {self.name!r}: {error}", hint=hint, code="PROFILE_OPTION") from None


def _weights(messages: Sequence[Message]) -> list[float]:
    return [message.weight for message in messages if message.role == "assistant"]


def without_tags(text: str) -> str:
    """The text without `<think>` tags; what stands between them is kept, on lines of its own."""
    return THINK_TAG.sub("\n", text).strip("\n") if THINK_TAG.search(text) else text


def draw_of(messages: Sequence[Message]) -> bytes:
    """32 bytes that hang on the conversation alone. Tags around thoughts do not count, since a profile may strip them."""
    parts = (f"{message.role}\x1f{without_tags(message.content)}" for message in messages)
    return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogatepass")).digest()


def with_system(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with `text` first in its system turn, which is made where there is none. A repeat changes nothing."""
    if not text:
        return list(messages)
    if not messages or messages[0].role != "system":
        return [Message("system", text), *messages]
    first = messages[0]
    if first.content == text or first.content.startswith(f"{text}\n\n"):
        return list(messages)
    return [replace_content(first, f"{text}\n\n{first.content}" if first.content else text), *messages[1:]]


def replace_content(message: Message, content: str) -> Message:
    """The same message with another content."""
    return msgspec.structs.replace(message, content=content)


def last_answer(messages: Sequence[Message]) -> int | None:
    """Index of the last assistant turn that says something and calls no tool; None where there is none."""
    return next((index for index in range(len(messages) - 1, -1, -1) if _is_answer(messages[index])), None)


def _is_answer(message: Message) -> bool:
    return message.role == "assistant" and bool(message.content.strip()) and not message.tool_calls
