"""The snapshot that listings read: `caches/listing.json`, beside it `caches/queued.jsonl` and `caches/ended.jsonl`.

A job that is queued, or ends, is added to its file before the first one is written: who reads the first file first misses
none. What stands in the first file goes before what stands in that of the queued, and what stands in that of the ended
goes before both. The newest jobs of both kinds stand in the first file too, so that somebody who waits for one job needs
that alone, as a rule. Why a queued job waits is the same for most of them, and changes often: it stands in the first file
once, and is put in by `read_jobs`.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core.queue import Waits
from store.durable import lines_of, replace_file
from store.paths import Home

DROP, WITHOUT = "_drop", "_without"  # keys of a queued job's line that are for `read_jobs` alone


def write_listing(home: Home, jobs: Iterable[bytes], drops: Iterable[bytes], waits: bytes = b"{}") -> None:
    """Replace the snapshot; each row is JSON, and so is `waits`, a `core.queue.Waits`. Raises OSError."""
    text = b'{"jobs":[' + b",\n".join(jobs) + b'],"drops":[' + b",\n".join(drops) + b'],"waits":' + waits + b"}\n"
    replace_file(home.listing, text, durable=False)


def write_rows(path: Path, rows: Iterable[bytes]) -> int:
    """Make the file of queued or ended jobs anew. Returns how many rows there are. Raises OSError."""
    part, count = path.with_name(f".{path.name}.new.part"), 0
    try:
        with open(part, "wb") as file:
            for row in rows:
                file.write(row + b"\n")
                count += 1
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def add_rows(path: Path, rows: Iterable[bytes]) -> None:
    """Add jobs to the file of the queued or the ended. Raises OSError; a repeat is harmless."""
    with open(path, "ab") as file:
        file.write(b"".join(row + b"\n" for row in rows))


def rows_in(path: Path) -> Iterator[bytes]:
    """The rows of the file of the queued or the ended. Raises OSError."""
    with open(path, "rb") as file:
        yield from (line[:-1] for line in file)


def read_jobs(home: Home) -> list[dict[str, Any]] | None:
    """All jobs, oldest first; None where there is no snapshot."""
    try:
        found = json.loads(home.listing.read_bytes())
        listed = found["jobs"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    waits, rows = Waits(**found.get("waits", {})), _read_rows(home.queued_listing)
    for row in rows.values():
        row["reason"] = _reason(row, waits)
    rows |= {row["id"]: row for row in listed}
    rows |= _read_rows(home.ended_listing)
    return [rows[id] for id in sorted(rows)]


def read_waits(home: Home) -> Waits:
    """What queued jobs wait for, as the snapshot has it; nothing where there is none."""
    try:
        return Waits(**json.loads(home.listing.read_bytes()).get("waits", {}))
    except (FileNotFoundError, ValueError):
        return Waits()


def _read_rows(path: Path) -> dict[str, dict[str, Any]]:
    rows = {}
    for line in lines_of(path):
        with contextlib.suppress(ValueError):  # a line that a full disk has torn: the daemon makes the file anew
            row = json.loads(line)
            rows[row["id"]] = row
    return rows


def _reason(row: dict[str, Any], waits: Waits) -> str:
    """Why a queued job waits; its line keeps only what a reader is to see."""
    drop, without = row.pop(DROP), row.pop(WITHOUT)
    return waits.reason(row["adapter"], drop, without)
