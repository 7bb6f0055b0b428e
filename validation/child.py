"""The gate as a process: one folder after another, each with its own answer.

One pass over a file hashes its bytes, writes their compressed copy and feeds the checks, so that all three have seen
the same bytes whatever happens to the file meanwhile. `result.json` is written last; a folder without it was not
finished, and asking again starts it afresh.
"""

import errno
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from core.errors import LoradError
from core.gate import ACCEPTED_DROP, GATE_RESULT, GATE_SPEC, GateResult, GateSpec
from core.splits import RowKey, draw_splits, group_rows
from rendering.rows import INDEX, ROWS, IndexRow, conversation_key, read_index
from rendering.specs import SPECS, Message, SpecRow
from store import codec
from store.durable import replace_file
from store.seals import seal
from validation.control import special_tokens
from validation.examination import Setting
from validation.findings import Level, Limits
from validation.report import REPORT_JSON, REPORT_MARKDOWN, Report
from validation.source import Identity, Source
from validation.validators import DataValidator

MEMORY_BYTES = 4 << 30
ZSTD_LEVEL = 3

log = logging.getLogger("lorad.gate")
Now = Callable[[], datetime]


class _Unfinished(LoradError):
    """No verdict: the machine or the moment was wrong, not the file."""


@dataclass(slots=True)
class _Keys:
    """Line and conversation key of every row, gathered during the pass."""

    lines: list[int] = field(default_factory=list)
    keys: list[RowKey] = field(default_factory=list)

    def add(self, line: int, row: SpecRow, messages: Sequence[Message]) -> None:
        self.lines.append(line)
        self.keys.append(conversation_key(messages))


def limit_resources() -> None:
    """Bound what hostile bytes can cost: 4 GiB of address space, no core files with row text."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(requests: Iterable[bytes], now: Now) -> None:
    """Answer each request (the path of a gate folder) until they end. Raises OSError where not even an answer can be written."""
    for request in requests:
        folder = Path(os.fsdecode(request.rstrip(b"\n")))
        started = time.monotonic()
        log.info("gate begins action=gate folder=%s", folder.name)
        try:
            result = gate(folder, now)
        except FileNotFoundError:
            if folder.is_dir():
                raise
            log.warning("gate folder is gone action=gate folder=%s", folder.name)  # whoever asked does not want the answer any more
            continue
        log.info("gate ends action=gate folder=%s verdict=%s code=%s seconds=%.2f", folder.name, result.verdict, result.code, time.monotonic() - started)


def gate(folder: Path, now: Now) -> GateResult:
    """Check the file that the folder's spec names. Writes reports, the accepted drop, and `result.json` last."""
    started = time.monotonic()
    spec: GateSpec | None = None
    try:
        _clear(folder)
        spec = codec.read(GateSpec, folder / GATE_SPEC)
        report = _checked(folder, spec)
        _keep_or_leave(folder, report)
        result = _verdict(spec.drop, report, now())
    except (OSError, MemoryError, LoradError) as error:
        log.exception("gate fails action=gate folder=%s", folder.name)
        shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)  # frees the space that the answer may need
        result = _failure(spec.drop if spec else folder.name, error, time.monotonic() - started, now())
    codec.write(folder / GATE_RESULT, result)
    return result


def _clear(folder: Path) -> None:
    for name in (GATE_RESULT, REPORT_JSON, REPORT_MARKDOWN):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)


def _checked(folder: Path, spec: GateSpec) -> Report:
    """Run the pass; in the end either report lies in the folder, or the whole accepted drop but for its seal."""
    drop = folder / ACCEPTED_DROP
    setting = Setting(limits=Limits(max_row_bytes=spec.max_row_bytes, max_file_bytes=spec.max_file_bytes))
    validator = DataValidator.with_special_tokens(_special_tokens(spec), setting)
    name, level = spec.name or Path(spec.file).name, _level(spec)
    keys = _Keys()
    with Source(Path(spec.file), setting.limits) as source:
        if spec.schema_id not in SPECS:
            return validator.unknown_schema(source, spec.schema_id, level, name)
        examination = validator.begin(source, spec.schema_id, level, keys.add)
        before = source.identity() if examination.begin() else None
        if before:
            drop.mkdir()
            with open(drop / ROWS, "wb") as copy:
                examination.read(_compressed(source.blocks(), copy))
        report = examination.end(name).report
        if before:
            _same(before, source.identity(), examination.scan.totals.size_bytes, Path(spec.file))
    if report.verdict == "accepted":
        _write_index(drop / INDEX, keys, spec.known_indexes)
    return report


def _level(spec: GateSpec) -> Level:
    try:
        return Level(spec.level)
    except ValueError:
        raise _Unfinished(f"level {spec.level!r} is unknown", hint=f"levels are {', '.join(Level)}", code="GATE_SPEC") from None


def _special_tokens(spec: GateSpec) -> list[str]:
    try:
        return special_tokens(Path(spec.tokenizer)) if spec.tokenizer else []
    except msgspec.MsgspecError as error:
        raise _Unfinished(f"{spec.tokenizer}: {error}", hint="pull the base model again: `lorad models pull`", code="TOKENIZER_DAMAGED") from None


def _compressed(blocks: Iterable[bytes], copy: BinaryIO) -> Iterator[bytes]:
    """The blocks as they are, each written to the compressed copy first."""
    with zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(copy, closefd=False) as writer:
        for block in blocks:
            writer.write(block)
            yield block


def _same(before: Identity, after: Identity, read_bytes: int, path: Path) -> None:
    if before != after or read_bytes != before.size_bytes:
        raise _Unfinished(
            f"{path} changed while it was read: {before.size_bytes:,} bytes before, {after.size_bytes:,} after, {read_bytes:,} read",
            hint="something still writes to it; it is checked again once it is quiet",
            code="FILE_CHANGED",
        )


def _write_index(path: Path, keys: _Keys, known_indexes: Sequence[str]) -> None:
    """Group and split of every row; groups that earlier drops know keep their split."""
    known = {row.group: row.split for index in known_indexes for row in read_index(Path(index))}
    groups = group_rows(keys.keys, known)
    splits = draw_splits(groups, known)
    encode = msgspec.json.encode
    replace_file(path, b"".join(encode(_index_row(line, group, splits[group])) + b"\n" for line, group in zip(keys.lines, groups, strict=True)))


def _index_row(line: int, group: str, split: str) -> IndexRow:
    return msgspec.convert({"line": line, "group": group, "split": split}, IndexRow)


def _keep_or_leave(folder: Path, report: Report) -> None:
    accepted = report.verdict == "accepted"
    if not accepted:
        shutil.rmtree(folder / ACCEPTED_DROP, ignore_errors=True)
    place = folder / ACCEPTED_DROP if accepted else folder
    replace_file(place / REPORT_MARKDOWN, report.to_markdown())
    replace_file(place / REPORT_JSON, report.to_json() + "\n")
    if accepted:
        seal(place)


def _verdict(drop: str, report: Report, ended_at: datetime) -> GateResult:
    worst = report.errors[0] if report.errors else None
    return GateResult(
        drop=drop,
        verdict=report.verdict,
        sha256=report.sha256,
        size_bytes=int(str(report.stats.get("bytes", 0))),
        rows=report.rows,
        codes=tuple(dict.fromkeys(finding.id for finding in report.errors)),
        message=worst.message if worst else "",
        hint=worst.hint if worst else "",
        seconds=round(report.seconds, 4),
        ended_at=ended_at,
    )


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def _failure(drop: str, error: OSError | MemoryError | LoradError, seconds: float, ended_at: datetime) -> GateResult:
    if isinstance(error, LoradError):
        code, message, hint = error.code, error.what, error.hint
    elif isinstance(error, MemoryError):
        code, message, hint = "OUT_OF_MEMORY", f"the gate needs more than {MEMORY_BYTES >> 30} GiB for this file", "split the file"
    elif isinstance(error, FileNotFoundError):
        code, message, hint = "FILE_VANISHED", f"{error.filename} is gone", "drop the file again"
    elif error.errno in _DISK_FULL:
        code, message, hint = "DISK_FULL", f"no space left to copy the drop: {error}", "free disk space; the drop is checked again by itself"
    else:
        code, message, hint = "IO_ERROR", str(error), "check the disk; the drop is checked again by itself"
    return GateResult(drop=drop, verdict="error", code=code, message=message, hint=hint, seconds=round(seconds, 4), ended_at=ended_at)
