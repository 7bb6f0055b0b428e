"""Rows as numbers: what a row is, what it asks and what it answers, each as one 64-bit hash of its folded text.

A million rows are three columns of eight bytes. Doubles are found by sorting them, never by sets of texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import xxhash

from rendering.rowtypes import ChatRow, CorrectionRow, UnpairedRow, VisionRow
from rendering.specs import Message
from validation.case import Case
from validation.context import Batch, Sheet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOLD = bytes(b" "[0] if byte in b"\t\n\r\x0b\x0c" else bytes((byte,)).lower()[0] for byte in range(256))  # ASCII, in one step
_FOLD_WIDE = _FOLD.translate(bytes(b" "[0] if 0x1C <= byte <= 0x1F else byte for byte in range(256)))  # as `str.split` has it
_ASCII = bytes(range(128))
_STOPS = b" .!?,;:\"'`*"
_digest = xxhash.xxh3_64_intdigest
_APART = "\0"  # between texts that are folded at once
_TURN, _PART = "\x1e", b"\x1d"  # separators that no text holds: control characters
_LINES, _ROWS, _ASKED, _ANSWERS = "fold.lines", "fold.rows", "fold.asked", "fold.answers"


class Key(NamedTuple):
    """Hashes of a row, blind to case and blanks. Rows are equal where `row` is; `id` and `metadata` do not count."""

    row: int
    asked: int  # all before the last answer: turns, tools, pictures, the output that is corrected; 0 where that is blank
    answer: int  # the last answer without its stops, or its tool calls; 0 where the row has none


def folded(text: str) -> bytes:
    """The text as UTF-8 in lower case, each run of blanks as one blank."""
    plain, table = text.encode(), _FOLD
    if len(plain) != len(text):
        table = _FOLD_WIDE
        wide = plain.translate(None, _ASCII).decode()
        # Quotes, dashes and small letters stay as they are, so that the bytes can be folded as those of ASCII are.
        if wide.casefold() != wide or wide.split() != [wide]:
            return " ".join(text.casefold().split()).encode()
    plain = plain.translate(table)
    while b"  " in plain:
        plain = plain.replace(b"  ", b" ")
    return plain.strip()


def folded_all(texts: Sequence[str]) -> list[bytes]:
    """What `folded` gives of each text; those of ASCII are folded at once, and so are the others."""
    is_narrow = [text.isascii() for text in texts]
    narrow = iter(_folded_at_once(list(compress(texts, is_narrow)), _FOLD))
    if all(is_narrow):
        return list(narrow)
    wide = iter(_folded_at_once([text for text, is_ascii in zip(texts, is_narrow, strict=True) if not is_ascii], _FOLD_WIDE))
    return [next(narrow if is_ascii else wide) for is_ascii in is_narrow]


def _folded_at_once(texts: Sequence[str], table: bytes) -> Iterable[bytes]:
    joined = _APART.join(texts)
    plain = joined.encode()
    if joined.count(_APART) != len(texts) - 1 or not _stays(plain):  # there is none, or one of them holds that character itself
        return map(folded, texts)
    return map(bytes.strip, _without_double_blanks(plain.translate(table)).split(_APART.encode()))


def _stays(plain: bytes) -> bool:
    """Whether nothing beyond ASCII has to be folded."""
    return not any(sign.isspace() or sign.casefold() != sign for sign in set(plain.translate(None, _ASCII).decode()))


def _without_double_blanks(plain: bytes) -> bytes:
    import numpy as np

    blanks = np.frombuffer(plain, np.uint8) == _FOLD[0x20]
    doubles = (np.flatnonzero(blanks[1:] & blanks[:-1]) + 1).tolist()
    return b"".join([plain[double + 1 : end] for double, end in pairwise((-1, *doubles, len(plain)))]) if doubles else plain


def key_of(case: Case) -> Key:
    """The hashes of one row."""
    messages, row = case.messages, case.row
    index = len(messages) - 1
    while index >= 0 and not (messages[index].role == "assistant" and messages[index].weight):
        index -= 1
    calls = b'"tool_calls"' in case.raw
    asked = folded(_text(messages[:index] if index >= 0 else messages, calls))
    answer = folded(_text(messages[index : index + 1], calls)) if index >= 0 else b""
    around, beside = b"", b""  # what belongs to the question; what belongs to the row alone
    if isinstance(row, ChatRow):
        around = msgspec.json.encode(row.tools) if row.tools else b""
    elif isinstance(row, VisionRow):
        around = "\n".join(name for _, name in pictures(row)).encode()
    elif isinstance(row, CorrectionRow):
        around = folded(row.model_output)
    elif isinstance(row, UnpairedRow):
        beside = b"good" if row.label else b"bad"
    elif case.rejected:
        beside = folded(_text(case.rejected, calls))
    if 0 <= index < len(messages) - 1:
        beside += folded(_text(messages[index + 1 :], calls))
    digest = _digest
    asked_digest = digest(asked + _PART + around if around else asked)
    plain = answer.strip(_STOPS)
    # The question's hash is the seed of the row's: its text is hashed once.
    row_digest = digest(answer + _PART + beside if beside else answer, asked_digest)
    return Key(row_digest, asked_digest if asked else 0, digest(plain or answer) if answer else 0)


def _plain_keys(texts: Sequence[str]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """The same of plain conversations, which have nothing beside their texts: all keys `row`, all `asked`, all `answer`.

    Args: texts: of each conversation all before the last answer, then that answer.
    """
    plain = folded_all(texts)
    questions, answers = plain[::2], plain[1::2]
    asked = list(map(_digest, questions))
    told = [_digest(answer.strip(_STOPS) or answer) if answer else 0 for answer in answers]
    rows = list(map(_digest, answers, asked))
    return rows, [digest if question else 0 for digest, question in zip(asked, questions, strict=True)], told


def pictures(row: VisionRow) -> Iterator[tuple[str, str]]:
    """(JSON path, path as it is written) of the pictures of a row: those of the list, then those that stand in parts."""
    for index, name in enumerate(row.images):
        yield f"$.images[{index}]", name
    for index, turn in enumerate(row.messages):
        for number, part in enumerate(turn.content if isinstance(turn.content, list) else ()):
            if part.image:
                yield f"$.messages[{index}].content[{number}].image", part.image


def _text(messages: list[Message], calls: bool) -> str:
    if not calls:
        return messages[0].content if len(messages) == 1 else _TURN.join([message.content for message in messages])
    parts = []
    for message in messages:
        parts.append(message.content)
        parts += [f"{call.name}\x1f{call.arguments}" for call in message.tool_calls]
    return _TURN.join(parts)


def fold(batch: Batch, sheet: Sheet) -> None:
    """Write the keys of a batch, once, however many checks ask for them."""
    lines = sheet.column(_LINES)
    if len(lines) >= sheet.num_rows:
        return
    if batch.plain:
        lines.extend(batch.plain.lines)
        keys: Sequence[Sequence[int]] = _plain_keys([text for row in batch.plain.rows for text in (_TURN.join(row[:-1]), row[-1])])
    else:
        lines.extend([case.line for case in batch.cases])
        plain = _plain_keys([text for case in batch.cases if case.plain for text in (_TURN.join(case.plain[:-1]), case.plain[-1])])
        plain_keys = zip(*plain, strict=True)
        keys = list(zip(*[next(plain_keys) if case.plain else key_of(case) for case in batch.cases], strict=True))
    for name, values in zip((_ROWS, _ASKED, _ANSWERS), keys, strict=True):
        sheet.column(name).extend(values)


@dataclass(frozen=True, slots=True)
class Folded:
    """The keys of all rows in their order: four arrays of uint64 of one length."""

    lines: "NDArray[np.uint64]"
    rows: "NDArray[np.uint64]"
    asked: "NDArray[np.uint64]"
    answers: "NDArray[np.uint64]"

    @classmethod
    def of(cls, sheet: Sheet) -> "Folded":
        """What `fold` has written."""
        return cls(*(column(sheet, name) for name in (_LINES, _ROWS, _ASKED, _ANSWERS)))


def column(sheet: Sheet, name: str) -> "NDArray[np.uint64]":
    """A column of a sheet as an array; empty where nothing was written."""
    import numpy as np

    return np.array(sheet.column(name), dtype=np.uint64)
