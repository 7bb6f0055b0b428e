"""The folder of a background chore: what it is to do (`chore.json`), and what came of it (`result.json`, written last)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.durable import replace_file
from store.paths import Home

SPEC = "chore.json"
RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoreDone:
    """How a chore ended. `message` is a sentence for people; `result` is what its function returned."""

    kind: str
    key: str
    ok: bool
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


def write_chore(folder: Path, home: Home, kind: str, spec: Mapping[str, Any]) -> None:
    """Make the folder with its spec. Raises OSError."""
    folder.mkdir(parents=True)
    text = json.dumps({"home": str(home.root), "kind": kind, "spec": dict(spec)}, ensure_ascii=False)
    replace_file(folder / SPEC, text, mode=0o600, durable=False)


def read_chore(folder: Path) -> tuple[Home, str, dict[str, Any]]:
    """(home, kind, spec) of the folder. Raises OSError, ValueError."""
    found = json.loads((folder / SPEC).read_text())
    return Home(Path(found["home"])), found["kind"], found["spec"]


def write_result(folder: Path, *, ok: bool, message: str, result: Mapping[str, Any]) -> None:
    """Leave what came of it."""
    text = json.dumps({"ok": ok, "message": message, "result": dict(result)}, ensure_ascii=False)
    replace_file(folder / RESULT, text, mode=0o600, durable=False)


def read_result(folder: Path, kind: str, key: str, why: str) -> ChoreDone:
    """What came of it; without a whole result, a failure for the reason `why`."""
    try:
        found = json.loads((folder / RESULT).read_text())
        return ChoreDone(kind=kind, key=key, ok=found["ok"], message=found["message"], result=found["result"])
    except (OSError, ValueError, KeyError):
        return ChoreDone(kind=kind, key=key, ok=False, message=f"{kind} left no result: {why}")
