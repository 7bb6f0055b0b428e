"""Free disk space: asked for before a large write, and one error for a disk that filled up all the same."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import LoradError

MB = 1 << 20
FULL = "DISK_FULL"
HINT = "free some space, or put home and models_dir on a larger disk"


def require_free(folder: Path, needs_bytes: int, what: str) -> None:
    """Raises LoradError DISK_FULL unless the file system of `folder` has `needs_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needs_bytes:
        raise LoradError(f"no room for {what} in {str(folder)!r}: it needs {needs_bytes // MB} MB, {free_bytes // MB} MB are free", hint=HINT, code=FULL)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turns "no space left" of whatever is written inside into LoradError DISK_FULL."""
    try:
        yield
    except Exception as error:
        if not _means_full(error):
            raise
        raise LoradError(f"the disk filled up while writing in {str(folder)!r}", hint=HINT, code=FULL) from error


def _means_full(error: Exception) -> bool:
    # The safetensors and torch writers raise errors of their own that carry the system's words only.
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_full or "No space left on device" in str(error)
