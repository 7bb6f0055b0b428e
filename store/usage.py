"""What lies in home, in bytes and inodes: by folder, and thing by thing for retention. Reads only."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import LoradError
from core.marks import Marks
from core.retention import Item, Part
from store.paths import Home
from store.releases import read_releases
from store.runs import EXIT, LOG, SPEC
from store.vault import read_marks

KEPT_OF_RUNS = frozenset({SPEC, EXIT, LOG, "verdict.json", "ranking.json"})  # these go last: they are small and tell what happened
WEIGHTS = frozenset({"checkpoints", "resume"})
RESERVE = "reserve"  # not what anybody looks for
BLOCK = 512  # bytes; the unit of st_blocks, whatever the file system's own


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes of home. `folders`: name of each entry of home -> bytes; a file with several names counts once."""

    bytes: int = 0
    inodes: int = 0
    folders: Mapping[str, int] = field(default_factory=dict)

    def most(self) -> tuple[str, int]:
        """The entry of home that holds most, and its bytes."""
        found = {name: num_bytes for name, num_bytes in self.folders.items() if name != RESERVE}
        return max(found.items(), key=lambda pair: pair[1], default=("", 0))


def count(home: Home) -> Usage:
    """Walk all of home. What vanishes meanwhile is left out."""
    seen: set[tuple[int, int]] = set()
    folders: dict[str, int] = {}
    for entry in _entries(home.root):
        total = 0
        for found in _walk(entry):
            key = (found.st_dev, found.st_ino)
            if key not in seen:
                seen.add(key)
                total += found.st_blocks * BLOCK
        folders[entry.name] = total
    return Usage(bytes=sum(folders.values()), inodes=len(seen), folders=folders)


def items(home: Home, adapters: Mapping[str, str]) -> list[Item]:
    """Everything that retention may think about. `adapters`: job -> its adapter, of the jobs that are known."""
    found: list[Item] = []
    for folder in _entries(home.root / "runs"):
        found += _of_job(home, Path(folder.path), adapters.get(folder.name, ""))
    marks: dict[str, Marks] = {}
    for release in read_releases(home):
        if release.adapter not in marks:
            marks[release.adapter] = _marks(home, release.adapter)
        expires_at = marks[release.adapter].of(release.version).expires_at
        found.append(_item(home, Part.RELEASE, [release.folder], release.id, release.adapter, version=release.version, expires_at=expires_at))
    for folder in _entries(home.rejected):
        found.append(_item(home, Part.REJECTED, [Path(folder.path)], folder.name))
    for folder in _entries(home.snapshots):
        found.append(_item(home, Part.SNAPSHOT, [Path(folder.path)], folder.name))
    return found


def _marks(home: Home, adapter: str) -> Marks:
    """What is written on an adapter's versions; damaged marks let nothing expire."""
    try:
        return read_marks(home, adapter)
    except LoradError:
        return Marks()


def _of_job(home: Home, folder: Path, adapter: str) -> Iterator[Item]:
    job, best = folder.name, _best_steps(folder)
    steps: dict[int, list[Path]] = {}
    parts: dict[Part, list[Path]] = {Part.RESUME: [], Part.RESULTS: []}
    for run in _entries(folder):
        for entry in _entries(Path(run.path)):
            if entry.name == "checkpoints":
                for checkpoint in _entries(Path(entry.path)):
                    steps.setdefault(_step(checkpoint.name), []).append(Path(checkpoint.path))
            elif entry.name == "resume":
                parts[Part.RESUME].append(Path(entry.path))
            elif entry.name not in KEPT_OF_RUNS:
                parts[Part.RESULTS].append(Path(entry.path))
    for step, paths in sorted(steps.items()):
        yield _item(home, Part.CHECKPOINT, paths, job, adapter, step=step, best=step in best)
    for part, paths in parts.items():
        if paths:
            yield _item(home, part, paths, job, adapter)
    others = {path for paths in (*steps.values(), *parts.values()) for path in paths}
    yield _item(home, Part.RUNS, [folder], job, adapter, without=others)


def _step(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def _best_steps(folder: Path) -> set[int]:
    """The steps that rankings of the job found to be the best."""
    found = set()
    for name, key in (("ranking.json", "best"), ("verdict.json", "candidate")):
        for path in folder.glob(f"*-rank/{name}"):
            try:
                candidate = str(json.loads(path.read_text()).get(key) or "")
            except (OSError, ValueError, AttributeError):
                continue
            found.add(_step(candidate.partition("-")[0]))
    return found


def _item(home: Home, part: Part, paths: list[Path], owner: str, adapter: str = "", *, without: Iterable[Path] = (), **fields: Any) -> Item:
    """An item with what its going frees: files that have names elsewhere too free nothing."""
    left_out = {str(path) for path in without}
    links: dict[tuple[int, int], list[int]] = {}
    at = 0.0
    for path in paths:
        for found in _walk(path, left_out):
            entry = links.setdefault((found.st_dev, found.st_ino), [0, found.st_nlink if not _is_folder(found) else 1, found.st_blocks * BLOCK])
            entry[0] += 1
        try:
            at = max(at, path.stat().st_mtime)
        except OSError:
            continue
    freed = [size for names, total, size in links.values() if names >= total]
    relative = tuple(str(path.relative_to(home.root)) for path in paths)
    when = datetime.fromtimestamp(at, UTC)
    return Item(part=part, paths=relative, owner=owner, adapter=adapter, bytes=sum(freed), inodes=len(freed), at=when, **fields)


def _is_folder(found: os.stat_result) -> bool:
    return (found.st_mode & 0o170000) == 0o040000


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name; none where it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _walk(start: os.DirEntry[str] | Path, left_out: set[str] | frozenset[str] = frozenset()) -> Iterator[os.stat_result]:
    """The state of `start` and of everything below it; links are not followed."""
    path = os.fspath(start)
    if path in left_out:
        return
    try:
        found = os.lstat(path)
    except OSError:
        return
    yield found
    if _is_folder(found):
        for entry in _entries(Path(path)):
            yield from _walk(entry, left_out)
