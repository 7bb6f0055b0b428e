"""Whether a sealed folder still has what was sealed, as far as that can be told without reading all of it.

A seal that is there proves that the folder was whole once. What a torn write or a cut copy leaves afterwards is nearly always
a file that is too short: that is found here. Other bytes of the same length are found by `check_seal`, which whoever uses the
folder calls.
"""

import json
import struct
from pathlib import Path

from store.seals import SEAL, hash_file

HASHED_BYTES = 1 << 20  # files up to this are read and compared with the seal: a millisecond
LENGTH = struct.Struct("<Q")  # a safetensors file begins with the length of its header
MOST_HEADER = 100 << 20  # the format's own bound


def is_whole(folder: Path) -> bool:
    """Whether every sealed file is there, small ones with their hash and large ones with their length. Reads about 2 MiB at most."""
    try:
        lines = [line.partition("  ") for line in (folder / SEAL).read_text().splitlines()]
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {SEAL}
        return bool(found) and found == {name for _, _, name in lines} and all(_is_as_sealed(folder / name, digest) for digest, _, name in lines)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return False


def _is_as_sealed(path: Path, digest: str) -> bool:
    size = path.stat().st_size
    if size <= HASHED_BYTES:
        return hash_file(path) == digest
    return path.suffix != ".safetensors" or size == _said_size(path)


def _said_size(path: Path) -> int:
    """The size that a safetensors file says of itself: its header names where the last tensor ends. Raises ValueError, OSError."""
    with open(path, "rb") as file:
        (length,) = LENGTH.unpack(file.read(LENGTH.size))
        if length > MOST_HEADER:
            raise ValueError("no safetensors header")
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return LENGTH.size + int(length) + int(max(ends, default=0))
