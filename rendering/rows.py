"""Rows of accepted drops, with the group and the split that acceptance recorded.

An accepted drop holds `rows.jsonl.zst` (its bytes as given), `index.jsonl` (one IndexRow for each row that was taken;
quarantined rows have none) and, where its schema is the project's own, a copy of that spec as `spec.json` or `spec.py`.
Lines are physical, 1-based, split at "\\n" only: U+2028 and its kin may stand inside a JSON string.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import zstandard

from core.errors import ConfigError, IntegrityError
from core.splits import RowKey
from core.tasks import RowsOf
from rendering.rowtypes import UnpairedRow
from rendering.specs import BAD_JSON, SPECS, Message, Objective, Spec, SpecRow, ToolCall, Tools
from rendering.tooltext import arguments_of

ROWS = "rows.jsonl.zst"
INDEX = "index.jsonl"
OWN_SPECS = ("spec.json", "spec.py")
BOM = b"\xef\xbb\xbf"

Split = Literal["train", "dev", "gate"]


class IndexRow(msgspec.Struct, frozen=True):
    """One line of `index.jsonl`: where a row stands in its file, and what acceptance drew for it."""

    line: int
    group: str
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row that a job may train on or be judged by.

    `rejected` is the worse conversation of a pair or a correction, `label` whether a judged answer is a good one; None where
    the row says no such thing. `metadata` chooses rows for stages and is never trained on.
    """

    drop: str
    line: int
    group: str
    split: Split
    schema_id: str
    messages: list[Message]
    weight: float
    tools: Tools = ()
    objective: Objective = "sft"
    rejected: list[Message] | None = None
    label: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    profile: str = ""
    """Name and version of the profile that changed it; none is applied a second time."""


_decode_index = msgspec.json.Decoder(IndexRow).decode


def read_index(path: Path) -> list[IndexRow]:
    """The index of an accepted drop. Raises IntegrityError where it is missing or damaged."""
    return list(index_of(path))


def index_of(path: Path) -> Iterator[IndexRow]:
    """The same line by line, for an index that is not to lie in memory."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if line != b"\n":
                    yield _decode_index(line)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path}: {error}", hint="restore the drop from a backup, or drop the file again", code="INDEX_DAMAGED") from None


def read_rows(sources: Sequence[RowsOf]) -> list[Row]:
    """Rows of the drops in order, then by line. Rows of a group that a later drop holds again are left out.

    Raises IntegrityError where a drop is not the bytes that its source names.
    """
    indexes = [read_index(Path(source.folder, INDEX)) for source in sources]
    newest = {row.group: place for place, index in enumerate(indexes) for row in index}
    rows: list[Row] = []
    for place, (source, index) in enumerate(zip(sources, indexes, strict=True)):
        rows.extend(_rows_of(source, sorted((row for row in index if newest[row.group] == place), key=lambda row: row.line)))
    return rows


def rows_of(source: RowsOf) -> Iterator[Row]:
    """Every row of one drop that its index names, by line, read as it is asked for. Raises IntegrityError as `read_rows`, at the latest at the end."""
    return _rows_of(source, index_of(Path(source.folder, INDEX)))


def spec_of(source: RowsOf) -> Spec:
    """The spec of a drop's rows: one that lorad knows, else the copy that lies in the drop's folder.

    Raises IntegrityError where neither is there, or the copy is another spec.
    """
    if source.schema_id in SPECS:
        return SPECS[source.schema_id]
    hint = "restore the drop from a backup, or drop the file again"
    path = next((path for name in OWN_SPECS if (path := Path(source.folder, name)).is_file()), None)
    if path is None:
        raise IntegrityError(f"{source.folder} has rows of {source.schema_id!r}, and no copy of that spec", hint=hint, code="SPEC_DAMAGED")
    from rendering.ownspecs import load_file

    try:
        spec = load_file(path)
    except ConfigError as error:
        raise IntegrityError(error.what, hint=hint, code="SPEC_DAMAGED") from None
    if spec.id != source.schema_id:
        raise IntegrityError(f"{path} is the spec {spec.id!r}; the rows are of {source.schema_id!r}", hint=hint, code="SPEC_DAMAGED")
    return spec


def _rows_of(source: RowsOf, kept: Iterable[IndexRow]) -> Iterator[Row]:
    # `kept` is in order of its lines.
    # The gate has judged the columns; which ones its person declared is not known here.
    spec = spec_of(source).with_any_columns()
    wanted = iter(kept)
    index = next(wanted, None)
    for number, line in enumerate(_lines(source), start=1):
        if index is not None and index.line == number:
            row = _decoded(spec, line.removeprefix(BOM) if number == 1 else line, number, source)
            yield Row(
                drop=source.drop,
                line=number,
                group=index.group,
                split=index.split,
                schema_id=source.schema_id,
                messages=spec.messages(row),
                weight=row.weight,
                tools=spec.tools(row),
                objective=spec.objective,
                rejected=spec.rejected(row),
                label=row.label if isinstance(row, UnpairedRow) else None,
                metadata=row.metadata,
            )
            index = next(wanted, None)
    if index is not None:
        raise IntegrityError(
            f"{Path(source.folder, INDEX)} names {1 + sum(1 for _ in wanted)} lines that the drop does not have",
            hint="restore the drop from a backup, or drop the file again",
            code="INDEX_DAMAGED",
        )


def _decoded(spec: Spec, line: bytes, number: int, source: RowsOf) -> SpecRow:
    try:
        return spec.decode(line)
    except BAD_JSON as error:
        raise IntegrityError(
            f"line {number} of {Path(source.folder, ROWS)} is not a row of {spec.id}: {error}", hint="drop the file again", code="ROWS_DAMAGED"
        ) from None


def _lines(source: RowsOf) -> Iterator[bytes]:
    """Physical lines without "\\n"; checks the hash once all are read."""
    path = Path(source.folder, ROWS)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
            rest = b""
            while block := stream.read(1 << 18):
                digest.update(block)
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
            if rest:
                yield rest
    except (OSError, zstandard.ZstdError) as error:
        raise IntegrityError(f"{path}: {error}", hint="restore the drop from a backup, or drop the file again", code="ROWS_DAMAGED") from None
    if digest.hexdigest() != source.sha256:
        raise IntegrityError(
            f"{path} has SHA-256 {digest.hexdigest()}, its job names {source.sha256}",
            hint="restore the drop from a backup, or drop the file again",
            code="ROWS_DAMAGED",
        )


def row_key(spec: Spec, row: SpecRow, messages: Sequence[Message] | None = None) -> RowKey:
    """The conversation key of a row. Answers that are compared with one another share the key of their prompt."""
    messages = spec.messages(row) if messages is None else messages
    if (spec.other or spec.objective == "kto") and messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    return conversation_key(messages)


def conversation_key(messages: Sequence[Message]) -> RowKey:
    """What tells whether two rows are the same conversation: by its first user turn, and as a whole, calls included.

    Text is folded first (NFKC, case, blanks), so that a corrected answer or a retyped question keeps its group.
    """
    folded = [(message.role, _fold(message.content) + "".join(map(_folded_call, message.tool_calls))) for message in messages]
    opening = next((text for role, text in folded if role == "user"), None)
    whole = _hash("\x1e".join(f"{role}\x1f{text}" for role, text in folded))
    return RowKey(first=whole if opening is None else _hash(opening), whole=whole)


def _folded_call(call: ToolCall) -> str:
    # Ids are drawn anew by every exporter, and objects have no order.
    try:
        arguments = json.dumps(arguments_of(call), sort_keys=True, ensure_ascii=False)
    except RecursionError:
        arguments = call.arguments
    return f"\x1d{_fold(call.name)}\x1f{_fold(arguments)}"


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
