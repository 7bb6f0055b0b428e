"""Many patterns looked for in the bytes of a row at once: by hyperscan where it is installed, else one after the other.

A pattern has two halves. Its anchor is loose and cheap, and is looked for in the bytes of every row; a row without an
anchor is clean. Its shape is exact, and is looked for in the decoded strings of the few rows that have the anchor.
Anchors have no left border: in JSON the letter of an escape ("\\n") may stand right before a match.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from rendering.specs import BAD_JSON
from validation.case import Case, strings

HYPERSCAN = "hyperscan"
PLAIN = "re, one pattern after the other: hyperscan is not installed"
_ASCII_ESCAPE = re.compile(rb"\\u00[0-7]")
_KEY = re.compile(r"\.([^.\[\]]+)(?:\[\d+\])*$")
OWN_KEYS = frozenset({"content", "role", "prompt", "completion", "instruction", "input", "output", "chosen", "rejected", "text", "type", "name", "arguments"})
"""Keys of rows that say nothing of what stands under them."""
_LONGEST_INNER_JSON = 1 << 20  # characters; a longer string is looked at as text only


class Late:
    """A regular expression that is compiled when it is first used: a quick check needs none of those that deep ones have."""

    def __init__(self, expression: str, flags: int = 0) -> None:
        self._expression, self._flags = expression, flags

    @cached_property
    def compiled(self) -> "re.Pattern[str]":
        """The pattern, compiled when it is first needed."""
        return re.compile(self._expression, self._flags)

    def search(self, text: str) -> "re.Match[str] | None":
        """As `re.Pattern.search`."""
        return self.compiled.search(text)

    def match(self, text: str) -> "re.Match[str] | None":
        """As `re.Pattern.match`."""
        return self.compiled.match(text)

    def fullmatch(self, text: str) -> "re.Match[str] | None":
        """As `re.Pattern.fullmatch`."""
        return self.compiled.fullmatch(text)

    def findall(self, text: str) -> list[str]:
        """As `re.Pattern.findall`."""
        return self.compiled.findall(text)

    def finditer(self, text: str) -> "Iterator[re.Match[str]]":
        """As `re.Pattern.finditer`."""
        return self.compiled.finditer(text)

    def sub(self, by: str, text: str) -> str:
        """As `re.Pattern.sub`."""
        return self.compiled.sub(by, text)


@dataclass(frozen=True, slots=True)
class Span:
    """A match in a text: where, of which kind, and the kind in words. `grave`: it alone may refuse a file."""

    start: int
    end: int
    kind: str
    title: str
    grave: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One kind of thing to find.

    `shape` may have a group `value`: the part that is judged, counted and taken out; else it is the whole match.
    `holds` looks at a match a second time: structure, checksum, entropy, reserved values.
    """

    kind: str  # becomes the mark in redacted texts
    title: str  # in words, with its article
    anchor: str  # a regular expression over ASCII bytes that stands in every match
    shape: str
    holds: Callable[["re.Match[str]"], bool] = lambda match: True
    grave: bool = True
    caseless: bool = False  # of the anchor


class Patterns:
    """Several patterns made ready. Compiling some hundred takes a fifth of a second: keep the object. Safe for threads."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._shapes = [re.compile(pattern.shape) for pattern in patterns]
        self._local = threading.local()
        self._database = _compiled(patterns)
        one_by_one = () if self._database else patterns
        self._anchors = [re.compile(pattern.anchor.encode(), re.IGNORECASE if pattern.caseless else 0) for pattern in one_by_one]

    @property
    def engine(self) -> str:
        """What looks for anchors."""
        return HYPERSCAN if self._database else PLAIN

    def anchored(self, content: bytes) -> list[int]:
        """Places of the patterns whose anchor stands in the bytes."""
        if not self._database:
            return [place for place, anchor in enumerate(self._anchors) if anchor.search(content)]
        found: list[int] = []
        self._database.scan(content, match_event_handler=_collect, context=found, scratch=self._scratch())
        return found

    def _scratch(self) -> Any:
        try:
            return self._local.scratch
        except AttributeError:
            import hyperscan

            self._local.scratch = hyperscan.Scratch(self._database)
            return self._local.scratch

    def spans(self, text: str, places: Sequence[int] | None = None) -> list[Span]:
        """The matches in a decoded text that hold, in order and without overlap; of some patterns only where `places` names them."""
        found: list[Span] = []
        for place in range(len(self._patterns)) if places is None else places:
            pattern = self._patterns[place]
            for match in self._shapes[place].finditer(text):
                if pattern.holds(match):
                    start, end = match.span("value") if "value" in match.re.groupindex else match.span()
                    found.append(Span(start, end, pattern.kind, pattern.title, pattern.grave))
        return _apart(found)

    def in_text(self, text: str) -> list[Span]:
        """The matches in a decoded text, by way of the anchors."""
        places = self.anchored(text.encode("utf-8", "surrogatepass"))
        return self.spans(text, places) if places else []

    def in_case(self, case: Case) -> list[tuple[str, str, Span]]:
        """(path, text, match) for every match in the decoded strings of a row."""
        places = self.anchored(searchable(case))
        if not places:
            return []
        places = sorted(set(places))
        return [(path, text, span) for path, text in deep_strings(case) for span in self.spans(text, places)]


def _collect(place: int, start: int, end: int, flags: int, found: Any) -> None:
    found.append(place)


def _compiled(patterns: Sequence[Pattern]) -> Any:
    try:
        import hyperscan
    except ImportError:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    # Anchors are met at most once a row, and those with borders are only approximated: the shape is exact.
    flags = [hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_PREFILTER | (hyperscan.HS_FLAG_CASELESS if one.caseless else 0) for one in patterns]
    database.compile(expressions=[one.anchor.encode() for one in patterns], ids=list(range(len(patterns))), elements=len(patterns), flags=flags)
    return database


def _apart(spans: list[Span]) -> list[Span]:
    """Of matches that overlap the longest, and of equal ones the first pattern's."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start - one.end):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda one: one.start)


def searchable(case: Case) -> bytes:
    """Bytes in which every anchor of the row's strings can be seen: the raw line, unless JSON escapes might split one."""
    raw = case.raw
    if b"\\" not in raw:
        return raw
    if b"\\u00" in raw and _ASCII_ESCAPE.search(raw):
        return "\n".join(text for _, text in deep_strings(case)).encode("utf-8", "surrogatepass")
    return raw.replace(b"\\/", b"/")


def deep_strings(case: Case) -> Iterator[tuple[str, str]]:
    """(path, text) of the strings of a row. What stands in an object under a key of its own is prefixed by that key,
    and a string that is JSON, as tool arguments are, also yields the strings inside it."""
    for path, text in case.texts:
        yield path, text
        yield from inner_strings(path, text)
        if named := keyed(path, text):
            yield path, named


def inner_strings(path: str, text: str) -> Iterator[tuple[str, str]]:
    """(path, text) of the strings in a text that is a JSON object or list; nothing for any other text."""
    inner = inner_json(text)
    if inner is not None:
        for place, string in strings(inner, path):
            yield place, keyed(place, string) or string


def inner_json(text: str) -> Any:
    """The object or list that a text is in JSON; None where it is neither."""
    if text[:1] not in ("{", "[") or len(text) > _LONGEST_INNER_JSON:
        return None
    try:
        return msgspec.json.decode(text)
    except (*BAD_JSON, UnicodeEncodeError):
        return None


def keyed(path: str, text: str) -> str:
    """`key = text` for a short string that stands under a key of the file's own, so that the key counts as its context."""
    found = _KEY.search(path)
    return f"{found[1]} = {text}" if found and found[1] not in OWN_KEYS and len(text) <= 200 else ""
