"""Writes the table of config keys in docs/user-guide.md from the schema: key, default, meaning, what is allowed, who may set it.

Usage: .venv/bin/python scripts/configtable.py [--check]      --check changes nothing and ends with 1 where the table is out of date.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from core.config import Config, leaves  # noqa: E402
from core.sections import Section  # noqa: E402

GUIDE = ROOT / "docs" / "user-guide.md"
HEAD = "| key | default | meaning | allowed | sidecar | needs a restart of |\n| --- | --- | --- | --- | --- | --- |\n"
CODE = re.compile(r'\{"[^{}]*(?:\{[^{}]*\})?[^{}]*\}|<\w+>[\w/]*')
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def rows() -> Iterator[str]:
    """One line of the table for each key of the schema."""
    for key, marks in leaves():
        field, default = _found(key)
        sidecar = "identity" if marks.get("identity") else "yes" if marks.get("sidecar") else ""
        meaning = CODE.sub(r"`\g<0>`", (field.description or "").replace("|", "\\|"))
        yield f"| `{key}` | `{json.dumps(default, ensure_ascii=False)}` | {meaning} | {_allowed(field)} | {sidecar} | {marks.get('restart', '')} |\n"


def _found(key: str) -> tuple[Any, Any]:
    """The field of a dotted key, and its default as JSON has it."""
    model: type[Section] = Config
    *sections, last = key.split(".")
    values: Any = Config().model_dump(mode="json")
    for name in sections:
        kind = model.model_fields[name].annotation
        assert isinstance(kind, type)
        model, values = kind, values[name]
    return model.model_fields[last], values[last]


def _allowed(field: Any) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    found = [f"{sign} {getattr(mark, name)}" for mark in field.metadata for name, sign in BOUNDS.items() if hasattr(mark, name)]
    return ", ".join(found)


def page(text: str) -> str:
    """The guide with its table as the schema has it."""
    before, head, rest = text.partition(HEAD)
    assert head, f"{GUIDE.name} has no table of the config's keys"
    _, blank, after = rest.partition("\n\n")
    return before + head + "".join(rows()).rstrip("\n") + blank + after


def main() -> int:
    """Write the table, or say that it is out of date."""
    text = GUIDE.read_text()
    wanted = page(text)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    GUIDE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
