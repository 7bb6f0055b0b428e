"""Where a release is, even where its bytes are not: in adapters/, or in what is left of it - a tombstone, the boxes' ledgers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UsageError
from core.wire import SWITCHES
from store.paths import Home
from store.releases import Release, read_releases
from store.vault import history_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A release by its id. `here` is None where its bytes are not on this box; `missing` then says why."""

    id: str
    adapter: str
    version: int
    here: Release | None = None
    missing: str = ""

    @classmethod
    def of(cls, release: Release) -> "Known":
        """A release that lies on this box."""
        return cls(id=release.id, adapter=release.adapter, version=release.version, here=release)


def find_marked(home: Home, mark: str) -> Known | None:
    """The release whose id begins with `mark`; None where nothing in this home has heard of it.

    Looks in adapters/, then at tombstones, then at what the boxes said was live. Raises UsageError RELEASE_AMBIGUOUS.
    """
    here = [Known.of(release) for release in read_releases(home) if release.id.startswith(mark)]
    return _one(here, mark) or _one(list(_buried(home, mark)), mark) or _one(list(_seen(history_of(home, None), mark)), mark)


def find_buried(home: Home, adapter: str, word: str) -> Known | None:
    """The version of an adapter (`v3`) that has gone and left a tombstone."""
    return next((one for one in _buried(home, "") if one.adapter == adapter and word == f"v{one.version}"), None)


def _one(found: Sequence[Known], mark: str) -> Known | None:
    ids = {one.id: one for one in found}
    if len(ids) > 1:
        names = ", ".join(f"{one.adapter}@v{one.version}" for one in ids.values())
        raise UsageError(f"{mark!r} begins the ids of several releases", hint=f"name one of {names}", code="RELEASE_AMBIGUOUS")
    return next(iter(ids.values()), None)


def _buried(home: Home, mark: str) -> Iterator[Known]:
    """Releases that retention or a person let go, by the tombstones that they left."""
    for path in sorted((home.root / "adapters").glob("*/*/v*.gone.json")):
        try:
            told: dict[str, Any] = json.loads(path.read_bytes())
            id, adapter, version = str(told["release"]), str(told["adapter"]), int(told["version"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if id.startswith(mark):
            missing = f"its bytes went on {str(told.get('gone_at'))[:10]}: {told.get('why')}"
            yield Known(id=id, adapter=adapter, version=version, missing=missing)


def _seen(history: Sequence[Mapping[str, Any]], mark: str) -> Iterator[Known]:
    """Releases that a box served, though this home neither has them nor remembers letting them go."""
    for entry in history:
        if entry["release"] and str(entry["release"]).startswith(mark):
            missing = f"{entry['target']} served it, and its bytes were never in this home, or a backup without them was restored"
            yield Known(id=str(entry["release"]), adapter=str(entry["alias"]), version=int(entry["version"] or 0), missing=missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time for which a target served a release; `until` is empty while it does."""

    target: str
    since: str
    until: str = ""
    followed_by: str = ""  # release that came after; empty: the base, or nothing yet


def spans_of(home: Home, release: Known) -> tuple[Span, ...]:
    """When a release was live, and where, by the word of the boxes; oldest first."""
    spans: list[Span] = []
    open_on: dict[str, str] = {}
    for entry in history_of(home, release.adapter):
        if entry["event"] not in SWITCHES:
            continue
        target, at, is_it = str(entry["target"]), str(entry["at"]), entry["release"] == release.id
        if is_it:
            open_on.setdefault(target, at)
        elif target in open_on:
            spans.append(Span(target=target, since=open_on.pop(target), until=at, followed_by=str(entry["release"] or "")))
    return (*spans, *(Span(target=target, since=since) for target, since in open_on.items()))
