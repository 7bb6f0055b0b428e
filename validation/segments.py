"""A file as runs of whole lines, each with a hash: what the second pass reads again, and by which it knows the bytes."""

import os
from pathlib import Path

import msgspec
import xxhash

from core.errors import LoradError

SEGMENT_BYTES = 8 << 20


class Segment(msgspec.Struct, frozen=True):
    """Whole lines of a file: where they begin, how many bytes, the number of the first, and a hash."""

    offset: int
    size_bytes: int
    first_line: int
    num_lines: int
    xxh3: str


class Segments:
    """Cuts a stream of blocks into segments."""

    def __init__(self) -> None:
        self.done: list[Segment] = []
        self._offset = 0
        self._size = 0
        self._first_line = 1
        self._num_lines = 0
        self._ended = True
        self._hash = xxhash.xxh3_128()

    def add(self, block: bytes) -> None:
        """The next bytes of the file."""
        self._ended = block.endswith(b"\n")
        cut = block.rfind(b"\n") + 1 if self._size + len(block) >= SEGMENT_BYTES else 0
        if cut:
            self._take(memoryview(block)[:cut], block.count(b"\n"))
            self._close()
            self._take(memoryview(block)[cut:], 0)
        else:
            self._take(block, block.count(b"\n"))

    def end(self) -> list[Segment]:
        """All segments; a last line without its newline counts as a line."""
        if self._size:
            self._num_lines += not self._ended
            self._close()
        return self.done

    def _take(self, part: "bytes | memoryview", num_lines: int) -> None:
        self._hash.update(part)
        self._size += len(part)
        self._num_lines += num_lines

    def _close(self) -> None:
        self.done.append(Segment(self._offset, self._size, self._first_line, self._num_lines, self._hash.hexdigest()))
        self._offset += self._size
        self._first_line += self._num_lines
        self._size = self._num_lines = 0
        self._hash = xxhash.xxh3_128()


def read_segment(fd: int, segment: Segment, file: Path) -> bytes:
    """The bytes of a segment. Raises LoradError FILE_CHANGED where they are not those of the first pass."""
    parts, offset, left = [], segment.offset, segment.size_bytes
    while left and (part := os.pread(fd, left, offset)):
        parts.append(part)
        offset, left = offset + len(part), left - len(part)
    content = b"".join(parts)
    if xxhash.xxh3_128_hexdigest(content) != segment.xxh3:
        raise LoradError(
            f"{file} changed while it was read (bytes {segment.offset:,} to {segment.offset + segment.size_bytes:,})",
            hint="something still writes to it; check it again once it is quiet",
            code="FILE_CHANGED",
        )
    return content
