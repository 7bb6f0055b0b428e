"""Fingerprints of rows: by them a row is found again wherever it lies, and an order to forget names no text.

The fingerprint is the SHA-256 of the row's JSON with sorted keys and no blanks, so that a row that was written anew by
another program is still found; of a line that is no JSON, of its bytes without blanks at its ends.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Set
from pathlib import Path

import msgspec

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 18

_decode = msgspec.json.Decoder().decode


def fingerprint(line: bytes) -> str:
    """The fingerprint of one line; empty of a blank one."""
    bare = line.removeprefix(BOM).strip()
    if not bare:
        return ""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        bare = json.dumps(_decode(bare), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.sha256(bare).hexdigest()


def lines_of(path: Path) -> Iterator[bytes]:
    """The physical lines of a file with their ends, `.zst` unpacked; as many as there are where it is damaged or vanishes."""
    import zstandard

    try:
        with open(path, "rb") as file:
            if path.suffix != ".zst":
                yield from file
                return
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
                rest = b""
                while block := stream.read(BLOCK_BYTES):
                    *whole, rest = (rest + block).split(b"\n")
                    for line in whole:
                        yield line + b"\n"
                if rest:
                    yield rest
    except (OSError, zstandard.ZstdError):
        return


def lines_with(path: Path, wanted: Set[str]) -> list[int]:
    """Numbers, from 1, of the lines whose fingerprint is wanted; also of lines that hold such a row as their `text` (a quarantine)."""
    return [number for number, line in enumerate(lines_of(path), 1) if is_wanted(line, wanted)]


def is_wanted(line: bytes, wanted: Set[str]) -> bool:
    """Whether a line is a wanted row, or holds one as its `text`."""
    if fingerprint(line) in wanted:
        return True
    if b'"text"' not in line:
        return False
    try:
        row = _decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return False
    text = row.get("text") if isinstance(row, dict) else None
    return isinstance(text, str) and fingerprint(text.encode()) in wanted
