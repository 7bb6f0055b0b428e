"""A fast look at many rows at once: whether there is anything at all to look at closer.

A block of lines passes where every check of a row would have nothing to say: then its rows cost one decode. A block that
does not pass is judged row by row; so the screen may be too strict, and never too mild.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import cast

import msgspec

from rendering.rowtypes import ChatRow, CompletionRow
from rendering.specs import BAD_JSON, SpecRow
from validation.findings import is_blank

LEAST_BYTES = 4 << 10  # below this the screen costs more than it saves

# Every control token begins so, written plainly; and so may one that is written with escapes.
_opens_a_token = re.compile(rb"<[|/sbe\xef]").search
_escaped_ascii = re.compile(rb"\\u00[2-7]|\\u[fF][fF]5[cC]").search
_messages, _role = attrgetter("messages"), attrgetter("role")

_GOOD_ROLES: dict[tuple[str, ...], bool] = {}


class Screen:
    """Screens blocks of whole lines of one row type. `rows` gives None for a block that must be judged row by row.

    Args: brackets: control tokens of this base begin with "[" too.
    """

    def __init__(self, row: type[SpecRow], brackets: bool) -> None:
        self._decode = msgspec.json.Decoder(row).decode_lines
        self._first_key, self._clean = _SCREENS[row]
        self._border = b"}\n{" + self._first_key
        self._brackets = brackets

    def rows(self, block: bytes) -> Sequence[SpecRow] | None:
        """The rows of a block of whole lines, one a line, that no check would complain about."""
        import numpy as np

        if not block.startswith(b"{" + self._first_key) or (self._brackets and b"[" in block) or _opens_a_token(block) or _escaped_ascii(block):
            return None
        try:
            rows = cast(Sequence[SpecRow], self._decode(block))
        except BAD_JSON:
            return None
        # Lines: each newline stands between two rows or after the last. The decoder would also take two rows on a line.
        octets = np.frombuffer(block, dtype=np.uint8)
        num_lines = int(np.count_nonzero(octets == 0x0A))
        if num_lines != len(rows) or block.count(self._border) != len(rows) - 1:
            return None
        # A typed decoder keeps the last of two equal keys in silence: as many keys as the rows need, so none stands twice.
        quotes = octets[:-1] == 0x22
        quotes &= octets[1:] == 0x3A
        return rows if self._clean(rows) == int(np.count_nonzero(quotes)) else None


def has_screen(row: type[SpecRow]) -> bool:
    """Whether rows of this type can be screened."""
    return row in _SCREENS


def _conversations(rows: Sequence[ChatRow]) -> int:
    """Keys that the rows must have; -1 where a turn is out of order or shows nothing."""
    num_turns = 0
    for roles in {tuple(map(_role, turns)) for turns in map(_messages, rows)}:
        if not (_GOOD_ROLES[roles] if roles in _GOOD_ROLES else _good_roles(roles)):
            return -1
    for row in rows:
        num_turns += len(row.messages)
        for turn in row.messages:
            content = turn.content
            if type(content) is not str or (not "!" <= content[:1] <= "~" and is_blank(content)):
                return -1
    return len(rows) + 2 * num_turns


def _good_roles(roles: tuple[str, ...]) -> bool:
    turns = roles[1:] if roles[:1] == ("system",) else roles
    pairs = len(turns) // 2
    good = turns == ("user", "assistant") * pairs and pairs > 0
    if len(_GOOD_ROLES) < 1000:
        _GOOD_ROLES[roles] = good
    return good


def _completions(rows: Sequence[CompletionRow]) -> int:
    if any(is_blank(row.prompt) or is_blank(row.completion) for row in rows):
        return -1
    return 2 * len(rows)


_SCREENS: dict[type[SpecRow], tuple[bytes, Callable[[Sequence[object]], int]]] = {
    ChatRow: (b'"messages"', cast(Callable[[Sequence[object]], int], _conversations)),
    CompletionRow: (b'"prompt"', cast(Callable[[Sequence[object]], int], _completions)),
}
