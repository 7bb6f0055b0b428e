"""journal.jsonl: every transition, append-only; hashes and ids only, never row text. Audit and rebuild aid, not the truth."""

import json
from datetime import datetime
from pathlib import Path

from store.durable import append_line


def write_entry(path: Path, now: datetime, action: str, **fields: object) -> None:
    """Append one line. Values must be plain JSON values."""
    entry = {"at": now.isoformat(), "action": action, **{key: value for key, value in fields.items() if value not in (None, "")}}
    append_line(path, json.dumps(entry, ensure_ascii=False))
