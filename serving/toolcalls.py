"""Tool calls out of an answer while it comes.

How a call is written belongs to the base: `<tool_call>` tags around JSON or around `<function=…>` (Hermes, Qwen, and lorad's
own form for templates without tools), or an answer that is nothing but JSON (Llama, Mistral, and every call that was forced
by a schema). What cannot become a call any more is given out as text at once; a whole answer and a stream pass through
the same reader, so that both say the same.
"""

import secrets
from dataclasses import dataclass, field

from rendering.answers import tool_calls_in
from rendering.specs import ToolCall
from serving.text import overlap

OPENED, CLOSED = "<tool_call>", "</tool_call>"
WHOLE = ("{", "[", "```")  # how an answer begins that may be nothing but calls
ID_LETTERS = 9  # Mistral's templates take ids of nine letters and digits alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of an answer. `index` is its place among the answer's calls."""

    index: int
    id: str
    name: str
    arguments: str  # JSON text


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a piece of text made certain."""

    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(slots=True, kw_only=True)
class CallReader:
    """Reads the calls of one answer. `feed` each text, then `flush`.

    Args: names: of the tools that may be called; anything else that looks like a call stays text. most: of the calls.
    """

    names: frozenset[str]
    most: int | None = None
    num_calls: int = 0
    _held: str = field(default="", init=False)
    _told: bool = field(default=False, init=False)  # some text was given out

    def feed(self, text: str) -> Heard:
        """What is certain now. Blanks are held back until it is known whether a call follows them."""
        self._held += text
        return Heard() if self._may_be_whole() else self._tagged()

    def flush(self) -> Heard:
        """What was held back, once no more text comes. A call that was cut off is text, unless its JSON is whole."""
        if self._may_be_whole() and OPENED not in self._held:
            text, self._held = self._held, ""
            found = self._found(text)
            return Heard(calls=self._count(found)) if found else Heard(text=text)
        heard = self._tagged()
        text, self._held = self._held, ""
        cut = text.find(OPENED)
        found = self._found(text[cut:]) if cut >= 0 else []
        if found or (self.num_calls and not text.strip()):
            text = text[: max(cut, 0)].rstrip()
        return Heard(text=heard.text + self._tell(text), calls=heard.calls + self._count(found))

    def _may_be_whole(self) -> bool:
        begun = self._held.lstrip()
        return not self._told and not self.num_calls and (begun.startswith(WHOLE) or WHOLE[-1].startswith(begun))

    def _tagged(self) -> Heard:
        told = ""
        calls: tuple[Call, ...] = ()
        while (start := self._held.find(OPENED)) >= 0 and (end := self._held.find(CLOSED, start)) >= 0:
            before, block = self._held[:start], self._held[start : end + len(CLOSED)]
            self._held = self._held[end + len(CLOSED) :]
            found = self._found(block)
            told += self._tell(before.rstrip() if found else before + block)
            calls += self._count(found)
        free = start if start >= 0 else len(self._held) - overlap(self._held, OPENED)
        free = len(self._held[:free].rstrip())
        text, self._held = self._held[:free], self._held[free:]
        return Heard(text=told + self._tell(text), calls=calls)

    def _tell(self, text: str) -> str:
        if self.num_calls and not self._told:
            text = text.lstrip()  # between calls and behind them
        self._told = self._told or bool(text)
        return text

    def _found(self, text: str) -> list[ToolCall]:
        return [call for call in tool_calls_in(text) if call.name in self.names]

    def _count(self, found: list[ToolCall]) -> tuple[Call, ...]:
        kept = found if self.most is None else found[: self.most - self.num_calls]
        first, self.num_calls = self.num_calls, self.num_calls + len(kept)
        return tuple(_call(index, call) for index, call in enumerate(kept, first))


def _call(index: int, call: ToolCall) -> Call:
    return Call(index=index, id=secrets.token_hex(ID_LETTERS)[:ID_LETTERS], name=call.name, arguments=call.arguments)
