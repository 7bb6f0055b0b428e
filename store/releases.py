"""The releases on the training box: `adapters/<persona>/<domain>/v<N>/`, immutable, named by their manifest's hash."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.wire import Manifest
from store.codec import read_if_whole
from store.durable import move
from store.paths import Home
from store.wire import MANIFEST, release_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release on this box."""

    id: str
    adapter: str
    version: int
    folder: Path
    manifest: Manifest


def read_releases(home: Home) -> Iterator[Release]:
    """Every release with a whole manifest, by adapter and version."""
    for path in sorted((home.root / "adapters").glob(f"*/*/v*/{MANIFEST}")):
        manifest = read_if_whole(Manifest, path)
        if manifest is not None:
            yield Release(id=release_id(path.parent), adapter=manifest.adapter, version=manifest.version, folder=path.parent, manifest=manifest)


def gone_versions(home: Home) -> dict[str, int]:
    """Adapter -> the highest version that left a tombstone: no later one takes its number, its label or its marks."""
    highest: dict[str, int] = {}
    for stone in (home.root / "adapters").glob("*/*/v*.gone.json"):
        number = stone.name.removeprefix("v").removesuffix(".gone.json")
        adapter = str(stone.parent.relative_to(home.root / "adapters"))
        if number.isdigit():
            highest[adapter] = max(highest.get(adapter, 0), int(number))
    return highest


def place_release(home: Home, packed: Path, adapter: str, version: int, release: str) -> Path:
    """Rename a packed release to its place; a repeat after a crash finds it there and changes nothing."""
    destination = home.release(adapter, version)
    if not (destination.is_dir() and release_id(destination) == release):
        move(packed, destination)
    return destination
