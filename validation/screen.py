"""A fast look at many rows at once: whether there is anything at all to look at closer.

A block of lines passes where every check of a row would have nothing to say: then its rows cost one decode. A block that
does not pass is judged row by row; so the screen may be too strict, and never too mild.
"""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from rendering.rowtypes import ChatRow, CompletionRow
from rendering.specs import BAD_JSON, SpecRow
from validation.checks.silent import has_spaced_key
from validation.findings import is_blank

_NEWLINE, _OPENING, _CLOSING, _QUOTE, _BLANK, _COLON = b'\n{}" :'
_ESCAPE_U, _BLANK_COLON, _QUOTE_COLON, _ESCAPED_QUOTE = (int.from_bytes(two, sys.byteorder) for two in (b"\\u", b" :", b'":', b'\\"'))
LEAST_BYTES = 4 << 10  # of a block; below this the screen costs more than it saves
LEAST_FILE_BYTES = 1 << 20  # below this loading numpy costs more

# Every control token begins so, written plainly; and so may one that is written with escapes.
_opens_a_token = re.compile(rb"<(?:\||/?s>|[be]os>|start_of_|end_of_|\xef\xbd\x9c)").search
_escaped_ascii = re.compile(rb"\\u00[2-7]|\\u[fF][fF]5[cC]").search


class Screen:
    """Screens blocks of whole lines of one row type. `rows` gives None for a block that must be judged row by row.

    Args: brackets: control tokens of this base begin with "[" too.
    """

    def __init__(self, row: type[SpecRow], brackets: bool) -> None:
        self._decode = msgspec.json.Decoder(row).decode_lines
        self._clean = _SCREENS[row]
        self._brackets = brackets

    def rows(self, block: bytes) -> tuple[Sequence[SpecRow], int] | None:
        """The rows of a block of whole lines, one a line, that no check would complain about; and their turns."""
        import numpy as np

        if not block.startswith(b"{") or (self._brackets and b"[" in block) or (b"<" in block and _opens_a_token(block)):
            return None
        octets = np.frombuffer(block, np.uint8)
        # Two bytes as one number, at even and at odd places: half the work of comparing bytes.
        pairs = (np.frombuffer(block, np.uint16, len(block) // 2), np.frombuffer(block, np.uint16, (len(block) - 1) // 2, 1))

        def beside(pair: int, step: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
            """The bytes so many steps from each place of two bytes. A block neither begins nor ends with them."""
            return np.concatenate([octets[2 * np.flatnonzero(half == pair) + odd + step] for odd, half in enumerate(pairs)])

        if any((half == _ESCAPE_U).any() for half in pairs) and _escaped_ascii(block):
            return None
        # A key with blanks before its colon is one that the count below would not see.
        blanks = beside(_BLANK_COLON, -1)
        if (blanks == _QUOTE).any() or ((b"\t" in block or b"\r" in block or (blanks == _BLANK).any()) and has_spaced_key(block)):
            return None
        # Lines: each newline stands behind a row, and each but the last before one. The decoder would take them anywhere.
        ends = np.flatnonzero(octets == _NEWLINE)
        if (octets[ends - 1] != _CLOSING).any() or (octets[ends[:-1] + 1] != _OPENING).any():
            return None
        try:
            rows = cast(Sequence[SpecRow], self._decode(block))
        except BAD_JSON:
            return None
        if len(rows) != len(ends):
            return None
        # A typed decoder keeps the last of two equal keys in silence: as many keys as the rows need, so none stands twice.
        keys = sum(int(np.count_nonzero(half == _QUOTE_COLON)) for half in pairs)
        wanted, num_turns = self._clean(rows)
        if keys > wanted >= 0:
            keys -= int(np.count_nonzero(beside(_ESCAPED_QUOTE, 2) == _COLON))  # inside a text, where a quote is escaped
        return (rows, num_turns) if keys == wanted else None


def has_screen(row: type[SpecRow]) -> bool:
    """Whether rows of this type can be screened."""
    return row in _SCREENS


def _conversations(rows: Sequence[ChatRow]) -> tuple[int, int]:
    num_turns = 0
    for row in rows:
        turns = row.messages
        num_turns += len(turns)
        if turns and turns[0].role == "system":
            if not _shows_text(turns[0].content):
                return _CLOSER
            turns = turns[1:]
        if not turns or len(turns) & 1:
            return _CLOSER
        each = iter(turns)
        for user, assistant in zip(each, each, strict=True):
            question, answer = user.content, assistant.content
            if user.role != "user" or assistant.role != "assistant" or type(question) is not str or type(answer) is not str:
                return _CLOSER
            # Most texts begin with a visible ASCII character; the others are looked at.
            if not ("!" <= question < "\x7f" or _shows_text(question)) or not ("!" <= answer < "\x7f" or _shows_text(answer)):
                return _CLOSER
    return len(rows) + 2 * num_turns, num_turns


def _shows_text(content: object) -> bool:
    return isinstance(content, str) and not is_blank(content)


def _completions(rows: Sequence[CompletionRow]) -> tuple[int, int]:
    if any(is_blank(row.prompt) or is_blank(row.completion) for row in rows):
        return _CLOSER
    return 2 * len(rows), 2 * len(rows)


_Clean = Callable[[Sequence[Any]], tuple[int, int]]
"""(keys that the rows have, turns that they render to) of rows that no check would complain about; else _CLOSER."""
_CLOSER = (-1, 0)
_SCREENS: dict[type[SpecRow], _Clean] = {ChatRow: _conversations, CompletionRow: _completions}
