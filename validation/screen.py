"""A fast look at many rows at once: whether there is anything at all to look at closer.

A block of lines passes where every check of a row would have nothing to say: then its rows cost one decode. A block that
does not pass is judged row by row; so the screen may be too strict, and never too mild.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from rendering.rowtypes import ChatRow, CompletionRow
from rendering.specs import BAD_JSON, SpecRow
from validation.control import escapes_a_token, opens_a_token
from validation.findings import is_blank

if TYPE_CHECKING:
    import numpy as np

    Octets = np.ndarray[Any, np.dtype[np.uint8]]

_NEWLINE, _QUOTE, _BACKSLASH, _U = b'\n"\\u'
LEAST_BYTES = 4 << 10  # of a block; below this the screen costs more than it saves
LEAST_FILE_BYTES = 4 << 20  # below this loading numpy costs more
FEW = 64  # "<" in a block: these are looked at one by one, in a tenth of the time of a search through the block
MOST_BACKSLASHES = 16  # in a row before a quote
LONGEST_OPENING = 16  # bytes that opens_a_token looks at


class Clean(NamedTuple):
    """What a block of rows holds that no check would complain about."""

    num_rows: int
    num_turns: int  # that they render to
    longest_row_bytes: int


class Conversations(NamedTuple):
    """The texts of a block of plain conversations, those of all rows in order, and how many each row has. None is empty."""

    texts: list[str]
    sizes: list[int]
    longest_row_bytes: int


class Screen:
    """Screens blocks of whole lines of one row type.

    Args: brackets: control tokens of this base begin with "[" too.
    """

    def __init__(self, row: type[SpecRow], brackets: bool) -> None:
        plain, self._said = _SCREENS[row]
        self._plain = msgspec.json.Decoder(plain).decode_lines
        self._typed = msgspec.json.Decoder(row).decode_lines
        self._brackets = brackets

    def clean(self, block: bytes) -> Clean | None:
        """What the block holds, one row a line; None for a block that must be judged row by row."""
        if not block.startswith(b"{") or (self._brackets and b"[" in block):
            return None
        try:
            rows = self._plain(block)
        except BAD_JSON:
            return None
        said = self._said(rows)
        # Most texts begin with a visible ASCII character; the others are looked at.
        if said is None or any(is_blank(text) for text in said.texts if not "!" <= text < "\x7f") or _opens_a_token(block):
            return None
        import numpy as np

        octets = np.frombuffer(block, np.uint8)
        longest = _longest_line(octets, len(rows))
        # A typed decoder keeps the last of two equal keys in silence: no more strings than the rows need, so none stands twice.
        if not longest or _num_strings(octets) != said.num_strings or (_has_code_point(octets) and escapes_a_token(block)):
            return None
        return Clean(len(rows), said.num_turns, longest)

    def conversations(self, block: bytes) -> Conversations | None:
        """The texts of a block of chat rows; None where a line is anything else than one plain conversation. Texts are not judged."""
        if not block.startswith(b"{"):
            return None
        try:
            rows = self._plain(block)
        except BAD_JSON:
            return None
        sizes = [len(row.messages) for row in rows]
        texts = [turn.content for row in rows for turn in row.messages]
        said = self._said(rows)
        if said is None or not all(texts):
            return None
        import numpy as np

        octets = np.frombuffer(block, np.uint8)
        longest = _longest_line(octets, len(rows))
        if not longest or _num_strings(octets) != said.num_strings:
            return None
        return Conversations(texts, sizes, longest)

    def rows(self, block: bytes) -> Sequence[SpecRow]:
        """The rows of a clean block."""
        return cast(Sequence[SpecRow], self._typed(block))


def has_screen(row: type[SpecRow]) -> bool:
    """Whether rows of this type can be screened."""
    return row in _SCREENS


# --- the bytes of a block


def _opens_a_token(block: bytes) -> bool:
    at = -1
    for _ in range(FEW):
        at = block.find(b"<", at + 1)
        if at < 0:
            return False
        if opens_a_token(block, at, at + LONGEST_OPENING):
            return True
    return opens_a_token(block, at) is not None


def _longest_line(octets: "Octets", num_rows: int) -> int:
    """The bytes of the longest line, without its newline; 0 where not every line is one row: the decoder would take newlines anywhere."""
    ends = (octets == _NEWLINE).nonzero()[0]
    if len(ends) != num_rows or octets[ends - 1].tobytes() != b"}" * num_rows or octets[ends[:-1] + 1].tobytes() != b"{" * (num_rows - 1):
        return 0
    return max(int(ends[0]), int((ends[1:] - ends[:-1]).max(initial=1)) - 1)


def _num_strings(octets: "Octets") -> int:
    """How many strings, keys among them, valid JSON holds: half of the quotes that no backslash escapes. -1: too many backslashes."""
    import numpy as np

    backslashes, quotes = octets == _BACKSLASH, octets == _QUOTE
    num_quotes, sign = 0, 1
    for step in range(MOST_BACKSLASHES):
        # Here are the quotes that at least so many backslashes stand before; an odd number escapes.
        here = int(np.count_nonzero(quotes))
        if not here:
            return num_quotes // 2
        num_quotes, sign = num_quotes + sign * here, -sign
        quotes = quotes[1:] & backslashes[: -1 - step]
    return -1


def _has_code_point(octets: "Octets") -> bool:
    r"""Whether a character is written as `\u` and its number."""
    import numpy as np

    return bool(np.count_nonzero((octets[:-1] == _BACKSLASH) & (octets[1:] == _U)))


# --- the plainest rows of a spec: of what may be left out they have no more than a name, so their strings can be counted


class _Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    content: str


# The decoder tells roles apart by type in the time that it would take to keep one as text.
class _System(_Turn, frozen=True, forbid_unknown_fields=True, gc=False, tag_field="role", tag="system"): ...


class _User(_Turn, frozen=True, forbid_unknown_fields=True, gc=False, tag_field="role", tag="user"): ...


class _Assistant(_Turn, frozen=True, forbid_unknown_fields=True, gc=False, tag_field="role", tag="assistant"): ...


class _Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    messages: list[_User | _Assistant | _System]
    id: str = ""


class _Completion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    prompt: str
    completion: str
    id: str = ""


class _Said(NamedTuple):
    texts: list[str]  # none of which may be blank
    num_turns: int
    num_strings: int  # of rows in which no key stands twice, keys among them


def _in_conversations(rows: Sequence[_Conversation]) -> _Said | None:
    texts: list[str] = []
    turns: list[_Turn] = []
    num_named = 0
    for row in rows:
        said = row.messages
        if len(said) < 2:
            return None
        if len(said) & 1:
            if type(said[0]) is not _System:
                return None
            texts.append(said[0].content)
            del said[0]
        turns += said
        if row.id:
            num_named += 1
    if list(map(type, turns)) != [_User, _Assistant] * (len(turns) // 2):
        return None
    texts += [turn.content for turn in turns]
    return _Said(texts, len(texts), len(rows) + 2 * num_named + 4 * len(texts))


def _in_completions(rows: Sequence[_Completion]) -> _Said:
    texts = [text for row in rows for text in (row.prompt, row.completion)]
    num_named = sum(1 for row in rows if row.id)
    return _Said(texts, len(texts), 2 * num_named + 2 * len(texts))


_SCREENS: dict[type[SpecRow], tuple[type[Any], Callable[[Sequence[Any]], _Said | None]]] = {
    ChatRow: (_Conversation, _in_conversations),
    CompletionRow: (_Completion, _in_completions),
}
