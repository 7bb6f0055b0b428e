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

BLOCK_BYTES = 64 << 10  # rows of one block stay in the cache of the processor
COUNTED_BYTES = 1 << 20
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
        self._before: Identity | None = None
        size = 0
        if not obstacle:
            found = os.fstat(self._fd)
            size = found.st_size
            obstacle = _not_regular(path, found.st_mode)
        self.opened = Opened(obstacle=obstacle, size_bytes=size, limits=limits, name=path.name)
        if not obstacle:
            self._before = self.identity()

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

    def moved(self) -> str:
        """Whether the file changed since it was opened: how, in words; empty: it did not."""
        before, now = self._before, self.identity()
        if before is None or before == now:
            return ""
        if before.size_bytes != now.size_bytes:
            return f"it had {before.size_bytes:,} bytes when it was opened and has {now.size_bytes:,} now"
        return "it was written to"

    def num_lines(self) -> int:
        """Physical lines of the file, by a read of its own; a last one without its newline counts."""
        offset, found, last = 0, 0, b"\n"
        while block := os.pread(self._fd, COUNTED_BYTES, offset):
            offset, found, last = offset + len(block), found + block.count(b"\n"), block[-1:]
        return found + (last != b"\n")

    def blocks(self) -> Iterator[bytes]:
        """The bytes, from the start, each once: as whole lines where they are shorter than a block."""
        offset = 0
        while block := os.pread(self._fd, BLOCK_BYTES, offset):
            # What is left of the last line is read again: cheaper than to put its two parts together.
            if end := block.rfind(b"\n") + 1:
                block = block[:end]
            offset += len(block)
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of a file: the offset of the first byte, and the bytes.

    `cut` is the size in bytes of a single line of which only the beginning was kept; 0 where the chunk is whole.
    """

    offset: int
    content: bytes
    cut: int = 0


def chunks(blocks: Iterable[bytes], limits: Limits) -> Iterator[Chunk]:
    """A stream as runs of whole lines. Never holds more of a line than the limit and one block."""
    offset, size = 0, 0  # size: bytes of the unfinished line, kept or not
    parts: list[bytes] = []  # its kept bytes
    for block in blocks:
        if size > limits.max_row_bytes or size + block.find(b"\n") > limits.max_row_bytes:
            end = block.find(b"\n") + 1
            if end:
                size += end
                yield Chunk(offset, _kept([*parts, block[:end]]), cut=size)
                offset, parts, size = offset + size, [], 0
                block = block[end:]
        end = block.rfind(b"\n") + 1
        if end:
            content = b"".join((*parts, block[:end]))
            yield Chunk(offset, content)
            offset, parts, size = offset + len(content), [], 0
        if end < len(block):
            size += len(block) - end
            parts.append(block[end:])
            if size > limits.max_row_bytes:
                parts = [_kept(parts)]
    if size:
        yield Chunk(offset, b"".join(parts), cut=size if size > limits.max_row_bytes else 0)


def lines_of(chunk: Chunk, first_line: int, limits: Limits) -> Iterator[Line]:
    """The physical lines of a chunk, without their newlines."""
    if chunk.cut:
        ended = chunk.content.endswith(b"\n")
        yield Line(first_line, chunk.offset, chunk.content.removesuffix(b"\n"), chunk.cut - ended, ended, limits)
        return
    offset = chunk.offset
    pieces = chunk.content.split(b"\n")
    for place, piece in enumerate(pieces):
        ended = place + 1 < len(pieces)
        if ended or piece:
            kept = piece if len(piece) <= limits.max_row_bytes else piece[:KEPT_OF_A_LARGE_ROW]
            yield Line(first_line + place, offset, kept, len(piece), ended, limits)
            offset += len(piece) + 1


def lines(blocks: Iterable[bytes], limits: Limits) -> Iterator[Line]:
    """Physical lines of a stream."""
    first_line = 1
    for chunk in chunks(blocks, limits):
        for line in lines_of(chunk, first_line, limits):
            first_line = line.number + 1
            yield line


def _kept(parts: list[bytes]) -> bytes:
    """The beginning of a line that is too large; its newline stays, to tell that it ended."""
    whole = b"".join(parts)
    return whole[:KEPT_OF_A_LARGE_ROW] + (b"\n" if whole.endswith(b"\n") else b"")
