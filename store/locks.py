"""flock-based locks. A lock belongs to a process and dies with it; the text in the file is for people."""

import fcntl
import os
from pathlib import Path

from core.errors import LockHeldError


def take_lock(path: Path, holder: str, what: str, *, hint: str) -> int:
    """Lock `path` and write `holder` into it. Returns the descriptor (close-on-exec); closing it frees the lock.

    Raises LockHeldError with the text of the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 4096, 0).decode(errors="replace").strip()
            os.close(fd)
            raise LockHeldError(f"{what} is locked by {text or 'another process'}", hint=hint, code="LOCK_HELD") from None
        except OSError:
            os.close(fd)
            raise
        # Somebody may have deleted the file between open and flock: then two processes could each hold "the" lock.
        if owns(fd, path):
            break
        os.close(fd)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0)
    except OSError:
        os.close(fd)  # on a full disk nobody holds it: a descriptor that is forgotten would hold it for the life of this process
        raise
    return fd


def owns(fd: int, path: Path) -> bool:
    """Whether `path` is still the file that `fd` locks: a deleted lock file lets a second process in."""
    try:
        return os.fstat(fd).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock now. Takes it for an instant to find out."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:  # whoever may only look, as a member of the daemon's group; not enough on NFS
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
