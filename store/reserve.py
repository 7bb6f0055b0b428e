"""Room that is kept to be given up first: a file of some bytes and some empty files, so that state can still be written.

Given up when a state write finds the disk full or when the free space falls under the reserve's own size; made again by a
chore once there is room.
"""

import os
from collections.abc import Mapping
from typing import Any

from store.paths import Home
from store.trash import delete

BYTES = "bytes.bin"
INODES = 256  # empty files: a drop and its job take about 20 inodes until they rest
ROOM = 4  # made only where so many times its size is free


def make_reserve(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "reserve": make it whole, of `spec["bytes"]`. Where there is no room after all, none of it stays. Raises OSError."""
    try:
        home.reserve.mkdir(exist_ok=True)
        for number in range(INODES):
            (home.reserve / f"{number:03d}").touch()
        fd = os.open(home.reserve / BYTES, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, int(spec["bytes"]))
        finally:
            os.close(fd)
    except OSError:
        give_up(home)
        raise
    return {"bytes": int(spec["bytes"])}


def has_reserve(home: Home, num_bytes: int) -> bool:
    """Whether the reserve is there, as large as it should be."""
    try:
        return (home.reserve / BYTES).stat().st_size == num_bytes
    except OSError:
        return False


def give_up(home: Home) -> bool:
    """Free the reserve. True where there was one. The rest of the folder goes too: its empty files are what frees inodes."""
    was_there = home.reserve.is_dir()
    delete(home.reserve)
    return was_there
