"""A typed row as checks see it: its messages, and the texts in them, each worked out once and only when asked for."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from rendering.specs import Message, Spec, SpecRow, Tools
from validation.album import Album
from validation.control import ControlTokens
from validation.talks import Talk, is_sound, talks_of


class Case:
    """One typed row. `line` is its 1-based physical line, `raw` its bytes."""

    album: Album | None = None
    """The pictures beside the file; None where they are not looked for."""
    tokens = -1
    """Tokens of the rendered conversation, near enough to tell which rows are long; -1 where no tokenizer is known."""
    answer_tokens = -1
    """Tokens of all answers together; -1 where no tokenizer is known."""

    def __init__(self, line: int, raw: bytes, row: SpecRow, spec: Spec, control: ControlTokens) -> None:
        self.line = line
        self.raw = raw
        self.row = row
        self.spec = spec
        self.control = control

    @cached_property
    def plain(self) -> list[str] | None:
        """The texts of a plain conversation (`rendering.specs.plain_texts`), which need no messages to be made; None for any other."""
        return self.spec.plain(self.row)

    @cached_property
    def messages(self) -> list[Message]:
        """The conversation that is learnt (of a pair: the better one)."""
        return self.spec.messages(self.row)

    @cached_property
    def rejected(self) -> list[Message] | None:
        """The worse conversation of a pair."""
        return self.spec.rejected(self.row)

    @cached_property
    def sound(self) -> bool:
        """Whether the row is a plain conversation in order, or all texts, and each of them can be seen."""
        return is_sound(self.row)

    @cached_property
    def talks(self) -> tuple[Talk, ...]:
        """The conversation that is learnt, then the worse one where the row has one, with the JSON path of each turn."""
        return talks_of(self.spec, self.row, self.messages)

    @property
    def tools(self) -> Tools:
        """The tools that the row declares."""
        return self.spec.tools(self.row)

    @property
    def is_chat(self) -> bool:
        """Whether the row has a list of messages, so that paths are `$.messages[i]`."""
        return self.spec.family in ("chat", "vision")

    def path(self, index: int) -> str:
        """JSON path of the text of message `index`."""
        if self.is_chat:
            return f"$.messages[{index}].content"
        talk = self.talks[0]
        if len(talk.messages) == len(self.messages) and index < len(talk.places):
            return talk.content(index)
        return f"$.{self.spec.required[0]}" if index == 0 else f"$.{self._answer_key}"

    @property
    def _answer_key(self) -> str:
        for key in ("completion", "output", "chosen", "correction"):
            if key in self.spec.required:
                return key
        return self.spec.required[-1]

    @property
    def answers(self) -> list[str]:
        """The texts that are learnt, in order; turns that only call tools are left out."""
        plain = self.plain
        return self._answers if plain is None else list(filter(None, plain[1 + len(plain) % 2 :: 2]))

    @cached_property
    def _answers(self) -> list[str]:
        return [message.content for message in self.messages if message.role == "assistant" and message.weight and message.content]

    @property
    def answer(self) -> str:
        """The last text that is learnt; empty where the row has none."""
        answers = self.answers
        return answers[-1] if answers else ""

    @cached_property
    def _answer_index(self) -> int:
        for index in range(len(self.messages) - 1, -1, -1):
            message = self.messages[index]
            if message.role == "assistant" and message.weight and message.content:
                return index
        return len(self.messages)

    @cached_property
    def prompt(self) -> str:
        """All text before the last answer, one paragraph a turn."""
        plain = self.plain
        if plain and plain[-1]:
            return "\n".join(filter(None, plain[:-1]))
        return "\n".join(message.content for message in self.messages[: self._answer_index] if message.content)

    @cached_property
    def question(self) -> str:
        """The last user text before the last answer."""
        plain = self.plain
        if plain and plain[-1]:
            return plain[-2]
        for message in reversed(self.messages[: self._answer_index]):
            if message.role == "user":
                return message.content
        return ""

    @cached_property
    def texts(self) -> list[tuple[str, str]]:
        """(path, text) of every string of the row, decoded: turns, arguments, metadata, worse answers; keys of objects are left out."""
        return list(strings(self._plain, "$"))

    @cached_property
    def _plain(self) -> Any:
        import msgspec

        return msgspec.to_builtins(self.row)


def strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every string in a JSON value, in order."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, f"{path}.{key}")
    elif isinstance(value, Sequence):
        for index, inner in enumerate(value):
            yield from strings(inner, f"{path}[{index}]")
