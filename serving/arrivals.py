"""Copies of what arrived, as files that nobody else has open.

A rename takes an arrival out of its sender's reach by name only. A sender's process that still has a file open, or stands in the
folder, would write on after the hashes were checked, and an engine that maps the file would compute with that. So what is
verified is a copy: shared blocks where the file system can (btrfs, xfs), bytes elsewhere.
"""

import errno
import os
import shutil
import stat
from pathlib import Path

from core.errors import IntegrityError
from store.durable import sync_dir

AT_ONCE = 1 << 30  # bytes of one call; the kernel takes fewer


def copy_tree(source: Path, place: Path) -> None:
    """Make `place`, with a new file for each file of `source`, synced. Raises IntegrityError RELEASE_BYTES, OSError."""
    shutil.rmtree(place, ignore_errors=True)  # of a copy that was broken off
    for root, folders, names in os.walk(source):
        made = place / os.path.relpath(root, source)
        made.mkdir(parents=True)
        for name in folders:
            if os.path.islink(os.path.join(root, name)):
                raise _no_plain_file(os.path.join(root, name))
        for name in names:
            copy_file(Path(root, name), made / name)
        sync_dir(made)


def copy_file(source: Path, place: Path) -> None:
    """Make a new file of the bytes of a plain one that has no other name, synced. Raises IntegrityError RELEASE_BYTES, OSError."""
    try:
        # A pipe would wait for its writer, a link would lead elsewhere.
        source_fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise _no_plain_file(str(source)) from None
        raise
    try:
        found = os.fstat(source_fd)
        if not stat.S_ISREG(found.st_mode):
            raise _no_plain_file(str(source))
        if found.st_nlink != 1:
            raise IntegrityError(f"{source} has {found.st_nlink} names", hint="send it again as a file of its own", code="RELEASE_BYTES")
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(found.st_mode) & 0o755)
        try:
            _copy(source_fd, fd)
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        os.close(source_fd)


def _copy(source: int, fd: int) -> None:
    try:
        while os.copy_file_range(source, fd, AT_ONCE):
            pass
    except (AttributeError, OSError):  # another system, or a file system that cannot
        os.lseek(source, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        with open(source, "rb", closefd=False) as reader, open(fd, "wb", closefd=False) as writer:
            shutil.copyfileobj(reader, writer)


def _no_plain_file(path: str) -> IntegrityError:
    return IntegrityError(f"{path} is not a plain file", hint="releases hold plain files only", code="RELEASE_BYTES")
