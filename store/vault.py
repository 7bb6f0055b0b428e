"""The vault: every version of every adapter, what people wrote on them, and how a word names one.

`resolve` is the one way in which a command finds a release: by `persona/domain@v3`, `@v1.3.0`, `@latest`, `@live`, or the
beginning of its id. What is live is what the first target's ledger says.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import IntegrityError, UsageError
from core.marks import Marks
from core.names import parse_adapter
from core.wire import SWITCHES
from store.codec import dump, parse
from store.durable import lines_of, replace_file
from store.paths import Home
from store.releases import Release, read_releases

MARKS = "marks.json"
ID = re.compile(r"[0-9a-f]{6,64}")
NUMBER = re.compile(r"v?([1-9]\d{0,8})")


def history_of(home: Home, adapter: str | None) -> list[dict[str, Any]]:
    """The lines of live.jsonl in order, of one adapter or of all: {at, target, alias, event, release, version, code, reason}."""
    entries = [json.loads(line) for line in lines_of(home.live)]
    return [entry for entry in entries if adapter in (None, entry["alias"])]


def live_of(home: Home) -> dict[str, str | None]:
    """Adapter -> live release by the first target's ledger, from the merged history; None is the base."""
    live: dict[str, str | None] = {}
    first: str | None = None
    for entry in history_of(home, None):
        first = first or entry["target"]
        if entry["target"] == first and entry["event"] in SWITCHES:
            live[entry["alias"]] = entry["release"]
    return live


def marks_path(home: Home, adapter: str) -> Path:
    """Where the marks of an adapter's versions lie."""
    return home.root / "adapters" / adapter / MARKS


def read_marks(home: Home, adapter: str) -> Marks:
    """The marks of an adapter's versions; empty ones where nobody wrote any. Raises IntegrityError for a damaged file."""
    path = marks_path(home, adapter)
    try:
        return parse(Marks, path.read_bytes())
    except FileNotFoundError:
        return Marks()
    except ValueError:
        raise IntegrityError(
            f"{path} is not whole", hint="bring it back from a backup, or move it away: labels then count as never given", code="MARKS_DAMAGED"
        ) from None


def write_marks(home: Home, adapter: str, marks: Marks) -> None:
    """Replace the marks of an adapter's versions. Durable. Written by the daemon alone."""
    replace_file(marks_path(home, adapter), dump(marks, indent=1) + "\n")


def releases_of(home: Home, adapter: str) -> list[Release]:
    """The releases of one adapter that lie on this box, by version."""
    return sorted((release for release in read_releases(home) if release.adapter == adapter), key=lambda release: release.version)


def resolve(home: Home, name: str) -> Release:
    """The release that `name` names: `adapter@word` (see `choose`), an adapter alone (its live release, else its newest), or
    the first 6 or more digits of a release id.

    Raises UsageError RELEASE_UNKNOWN, RELEASE_AMBIGUOUS, ADAPTER_NAME, with what there is instead in the hint.
    """
    adapter, at, word = name.partition("@")
    if at:
        return choose(home, parse_adapter(adapter, shared=True), word)
    if ID.fullmatch(name):
        found = [release for release in read_releases(home) if release.id.startswith(name)]
        if found:
            return _only(found, name)
    adapter = parse_adapter(name, shared=True)
    return choose(home, adapter, "live" if live_of(home).get(adapter) else "latest")


def choose(home: Home, adapter: str, word: str) -> Release:
    """The release of one adapter by a word: v3 or 3, a label such as v1.3.0, latest, live, or the beginning of its id. Raises UsageError."""
    found = releases_of(home, adapter)
    version = _version(home, adapter, word, found)
    for release in found:
        if release.version == version:
            return release
    beginning = [release for release in found if ID.fullmatch(word) and release.id.startswith(word)]
    if beginning:
        return _only(beginning, word)
    known = ", ".join(f"v{release.version}" for release in found) or "none"
    gone = _gone(home, adapter, version)
    hint = gone or f"releases of {adapter} on this box: {known}"
    raise UsageError(f"{adapter} has no release {word!r}", hint=hint, code="RELEASE_UNKNOWN")


def _version(home: Home, adapter: str, word: str, found: list[Release]) -> int | None:
    if word == "latest":
        return found[-1].version if found else None
    if word == "live":
        live = live_of(home).get(adapter)
        if live is None:
            raise UsageError(f"{adapter} serves the base model", hint=f"name a version: `lorad adapters show {adapter}` lists them", code="RELEASE_UNKNOWN")
        return next((release.version for release in found if release.id == live), None)
    if number := NUMBER.fullmatch(word):
        return int(number[1])
    return read_marks(home, adapter).labels.get(word)


def _only(found: list[Release], word: str) -> Release:
    if len(found) > 1:
        names = ", ".join(f"{release.adapter}@v{release.version}" for release in found)
        raise UsageError(f"{word!r} begins the ids of several releases", hint=f"name one of {names}", code="RELEASE_AMBIGUOUS")
    return found[0]


def _gone(home: Home, adapter: str, version: int | None) -> str:
    """What the tombstone of a version says; empty where there is none."""
    stone = home.release(adapter, version or 0)
    try:
        told: Mapping[str, Any] = json.loads(stone.with_name(f"{stone.name}.gone.json").read_text())
    except (OSError, ValueError):
        return ""
    return f"v{version} went on {str(told.get('gone_at'))[:10]}: {told.get('why')}"
