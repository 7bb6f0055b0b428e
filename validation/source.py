"""The bytes of a drop: opened without following links or waiting for writers, read once, cut into physical lines.

Lines end at "\\n" only: U+2028, U+0085 and their kin may stand inside a JSON string.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from validation.checks.registry import Line, Opened
from validation.findings import Limits, shown

BLOCK_BYTES = 256 << 10
KEPT_OF_A_LARGE_ROW = 512  # bytes, enough to show what it begins with

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells whether a file was changed while it was read."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


class Source:
    """An open file, or the obstacle that keeps it from being read. Close it, or use it as a context.

    Raises OSError where the machine failed, FileNotFoundError where the file is gone; whatever is the file's own fault
    becomes `opened.obstacle`.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._fd, obstacle = _open(path)
        size = 0
        if not obstacle:
            found = os.fstat(self._fd)
            size = found.st_size
            obstacle = _not_regular(path, found.st_mode)
        self.opened = Opened(obstacle=obstacle, size_bytes=size, limits=limits)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def identity(self) -> Identity:
        """The open file as it stands now."""
        found = os.fstat(self._fd)
        return Identity(device=found.st_dev, inode=found.st_ino, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)

    def blocks(self) -> Iterator[bytes]:
        """The bytes, from the start, each once."""
        while block := os.read(self._fd, BLOCK_BYTES):
            yield block


def _open(path: Path) -> tuple[int, str]:
    """(descriptor, "") or (-1, obstacle). Without O_NONBLOCK a FIFO would wait for its writer for ever."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY), ""
    except OSError as error:
        if error.errno == errno.ELOOP:
            return -1, f"{shown(path.name)} is a symbolic link; links are never followed"
        if error.errno in (errno.EACCES, errno.EPERM):
            return -1, f"{shown(path.name)} may not be read by the user that runs lorad (uid {os.geteuid()})"
        if error.errno in (errno.ENXIO, errno.ENODEV):
            return -1, f"{shown(path.name)} is a socket or a device, not a file"
        raise


def _not_regular(path: Path, mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    kind = next((words for matches, words in _KINDS if matches(mode)), "no regular file")
    return f"{shown(path.name)} is {kind}, not a file"


def lines(blocks: Iterable[bytes], limits: Limits) -> Iterator[Line]:
    """Physical lines of a stream. Never holds more of a line than the limit and one block."""
    number, offset, size = 0, 0, 0  # size: bytes of the unfinished line, kept or not
    parts: list[bytes] = []  # its kept bytes
    for block in blocks:
        pieces = block.split(b"\n")
        for piece in pieces[:-1]:
            size += len(piece)
            number += 1
            yield Line(number, offset, _kept([*parts, piece], size, limits), size, True, limits)
            offset += size + 1
            parts, size = [], 0
        size += len(pieces[-1])
        if size <= limits.max_row_bytes:
            parts.append(pieces[-1])
        elif len(parts) != 1 or len(parts[0]) > KEPT_OF_A_LARGE_ROW:
            parts = [_kept([*parts, pieces[-1]], size, limits)]
    if size:
        yield Line(number + 1, offset, _kept(parts, size, limits), size, False, limits)


def _kept(parts: list[bytes], size: int, limits: Limits) -> bytes:
    if size <= limits.max_row_bytes:
        return parts[0] if len(parts) == 1 else b"".join(parts)
    return b"".join(parts)[:KEPT_OF_A_LARGE_ROW]
