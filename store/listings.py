"""The snapshot of jobs and drops that listings read: `caches/listing.json`, and `caches/ended.jsonl` for jobs that have ended.

A job that ends is added to the second file before the first is written without it: who reads the first file first misses
none. The newest ended jobs stand in both, so that somebody who waits for one job needs the first alone.
"""

import contextlib
import json
from collections.abc import Iterable
from typing import Any

from store.durable import lines_of, replace_file
from store.paths import Home


def write_listing(home: Home, jobs: Iterable[bytes], drops: Iterable[bytes]) -> None:
    """Replace the snapshot; each row is JSON. Raises OSError."""
    replace_file(home.listing, b'{"jobs":[' + b",\n".join(jobs) + b'],"drops":[' + b",\n".join(drops) + b"]}\n", durable=False)


def write_ended(home: Home, rows: Iterable[bytes]) -> None:
    """Make the file of ended jobs anew. Raises OSError."""
    replace_file(home.ended_listing, b"".join(row + b"\n" for row in rows), durable=False)


def add_ended(home: Home, rows: Iterable[bytes]) -> None:
    """Add jobs that have ended. Raises OSError; a repeat is harmless."""
    with open(home.ended_listing, "ab") as file:
        file.write(b"".join(row + b"\n" for row in rows))


def read_jobs(home: Home) -> list[dict[str, Any]] | None:
    """All jobs, oldest first; None where there is no snapshot."""
    try:
        listed = json.loads(home.listing.read_bytes())["jobs"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    rows = {row["id"]: row for row in listed}
    for line in lines_of(home.ended_listing):
        with contextlib.suppress(ValueError):  # a line that a full disk has torn: the daemon makes the file anew
            row = json.loads(line)
            rows[row["id"]] = row
    return [rows[id] for id in sorted(rows)]
