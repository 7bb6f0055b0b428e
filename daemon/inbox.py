"""Scans the inbox: which entries there are, how quiet they have been, and what can never be a drop."""

import fcntl
import json
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.facts import Entry
from core.names import DEFAULT_ADAPTER, is_part
from daemon.clock import monotonic_s, wall_s
from store.drops import sidecar_name

log = logging.getLogger(__name__)

MAX_LOOKED_AT = 10_000  # entries of a folder that was not renamed into place; how quiet it is hangs on these
TAIL_BYTES = 8 << 20  # a last line longer than this counts as not parsable; the gate refuses rows over 4 MiB anyway
MAX_ENTRIES = 500  # taken up in one tick, so that a burst does not hold the tick for long


@dataclass(slots=True)
class _Watched:
    """What was last seen of an entry."""

    mark: tuple[int, int, int]  # size, mtime, inode
    since_s: float  # monotonic
    parses: bool | None = None


class Inbox:
    """Remembers between scans how long each entry has been quiet."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._watched: dict[str, _Watched] = {}
        self._renamed: set[str] = set()

    def scan(self, renamed: set[str], settle_s: float) -> tuple[Entry, ...]:
        """The entries that may be drops, oldest first. Reads the last line of files that have been quiet for `settle_s`."""
        self._renamed |= renamed
        entries = list(self._entries(settle_s))
        present = {entry.source for entry in entries}
        self._watched = {source: watched for source, watched in self._watched.items() if source in present}
        self._renamed = {path for path in self._renamed if os.path.lexists(path)}
        entries.sort(key=lambda entry: (entry.mtime_ns, entry.source))
        return tuple(entries[:MAX_ENTRIES])

    def _entries(self, settle_s: float) -> Iterator[Entry]:
        for path, adapter, problem in self._walk():
            try:
                found = path.lstat()
            except OSError:
                continue
            yield self._entry(path, adapter, problem, found, settle_s)

    def _walk(self) -> Iterator[tuple[Path, str, str]]:
        """(path, adapter, problem) of every entry that is not left alone."""
        for path in _visible(self._root):
            if path.name == "rejected":
                continue
            if not _is_folder(path) or path.name.endswith((".jsonl", ".drop")):
                yield from _file(path, DEFAULT_ADAPTER)
            elif not is_part(path.name):
                yield path, DEFAULT_ADAPTER, f"{path.name!r} is not a persona: use a-z, 0-9, '.', '_', '-'"
            else:
                yield from self._persona(path)

    def _persona(self, persona: Path) -> Iterator[tuple[Path, str, str]]:
        for path in _visible(persona):
            if not _is_folder(path) or path.name.endswith((".jsonl", ".drop")):
                yield from _file(path, f"{persona.name}/main")
            elif not is_part(path.name):
                yield path, f"{persona.name}/main", f"{path.name!r} is not a domain: use a-z, 0-9, '.', '_', '-'"
            else:
                adapter = f"{persona.name}/{path.name}"
                for inner in _visible(path):
                    if _is_folder(inner) and not inner.name.endswith((".jsonl", ".drop")):
                        yield inner, adapter, f"{inner.name!r} is a third level: drops lie in inbox/<persona>/<domain>/"
                    else:
                        yield from _file(inner, adapter)

    def _entry(self, path: Path, adapter: str, problem: str, found: os.stat_result, settle_s: float) -> Entry:
        source = str(path.relative_to(self._root))
        renamed = str(path) in self._renamed
        is_folder = not problem and stat.S_ISDIR(found.st_mode)
        changed_at, mark = found.st_ctime, (found.st_size, found.st_mtime_ns, found.st_ino)
        if is_folder and not renamed:
            changed_at, mark = _tree(path, found)
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


def _visible(folder: Path) -> list[Path]:
    """Entries that are not left alone: dot-names and `.part` belong to their writers."""
    try:
        return [folder / name for name in os.listdir(folder) if not name.startswith(".") and not name.endswith(".part")]
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            log.debug("left alone: %s", error)
        return []


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _file(path: Path, adapter: str) -> Iterator[tuple[Path, str, str]]:
    """A would-be data file, or folder of one with pictures: what kind of thing it is decides."""
    if path.name.endswith(".job.json"):
        return  # a sidecar waits for its data file
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        yield path, adapter, f"{path.name!r} is a symbolic link; copy the file itself"
    elif stat.S_ISDIR(mode) and path.name.endswith(".drop"):
        yield path, adapter, ""
    elif not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        yield path, adapter, f"{path.name!r} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file"
    elif not path.name.endswith(".jsonl"):
        kind = " and is no folder" if path.name.endswith(".drop") else ""
        yield path, adapter, f"{path.name!r} does not end in .jsonl{kind}"
    else:
        yield path, adapter, ""


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
