"""Logs of lines that are cut into numbered parts by size: `journal.jsonl`, then `journal-000001.jsonl.zst`, `journal-000002…`.

The newest lines are in the file without a number. A part is compressed by a chore. Where the disk is full, lines are dropped
and counted instead of failing what they tell about; the count is written as a line of its own once there is room.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from store.durable import FULL, append_line, lines_of, sync_dir
from store.paths import Home

PART_BYTES = 16 << 20
PACKED = ".zst"


class LineLog:
    """One such log; this process is its only writer. `keep`: how many parts stay; None: all."""

    def __init__(self, path: Path, part_bytes: int = PART_BYTES, keep: int | None = None) -> None:
        self.path = path
        self.lost = 0  # lines dropped since the last one that was written
        self._part_bytes = part_bytes
        self._keep = keep

    def append(self, at: str, line: str) -> bool:
        """Add one line. False where the disk is full and it was dropped. Raises OSError for any other trouble."""
        try:
            if self.path.exists() and self.path.stat().st_size >= self._part_bytes:
                self._turn()
            if self.lost:
                append_line(self.path, json.dumps({"at": at, "action": "lines_lost", "lines": self.lost, "reason": "the disk was full"}))
                self.lost = 0
            append_line(self.path, line)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.lost += 1
            return False
        return True

    def _turn(self) -> None:
        parts = parts_of(self.path)
        number = 1 + max((number for number, _ in parts), default=0)
        os.rename(self.path, self.path.with_name(f"{self.path.stem}-{number:06d}{self.path.suffix}"))
        if self._keep is not None:
            for _, part in parts[: max(0, len(parts) + 1 - self._keep)]:
                part.unlink(missing_ok=True)


@cache
def line_log(path: Path, part_bytes: int = PART_BYTES, keep: int | None = None) -> LineLog:
    """The log at `path`, one for this process: what it has lost is counted in one place."""
    return LineLog(path, part_bytes, keep)


def parts_of(path: Path) -> list[tuple[int, Path]]:
    """(number, file) of the parts of a log, oldest first. Where a part lies there both ways, its packing was broken off: the plain one."""
    found: dict[int, Path] = {}
    for part in path.parent.glob(f"{path.stem}-*{path.suffix}*"):
        number = part.name.removeprefix(f"{path.stem}-").split(".")[0]
        if number.isdigit() and part.name.endswith((path.suffix, f"{path.suffix}{PACKED}")) and not (part.suffix == PACKED and int(number) in found):
            found[int(number)] = part
    return sorted(found.items())


def all_lines(path: Path) -> Iterator[str]:
    """The whole lines of a log from its first part on."""
    for _, part in parts_of(path):
        yield from _packed_lines(part) if part.suffix == PACKED else lines_of(part)
    yield from lines_of(path)


def _packed_lines(part: Path) -> Iterator[str]:
    import zstandard

    with open(part, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
            if line.endswith("\n"):
                yield line[:-1]


def has_plain_parts(path: Path) -> bool:
    """Whether a part waits to be compressed."""
    return any(part.suffix != PACKED for _, part in parts_of(path))


def compress_parts(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "compress": pack the plain parts of journal and status log; a part is there whole all the while."""
    import zstandard

    packed = 0
    for log in (home.journal, home.status_log):
        for _, part in parts_of(log):
            if part.suffix == PACKED:
                continue
            aside = part.with_name(f".{part.name}{PACKED}.part")
            with open(part, "rb") as source, open(aside, "wb") as file:
                zstandard.ZstdCompressor(level=10).copy_stream(source, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(aside, part.with_name(f"{part.name}{PACKED}"))
            sync_dir(part.parent)
            part.unlink(missing_ok=True)
            packed += 1
    return {"packed": packed}
