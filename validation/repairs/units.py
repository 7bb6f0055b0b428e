"""The bytes of a file as units: a physical line, or a value that was taken out of an array or out of several lines.

Lines end at "\\n" only. A unit that nothing changes is written with the bytes that it was read with.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from core.errors import LoradError

BLOCK_BYTES = 1 << 20
MOST_UNIT_BYTES = 64 << 20  # held at once; a longer line is copied in pieces, a longer value is not taken apart
UNROLL_BROKEN = "UNROLL_BROKEN"
_NOT_JSON = (msgspec.MsgspecError, RecursionError)


@dataclass(slots=True)
class Unit:
    """A line without its newline, or a value of its own.

    `line` is the 1-based physical line where it begins. `end` is "\\n", empty behind a last line without one, and empty
    behind a piece of a line that is too long to be held (`piece` counts from 1 there; 0 is a whole line).
    """

    line: int
    raw: bytes
    end: bytes = b"\n"
    piece: int = 0
    changed: bool = False

    @property
    def is_row(self) -> bool:
        """Whether it is a row of its own: not blank, not the continuation of a long line."""
        return self.piece == 1 or (self.piece == 0 and bool(self.raw) and not self.raw.isspace())


def blocks_of(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of an open file, each once."""
    while block := file.read(BLOCK_BYTES):
        yield block


def line_units(blocks: Iterable[bytes]) -> Iterator[Unit]:
    """Physical lines, byte for byte."""
    number, parts, size, piece = 1, [b""], 0, 0
    for block in blocks:
        *whole, rest = block.split(b"\n")
        for content in whole:
            parts.append(content)
            yield Unit(number, b"".join(parts), piece=piece + 1 if piece else 0)
            number, parts, size, piece = number + 1, [], 0, 0
        parts.append(rest)
        size += len(rest)
        if size > MOST_UNIT_BYTES:
            piece += 1
            yield Unit(number, b"".join(parts), end=b"", piece=piece)
            parts, size = [], 0
    left = b"".join(parts)
    if left or piece:
        yield Unit(number, left, end=b"", piece=piece + 1 if piece else 0)


# --- text that is not UTF-8


def as_utf8(blocks: Iterable[bytes], on_line: Callable[[int, bytes, str], None]) -> Iterator[bytes]:
    """The same text as UTF-8: each byte that is not part of UTF-8 is taken as Windows-1252, halves of CESU-8 are joined.

    `on_line` is told the line of each such place, its bytes, and what they became.
    """
    lines = 1

    def taken(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        if halves := _HALVES.match(error.object, error.start):
            wrong, right = halves[0], halves[0].decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")
        else:
            wrong = error.object[error.start : error.end]
            # Five bytes stand for nothing in Windows-1252; Latin-1 has a control character for each.
            right = "".join(wrong[place : place + 1].decode("cp1252", "ignore") or chr(wrong[place]) for place in range(len(wrong)))
        on_line(lines + error.object.count(b"\n", 0, error.start), wrong, right)
        return right, error.start + len(wrong)

    codecs.register_error("lorad.cp1252", taken)
    for block in _whole_lines(blocks):
        yield block.decode("utf-8", "lorad.cp1252").encode("utf-8")
        lines += block.count(b"\n")


_HALVES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")  # an emoji as two surrogates of three bytes each


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut behind newlines where there are any."""
    rest = b""
    for block in blocks:
        rest += block
        end = rest.rfind(b"\n") + 1 or (len(rest) if len(rest) > MOST_UNIT_BYTES else 0)
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


# --- values that are not one a line


def unrolled(blocks: Iterable[bytes]) -> Iterator[Unit]:
    """One JSON value a unit, out of an array, out of several lines, or out of a line that holds several.

    A line that is one value already keeps its bytes; a line that is none is passed on as it is. Raises LoradError
    UNROLL_BROKEN where a value that is spread over lines breaks off in the middle of the file.
    """
    return _Unroller(blocks).units()


_GAP = re.compile(rb"[ \t\r\n,]*")
_LINE_END = re.compile(rb"([ \t\r]*)(?:\n|\Z)")
_TURNS = re.compile(rb'\[\s*\{\s*"(?:role|from)"\s*:')
_NEAR = 64  # bytes that are looked at to know what begins or ends at a place
_TOKEN = re.compile(rb'"(?:[^"\\\n]++|\\[^\n])*+"|["\[\]{}:,]')
_AFTER_OPENING = re.compile(rb"(?<=[\[{])[ \t\r]*\n\s*")
_BEFORE_CLOSING = re.compile(rb"\s*\n\s*(?=[\]}])")
_LINE_BREAK = re.compile(rb"[ \t\r]*\n\s*")


class _Unroller:
    """Walks over a stream value by value; holds no more of it than the value at hand and a block."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held = b""
        self._at = 0  # all before this place of _held is done
        self._line = 1  # of that place
        self._line_begins = True  # whether nothing but blanks stands before it on its line
        self._in_array = False

    def units(self) -> Iterator[Unit]:
        while self._skip_gap():
            first = self._held[self._at : self._at + 1]
            if first == b"[" and not self._in_array and not self._is_one_conversation():
                self._in_array = True
                self._take(1)
            elif first == b"]" and self._in_array:
                self._in_array = False
                self._take(1)
            elif first in (b"{", b"["):
                yield from self._value()
            else:
                yield Unit(self._line, self._rest_of_line())

    def _is_one_conversation(self) -> bool:
        """Whether the array that begins here holds turns: then it is one row, not many."""
        while len(self._held) - self._at < _NEAR and self._more():
            pass
        return _TURNS.match(self._held, self._at) is not None

    def _more(self) -> bool:
        """Hold another block; False at the end."""
        block = next(self._blocks, b"")
        self._held, self._at = self._held[self._at :] + block, 0
        return bool(block)

    def _take(self, size: int) -> bytes:
        taken = self._held[self._at : self._at + size]
        self._at += size
        self._line += taken.count(b"\n")
        self._line_begins = not taken[taken.rfind(b"\n") + 1 :].strip() and (b"\n" in taken or self._line_begins)
        return taken

    def _skip_gap(self) -> bool:
        """Skip blanks and commas between values; False at the end."""
        while True:
            gap = _GAP.match(self._held, self._at)
            assert gap is not None
            self._take(gap.end() - self._at)
            if self._at < len(self._held):
                return True
            if not self._more():
                return False

    def _rest_of_line(self) -> bytes:
        while (end := self._held.find(b"\n", self._at)) < 0 and len(self._held) <= MOST_UNIT_BYTES and self._more():
            pass
        return self._take((len(self._held) if end < 0 else end) - self._at).removesuffix(b"\r")

    def _value(self) -> Iterator[Unit]:
        line, begins, size = self._line, self._line_begins and not self._in_array, self._size_of_value()
        if size:
            raw = self._take(size)
            flat = _one_line(raw) if b"\n" in raw else raw
            if begins and flat is raw and (rest := self._blank_rest()) is not None:
                yield Unit(line, raw + rest)
            else:
                yield Unit(line, flat, changed=True)
        else:
            yield Unit(line, self._rest_of_line())
            self._refuse_half_a_value(line)

    def _refuse_half_a_value(self, line: int) -> None:
        """A row that was cut off is a line like any other. What follows half of an object that is spread over lines is not."""
        if self._skip_gap() and self._held[self._at : self._at + 1] not in b"{[]":
            raise LoradError(
                f"the value that begins in line {line:,} breaks off: it cannot be written on one line",
                hint="mend that value by hand first, or export the file again",
                code=UNROLL_BROKEN,
            )

    def _blank_rest(self) -> bytes | None:
        """The blanks that follow on this line, such as "\\r"; None where something else follows."""
        while len(self._held) - self._at < _NEAR and b"\n" not in self._held[self._at :] and self._more():
            pass
        rest = _LINE_END.match(self._held, self._at)
        return self._take(len(rest[1])) if rest else None

    def _size_of_value(self) -> int:
        """Bytes of the value that begins here; 0 where it is broken, or the file ends before it does."""
        newline = self._held.find(b"\n", self._at)
        if newline >= 0 and _is_value(line := self._held[self._at : newline]):
            return len(line.rstrip())
        scanned, opened, before = 0, b"", b""  # `opened`: the brackets that are open
        while True:
            found = _TOKEN.search(self._held, self._at + scanned)
            token = found[0] if found else b""
            if found is None or (token == b'"' and self._held.find(b"\n", found.start()) < 0):  # the rest lies in the next block
                scanned = (found.start() if found else len(self._held)) - self._at
                if len(self._held) - self._at > MOST_UNIT_BYTES or not self._more():
                    return 0
                continue
            scanned = found.end() - self._at
            if token == b'"':
                return 0
            if token in (b"{", b"["):
                if opened and before != b":" and (opened[-1:] == b"{" or before not in (b"[", b",")):
                    return 0
                opened += token
            elif token in (b"}", b"]"):
                if opened[-1:] + token not in (b"{}", b"[]"):
                    return 0
                opened = opened[:-1]
                if not opened:
                    return scanned
            before = token


def _is_value(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except _NOT_JSON:
        return False
    return True


def _one_line(raw: bytes) -> bytes:
    """A value without its line breaks. None of them stands in a string: JSON allows no raw newline there."""
    return _LINE_BREAK.sub(b" ", _BEFORE_CLOSING.sub(b"", _AFTER_OPENING.sub(b"", raw)))
