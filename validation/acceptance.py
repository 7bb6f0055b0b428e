"""From a request of the gate to what it leaves: the report alone, or the whole accepted drop but for its seal.

One pass over a file hashes its bytes, writes their compressed copy and feeds the checks, so that all three have seen
the same bytes whatever happens to the file meanwhile. A drop that was accepted before is read from its own sealed rows.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from core.errors import LoradError
from core.gate import ACCEPTED_DROP, QUARANTINE, GateSpec, KnownDrop
from core.splits import RowKey, draw_splits, group_rows
from rendering.rows import INDEX, ROWS, IndexRow, read_index, row_key
from rendering.specs import SPECS, Message, Spec, SpecRow
from store.bases import TOKENIZER
from store.durable import replace_file
from validation.bundle import rows_file, unread
from validation.context import Known, Sheet, Surroundings
from validation.control import special_tokens
from validation.examination import Examined, Setting
from validation.findings import Finding, Level, Limits, Severity
from validation.knowngroups import Acquaintances, drops_of
from validation.quarantine import num_quarantined, put_aside, quarantine_lines, without
from validation.report import Report
from validation.source import Identity, Source
from validation.validators import DataValidator

ZSTD_LEVEL = 3
BLOCK_BYTES = 1 << 20
PLAIN_ROWS = "rows.jsonl"  # in the gate folder: the rows of a drop that was accepted before


class UnfinishedError(LoradError):
    """No verdict: the machine or the moment was wrong, not the file."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate says of a file. `drop/` lies in the gate folder where the report's verdict is accepted."""

    report: Report
    objective: str = "sft"
    quarantined: int = 0
    index: tuple[IndexRow, ...] = ()  # of a drop that was not accepted before
    new_groups: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return int(str(self.report.stats.get("bytes", 0)))


@dataclass(slots=True)
class _Keys:
    """Line and conversation key of every row, gathered during the pass."""

    spec: Spec
    lines: list[int] = field(default_factory=list)
    keys: list[RowKey] = field(default_factory=list)

    def add(self, line: int, row: SpecRow, messages: Sequence[Message]) -> None:
        self.lines.append(line)
        self.keys.append(row_key(self.spec, row, messages))

    def num_with(self, aside: Mapping[int, set[str]]) -> int:
        """How many rows are known: these, and those that were put aside."""
        return len(self.lines) + (len(aside.keys() - set(self.lines)) if aside else 0)


def judge(folder: Path, spec: GateSpec, met: Acquaintances | None = None) -> Judged:
    """Check what the spec names; in the end either `drop/` lies in `folder` or nothing does. Raises LoradError, OSError.

    Args: met: what this process remembers of earlier drops.
    """
    level, name = _level(spec), spec.name or Path(spec.file).name
    file, obstacle = Path(spec.file), ""
    if spec.accepted:
        file = _plain_rows(Path(spec.accepted), folder)
    elif stat.S_ISDIR(file.lstat().st_mode):
        file, obstacle = rows_file(file)
        name = f"{name}/{file.name}" if not obstacle else name
    if obstacle:
        return Judged(unread(name, spec.schema_id, level, obstacle))
    specs = SPECS if not spec.specs else _specs(tuple(sorted(spec.specs.items())), _marks(spec.specs.values()))
    validator = DataValidator.with_special_tokens(_special_tokens(spec), _setting(spec), specs)
    with Source(file, validator.setting.limits) as source:
        if spec.schema_id not in specs:
            return Judged(validator.unknown_schema(source, spec.schema_id, level, name))
        return _Pass(folder / ACCEPTED_DROP, spec, specs[spec.schema_id], validator, met or Acquaintances()).judge(source, level, name)


class _Pass:
    """One file of a known schema on its way into an accepted drop."""

    def __init__(self, drop: Path, asked: GateSpec, spec: Spec, validator: DataValidator, met: Acquaintances) -> None:
        self._drop, self._asked, self._spec, self._validator, self._met = drop, asked, spec, validator, met
        self._index: tuple[IndexRow, ...] = ()
        self._new_groups = 0

    def judge(self, source: Source, level: Level, name: str) -> Judged:
        """The report, and `drop/` where it accepts."""
        asked, keys = self._asked, _Keys(self._spec)
        examination = self._validator.begin(source, self._spec.id, level, None if asked.accepted else keys.add, asked.columns)
        before = source.identity() if examination.begin() else None
        if before:
            self._drop.mkdir()
            if asked.accepted:
                examination.read(source.blocks())
            else:
                with open(self._drop / ROWS, "wb") as copy:
                    examination.read(_compressed(source.blocks(), copy))
        examined = examination.end(name)
        if before:
            _same(before, source.identity(), examination.scan.totals.size_bytes, source.path)
        report, aside = examined.report, put_aside(examined, asked.quarantine_share) if asked.quarantine_share else {}
        if aside:
            report = without(report, aside)
        if not asked.accepted and report.verdict == "accepted" and (lost := report.rows - keys.num_with(aside)):
            report = replace(report, findings=(_lost(lost, self._spec.id), *report.findings))
        if report.verdict == "accepted":
            self._write(examined, keys, aside, source.path)
        return Judged(report, self._spec.objective, len(aside), self._index, self._new_groups)

    def _write(self, examined: Examined, keys: _Keys, aside: Mapping[int, set[str]], file: Path) -> None:
        """Everything of the accepted drop but its rows, reports and seal."""
        asked = self._asked
        if not asked.accepted:
            self._index = tuple(self._drawn(keys, aside))
            _write_index(self._drop / INDEX, self._index)
            if self._spec.file:
                shutil.copyfile(self._spec.file, self._drop / f"spec{Path(self._spec.file).suffix}")
        elif num_quarantined(Path(asked.accepted, QUARANTINE)) != len(aside):
            _write_index(self._drop / INDEX, (row for row in read_index(Path(asked.accepted, INDEX)) if row.line not in aside))
        if aside:
            with Source(file, self._validator.setting.limits) as source:
                told = b"".join(quarantine_lines(source.blocks(), self._validator.setting.limits, aside))
            replace_file(self._drop / QUARANTINE, told)
        if examined.report.level is Level.DEEP and examined.surveyed:
            self._sign(examined.surveyed.sheet)

    def _drawn(self, keys: _Keys, aside: Mapping[int, set[str]]) -> Iterator[IndexRow]:
        """Group and split of every row that is kept; groups that earlier drops know keep their split."""
        kept = [(line, key) for line, key in zip(keys.lines, keys.keys, strict=True) if line not in aside]
        known = self._met.splits_of(self._asked, list({group for _, key in kept for group in (key.first, key.whole)}))
        groups = group_rows([key for _, key in kept], known)
        splits = draw_splits(groups, known)
        self._new_groups = len(splits.keys() - known.keys())
        return (_index_row(line, group, splits[group]) for (line, _), group in zip(kept, groups, strict=True))

    def _sign(self, sheet: Sheet) -> None:
        """Write what later drops are compared with: it was worked out on the way."""
        from validation.signatures import write_signatures

        names = (ROWS, INDEX) if self._asked.accepted else ()
        borrowed = [self._drop / name for name in names if not (self._drop / name).exists()]
        for path in borrowed:
            os.link(Path(self._asked.accepted, path.name), path)
        write_signatures(self._drop, self._spec.with_any_columns(), sheet)
        for path in borrowed:
            path.unlink()


def _lost(count: int, schema_id: str) -> Finding:
    """Rows that can be neither trained on nor blamed: a check that is off would have named them. None vanishes in silence."""
    return Finding(
        id="ROWS_LOST",
        severity=Severity.ERROR,
        name="drop.rows_lost",
        count=count,
        message=f"{count:,} rows are not rows of {schema_id}, and the checks that would say why are turned off",
        why="they would be missing from the training without a word",
        hint="turn the checks of the schema (S, J, F) on again in the profile",
    )


def _index_row(line: int, group: str, split: str) -> IndexRow:
    return msgspec.convert({"line": line, "group": group, "split": split}, IndexRow)


def _write_index(path: Path, index: Iterable[IndexRow]) -> None:
    replace_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in index), durable=False)  # the seal makes it so


# --- what is asked, made ready


def _level(spec: GateSpec) -> Level:
    try:
        return Level(spec.level)
    except ValueError:
        raise UnfinishedError(f"level {spec.level!r} is unknown", hint=f"levels are {', '.join(Level)}", code="GATE_SPEC") from None


def _setting(spec: GateSpec) -> Setting:
    return Setting(
        limits=Limits(max_row_bytes=spec.max_row_bytes, max_file_bytes=spec.max_file_bytes),
        around=Surroundings(
            base=spec.base,
            max_length=spec.max_length,
            max_overlong_share=spec.max_overlong_share,
            references=spec.references,
            embedder=spec.embedder,
            known=tuple(Known(folder=drop.folder, schema_id=drop.schema_id, sha256=drop.sha256) for drop in _compared(spec)),
            limits={check: dict(limits) for check, limits in spec.limits.items()},
        ),
        off=frozenset(spec.off),
        profile=spec.profile,
        processes=spec.processes,
        keep_rows=spec.quarantine_share > 0,
    )


def _compared(spec: GateSpec) -> tuple[KnownDrop, ...]:
    """The earlier drops that rows are compared with, which the level deep alone does."""
    return drops_of(spec) if spec.level == Level.DEEP else ()


def _marks(files: Iterable[str]) -> tuple[int, ...]:
    return tuple(Path(file).stat().st_mtime_ns for file in files)


@lru_cache(maxsize=4)
def _specs(entries: tuple[tuple[str, str], ...], marks: tuple[int, ...]) -> Mapping[str, Spec]:
    """lorad's specs and the project's own; `marks` are the times of their files, so that an edited one is read again."""
    from rendering.ownspecs import load_specs

    return load_specs(dict(entries), Path())


def _special_tokens(spec: GateSpec) -> list[str]:
    if not spec.base:
        return []
    path = Path(spec.base, TOKENIZER)
    try:
        return _special_tokens_of(path, path.stat().st_mtime_ns)
    except (msgspec.MsgspecError, FileNotFoundError) as error:
        raise UnfinishedError(f"{path}: {error}", hint="pull the base model again: `lorad models pull`", code="TOKENIZER_DAMAGED") from None


@lru_cache(maxsize=4)
def _special_tokens_of(path: Path, mark: int) -> list[str]:
    return special_tokens(path)


# --- bytes


def _plain_rows(rows: Path, folder: Path) -> Path:
    """The rows of an accepted drop as a file."""
    plain = folder / PLAIN_ROWS
    try:
        with open(rows / ROWS, "rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as stream, open(plain, "wb") as out:
            shutil.copyfileobj(stream, out, BLOCK_BYTES)
    except zstandard.ZstdError as error:
        raise UnfinishedError(f"{rows / ROWS}: {error}", hint="restore the drop from a backup, or drop the file again", code="ROWS_DAMAGED") from None
    return plain


def _compressed(blocks: Iterable[bytes], copy: BinaryIO) -> Iterator[bytes]:
    """The blocks as they are, each written to the compressed copy first."""
    with zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(copy, closefd=False) as writer:
        for block in blocks:
            writer.write(block)
            yield block


def _same(before: Identity, after: Identity, read_bytes: int, path: Path) -> None:
    if before != after or read_bytes != before.size_bytes:
        raise UnfinishedError(
            f"{path} changed while it was read: {before.size_bytes:,} bytes before, {after.size_bytes:,} after, {read_bytes:,} read",
            hint="something still writes to it; it is checked again once it is quiet",
            code="FILE_CHANGED",
        )
