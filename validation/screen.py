"""A fast look at many rows at once: whether there is anything at all to look at closer.

A block of lines passes where every check of a row would have nothing to say: then its rows cost one decode. A block that
does not pass is judged row by row; so the screen may be too strict, and never too mild.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from rendering.rowtypes import ChatRow, CompletionRow
from rendering.specs import BAD_JSON, SpecRow
from validation.findings import is_blank

_NEWLINE, _QUOTE, _COLON, _BACKSLASH, _U, _OPENING, _CLOSING = b'\n":\\u{}'
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
        octets = np.frombuffer(block, dtype=np.uint8)
        before, after = octets[:-1], octets[1:]
        escapes = before == _BACKSLASH
        escapes &= after == _U
        if escapes.any() and _escaped_ascii(block):
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
        quotes = before == _QUOTE
        quotes &= after == _COLON
        keys = int(np.count_nonzero(quotes))
        wanted, num_turns = self._clean(rows)
        if keys > wanted >= 0:
            keys -= block.count(b'\\":')  # inside a text, where a quote is escaped
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
