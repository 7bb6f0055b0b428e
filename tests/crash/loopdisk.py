"""A file system in a file, and the power cut: the file system is shut down without writing its journal, unmounted, mounted.

What had not been synced is gone then, as after a real one. Needs root, loop devices and mkfs of the kind.
"""

import fcntl
import gc
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
WITHOUT_LOG = struct.pack("I", 2)
KINDS = {"ext4": ["mkfs.ext4", "-q", "-m0"], "xfs": ["mkfs.xfs", "-q"]}
SIZE_BYTES = 640 << 20  # room above the floor under which training waits; the file is sparse


class CannotRun(Exception):
    """This machine lacks what the recipe needs; says what."""


class LoopDisk:
    """Mounted at `place` between `made` and its end."""

    def __init__(self, image: Path, place: Path, kind: str) -> None:
        self.image, self.place, self.kind = image, place, kind

    def mount(self) -> None:
        done = subprocess.run(["mount", "-o", "loop", self.image, self.place], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRun(f"a {self.kind} image cannot be mounted: {done.stderr.strip()}")

    def cut(self) -> None:
        """The power goes: from now on every call on this file system fails, and what is not in its log is lost."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, WITHOUT_LOG)
        finally:
            os.close(fd)

    def come_back(self) -> None:
        """The power is there again. Nobody may hold a file of it open."""
        gc.collect()
        subprocess.run(["umount", self.place], check=True)
        self.mount()


@contextmanager
def made(folder: Path, kind: str) -> Iterator[LoopDisk]:
    """A new, empty file system under `folder`; unmounted at the end. Raises CannotRun."""
    words = KINDS[kind]
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control") or shutil.which(words[0]) is None:
        raise CannotRun(f"a {kind} image needs root, loop devices and {words[0]}")
    image, place = folder / f"{kind}.img", folder / kind
    place.mkdir(parents=True)
    with open(image, "wb") as file:
        file.truncate(SIZE_BYTES)
    subprocess.run([*words, image], check=True, capture_output=True)
    # A process in a mount namespace of its own (`ip netns exec`, a container) has a copy of every mount. Only what is shared is unmounted
    # there too; else the file system would live on as it was cut, and the next mount would find it so.
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    disk = LoopDisk(image, place, kind)
    try:
        disk.mount()
        yield disk
    finally:
        gc.collect()
        for _ in ("the image", "the place itself"):
            if subprocess.run(["umount", place], check=False, capture_output=True).returncode:
                subprocess.run(["umount", "-l", place], check=False)
        image.unlink()
