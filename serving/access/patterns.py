"""Stage one of the content filters: patterns, by RE2, which looks at a text of any kind in linear time.

An answer is looked at as it comes. What is shown is final: text is held back as long as a match may still begin or go on in
it. For a pattern of bounded length that is its longest match; for others HELD characters, and a match that is longer than
LONGEST counts as several. So the text that is shown does not depend on how the engine cuts it into pieces.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError

HELD = 256  # characters, for a pattern without a longest match
LONGEST = 4096
MOST_MEMORY = 8 << 20  # bytes of one pattern's automata


@dataclass(frozen=True, slots=True)
class Span:
    """Where a pattern was found."""

    begin: int
    end: int


class Pattern:
    """One pattern. Raises ConfigError FILTER_PATTERN for what RE2 does not take."""

    def __init__(self, name: str, text: str) -> None:
        import re2  # type: ignore[import-untyped]

        options = re2.Options()
        options.log_errors = False
        options.max_mem = MOST_MEMORY
        try:
            self._pattern: Any = re2.compile(text, options)
        except re2.error as error:
            told = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
            what = f"serving.filters.{name}: {text!r} is no pattern: {told}"
            hint = "the syntax is RE2's: no look-around, no back-references (https://github.com/google/re2/wiki/Syntax)"
            raise ConfigError(what, hint=hint, code="FILTER_PATTERN") from None
        if self._pattern.search("") is not None:
            raise ConfigError(f"serving.filters.{name}: {text!r} fits the empty text", hint="write + in place of *", code="FILTER_PATTERN")
        longest = _longest(text)
        self.is_bounded = longest is not None
        self.held = HELD if longest is None else longest + 1  # one more: \b and $ look at what follows

    def spans(self, text: str, begin: int = 0) -> Iterator[Span]:
        """Where it is found from `begin` on, left to right, none within another."""
        for match in self._pattern.finditer(text, begin):
            if match.end() > match.start():
                yield Span(match.start(), match.end())


def _longest(pattern: str) -> int | None:
    """Characters of the longest match; None where there is no bound, or it is not known: Python's parser knows most of RE2's syntax."""
    from re import _parser  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _, most = _parser.parse(pattern).getwidth()
        except (re.error, OverflowError, RecursionError):
            return None
    return int(most) if most < HELD else None


class Finder:
    """Finds one pattern in a text that comes in pieces."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._text = ""  # what is not decided, behind one character that is: \b looks at it
        self._done = 0  # characters of _text that are decided

    def feed(self, text: str, *, is_last: bool = False) -> Iterator[tuple[str, bool]]:
        """(what became certain, whether it is a match) in order."""
        self._text += text
        sure = len(self._text) if is_last else max(self._done, len(self._text) - self._pattern.held)
        while (span := next(self._pattern.spans(self._text, self._done), None)) and (is_last or span.begin < sure):
            end = span.end if self._pattern.is_bounded else min(span.end, span.begin + LONGEST)
            may_go_on = not self._pattern.is_bounded and end == len(self._text) and end - span.begin < LONGEST
            if may_go_on and not is_last:
                sure = span.begin
                break
            yield from self._give(span.begin)
            yield self._text[span.begin : end], True
            self._done = end
        yield from self._give(max(sure, self._done))
        kept = max(0, self._done - 1)
        self._text, self._done = self._text[kept:], self._done - kept

    def _give(self, end: int) -> Iterator[tuple[str, bool]]:
        if end > self._done:
            yield self._text[self._done : end], False
            self._done = end
