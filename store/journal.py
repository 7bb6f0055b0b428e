"""journal.jsonl: every transition, append-only; hashes and ids only, never row text. Audit and rebuild aid, not the truth.

It is cut into numbered parts that stay, compressed; `entries` reads them all. On a full disk lines are dropped and counted.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from store.rotation import all_lines, line_log


def write_entry(path: Path, now: datetime, action: str, **fields: object) -> None:
    """Append one line. Values must be plain JSON values. Raises OSError, but not for a full disk."""
    at = now.isoformat()
    entry = {"at": at, "action": action, **{key: value for key, value in fields.items() if value not in (None, "")}}
    line_log(path).append(at, json.dumps(entry, ensure_ascii=False))


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, oldest first, parts included. A line that is not JSON is left out."""
    for line in all_lines(path):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
