"""Scans the inbox: which entries there are, how quiet they have been, and what can never be a drop.

A walk lists every folder and keeps the oldest names of each; 100,000 names take a quarter of a second, so that walks are
spaced by what they cost. Between two walks only the oldest of the kept names are looked at, as many as a tick can claim.
"""

import fcntl
import heapq
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.facts import Entry
from core.names import DEFAULT_ADAPTER, is_part
from daemon.clock import monotonic_s, wall_s
from store.drops import sidecar_name

log = logging.getLogger(__name__)

MAX_LOOKED_AT = 10_000  # entries of a folder that was not renamed into place; how quiet it is hangs on these
TAIL_BYTES = 8 << 20  # a last line longer than this counts as not parsable; the gate refuses rows over 4 MiB anyway
MAX_ENTRIES = 256  # looked at in one tick, so that a burst does not hold the tick for long
MAX_KEPT = 4000  # names of a folder that are kept between two walks
CHEAP_S = 0.005  # a walk that takes no longer needs no rest
WALK_SHARE = 0.1  # of the time goes into longer ones at most


@dataclass(slots=True)
class _Watched:
    """What was last seen of an entry."""

    mark: tuple[int, int, int]  # size, mtime, inode
    since_s: float  # monotonic
    parses: bool | None = None


@dataclass(slots=True)
class _Walked:
    """What the last walk found: of each adapter the oldest (mtime, path, problem), and how many there were."""

    kept: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)  # of personas and domains
    num_entries: int = 0
    at_s: float = float("-inf")
    cost_s: float = 0.0


class Inbox:
    """Remembers between scans how long each entry has been quiet."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._watched: dict[str, _Watched] = {}
        self._renamed: set[str] = set()
        self._walked = _Walked()
        self._first = 0  # of the kept names, in turn, that is looked at
        self._is_wanted = True

    @property
    def folders(self) -> set[Path]:
        """The folders of personas and domains that the last walk found."""
        return self._walked.folders

    @property
    def num_entries(self) -> int:
        """How many entries the last walk found that are not left alone."""
        return self._walked.num_entries

    def scan(self, renamed: set[str], settle_s: float, *, is_due: bool = True) -> tuple[Entry, ...]:
        """The oldest entries that may be drops, those of several adapters by turns. Reads the last line of files that have
        been quiet for `settle_s`.

        Args: renamed: paths that were renamed into place. is_due: whether anything may have come since the last walk.
        """
        self._renamed |= renamed
        self._is_wanted |= is_due or bool(renamed)
        rest_s = self._walked.cost_s / WALK_SHARE if self._walked.cost_s > CHEAP_S else 0.0
        if self._is_wanted and (monotonic_s() - self._walked.at_s >= rest_s or not any(self._walked.kept.values())):
            self._walk()
        ordered = self._in_turn()
        if self._first >= len(ordered):
            self._first = 0
        looked = ordered[self._first : self._first + MAX_ENTRIES]
        entries = [entry for adapter, path, problem in looked if (entry := self._look(adapter, path, problem, settle_s)) is not None]
        if len(ordered) > MAX_ENTRIES and not any(entry.problem or entry.renamed or entry.parses for entry in entries):
            self._first += MAX_ENTRIES  # nothing here can be taken yet: it shall not hide what lies behind
        return tuple(entries)

    def _in_turn(self) -> list[tuple[str, str, str]]:
        """(adapter, path, problem): the oldest of each adapter first, then the second oldest, as far as is looked at."""
        most = self._first + 2 * MAX_ENTRIES
        kept = self._walked.kept.items()
        ranked = ((rank, mtime, adapter, path, problem) for adapter, found in kept for rank, (mtime, path, problem) in enumerate(found[:most]))
        return [(adapter, path, problem) for _, _, adapter, path, problem in sorted(ranked)]

    def _look(self, adapter: str, path: str, problem: str, settle_s: float) -> Entry | None:
        try:
            return self._entry(Path(path), adapter, problem, os.lstat(path), settle_s)
        except OSError:
            self._walked.kept[adapter] = [one for one in self._walked.kept[adapter] if one[1] != path]  # taken, or taken back
            self._walked.num_entries -= 1
            self._watched.pop(os.path.relpath(path, self._root), None)
            self._renamed.discard(path)
            return None

    # ---------------------------------------------------------------- the walk

    def _walk(self) -> None:
        """List the inbox. What was seen before keeps what is known of it."""
        begun_s = monotonic_s()
        walked = _Walked()
        present: set[str] = set()
        for folder, adapter in self._folders(walked):
            found = _Found(present, self._renamed)
            kept = walked.kept.setdefault(adapter, [])
            kept += heapq.nsmallest(MAX_KEPT, found.entries(folder, len(folder.relative_to(self._root).parts)))
            kept.sort()
            walked.num_entries += found.count
        tracked = {os.path.relpath(path, self._root) for kept in walked.kept.values() for _, path, _ in kept}
        self._watched = {source: watched for source, watched in self._watched.items() if source in tracked}
        self._renamed = present
        walked.at_s = monotonic_s()
        walked.cost_s = walked.at_s - begun_s
        self._walked, self._is_wanted = walked, False

    def _folders(self, walked: _Walked) -> Iterator[tuple[Path, str]]:
        """(folder, adapter) of the root, the personas and the domains."""
        yield self._root, DEFAULT_ADAPTER
        for persona in _folders_in(self._root):
            if persona.name == "rejected":
                continue
            walked.folders.add(persona)
            yield persona, f"{persona.name}/main"
            for domain in _folders_in(persona):
                walked.folders.add(domain)
                yield domain, f"{persona.name}/{domain.name}"

    def _entry(self, path: Path, adapter: str, problem: str, found: os.stat_result, settle_s: float) -> Entry:
        source = str(path.relative_to(self._root))
        renamed = str(path) in self._renamed
        is_folder = not problem and stat.S_ISDIR(found.st_mode)
        changed_at, mark, total_bytes = found.st_ctime, (found.st_size, found.st_mtime_ns, found.st_ino), 0
        if is_folder:
            changed_at, mark = _tree(path, found)
            total_bytes = mark[0]
        watched = self._watched.get(source)
        if watched is None or watched.mark != mark:
            watched = self._watched[source] = _Watched(mark=mark, since_s=monotonic_s())
        # ctime cannot be set by hand and moves with every write: a file that lay here before the daemon started is quiet at once.
        quiet_s = max(monotonic_s() - watched.since_s, wall_s() - changed_at)
        is_quiet = not problem and not renamed and not is_folder and quiet_s >= settle_s
        if is_quiet and watched.parses is None:
            watched.parses = last_line_parses(path)
        sidecar = path.with_name(sidecar_name(path.name))
        return Entry(
            source=source,
            adapter=adapter,
            device=found.st_dev,
            inode=found.st_ino,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            sidecar=str(sidecar.relative_to(self._root)) if not problem and os.path.lexists(sidecar) else None,
            renamed=renamed,
            quiet_s=quiet_s,
            parses=bool(watched.parses),
            written=is_quiet and has_writer(path),
            problem=problem,
            total_bytes=total_bytes,
        )


def _tree(folder: Path, found: os.stat_result) -> tuple[float, tuple[int, int, int]]:
    """When anything in a folder last changed, and a mark that changes with it. Follows nothing."""
    newest, size, count = found.st_ctime, 0, 0
    waiting = [folder]
    while waiting and count < MAX_LOOKED_AT:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    inner = entry.stat(follow_symlinks=False)
                    count += 1
                    newest, size = max(newest, inner.st_ctime), size + inner.st_size
                    if stat.S_ISDIR(inner.st_mode):
                        waiting.append(Path(entry.path))
        except OSError as error:
            log.debug("left alone: %s", error)
    return newest, (size, int(newest * 1e9), count)


@dataclass(slots=True)
class _Found:
    """Lists one folder, counting, and noting what of it was renamed into place."""

    present: set[str]
    renamed: set[str]
    count: int = 0

    def entries(self, folder: Path, depth: int) -> Iterator[tuple[int, str, str]]:
        """(mtime, path, problem) of every entry that is not left alone. `depth` is 0 in the inbox itself."""
        for entry in _visible(folder):
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            problem = _problem(entry.name, found.st_mode, depth)
            if problem is None:
                continue
            self.count += 1
            if entry.path in self.renamed:
                self.present.add(entry.path)
            yield found.st_mtime_ns, entry.path, problem


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Entries that are not left alone: dot-names and `.part` belong to their writers."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith(".") and not entry.name.endswith(".part"))
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            log.debug("left alone: %s", error)


def _folders_in(folder: Path) -> list[Path]:
    """Folders whose names may be those of personas or domains, in order."""
    return sorted(Path(entry.path) for entry in _visible(folder) if entry.is_dir(follow_symlinks=False) and is_part(entry.name))


def _problem(name: str, mode: int, depth: int) -> str | None:
    """Why an entry can never be a drop; empty: it may be one; None: it is none, and is left alone."""
    is_folder = stat.S_ISDIR(mode)
    if (name.endswith(".job.json") and not is_folder) or (name == "rejected" and depth == 0):
        return None  # a sidecar waits for its data file
    if is_folder and not name.endswith((".jsonl", ".drop")):
        if depth == 2:
            return f"{name!r} is a third level: drops lie in inbox/<persona>/<domain>/"
        return None if is_part(name) else f"{name!r} is not a {('persona', 'domain')[depth]}: use a-z, 0-9, '.', '_', '-'"
    return _problem_of_kind(name, mode)


def _problem_of_kind(name: str, mode: int) -> str:
    """A would-be data file, or folder of one with pictures: what kind of thing it is decides."""
    if stat.S_ISLNK(mode):
        return f"{name!r} is a symbolic link; copy the file itself"
    if stat.S_ISDIR(mode) and name.endswith(".drop"):
        return ""
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        return f"{name!r} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file"
    if not name.endswith(".jsonl"):
        kind = " and is no folder" if name.endswith(".drop") else ""
        return f"{name!r} does not end in .jsonl{kind}"
    return ""


def has_writer(path: Path) -> bool:
    """Whether some process has the file open for writing; False where the system cannot tell (no leases, not our file).

    Linux gives a read lease only on a file that nobody has open for writing. It is given back at once; a writer that comes
    in between waits that long, and raises SIGIO, which the daemon ignores.
    """
    if sys.platform != "linux":
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def last_line_parses(path: Path) -> bool:
    """Whether the last non-blank line is whole JSON. Never blocks, never follows a link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True  # unreadable: let the gate take it and say so
    with os.fdopen(fd, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        reach = 64 << 10
        while True:
            file.seek(max(0, size - reach))
            tail = file.read(reach).rstrip()
            cut = tail.rfind(b"\n")
            if cut >= 0 or reach >= size or reach >= TAIL_BYTES:
                break
            reach *= 8
    line = tail[cut + 1 :].strip()
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
