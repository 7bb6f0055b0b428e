"""Putting a file, or a folder with pictures, into the inbox the right way: sidecar first, the data under a dot-name, then one rename."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.names import DEFAULT_ADAPTER
from store.durable import replace_file, sync_dir, sync_tree
from store.paths import Home

LENT = ".lent-"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file that now lies in the inbox; its inode names it through the claim."""

    path: Path
    device: int
    inode: int


def put_drop(home: Home, file: Path, adapter: str, sidecar: Mapping[str, Any]) -> Dropped:
    """Copy `file` (a .jsonl file, or a .drop folder) into the adapter's folder of the inbox; the original is left as it is.

    Raises UsageError when it is missing or neither; OSError on a full disk (nothing is left).
    """
    if not (file.suffix == ".jsonl" and file.is_file()) and not (file.suffix == ".drop" and file.is_dir()):
        code = "FILE_MISSING" if not file.exists() else "FILE_KIND"
        raise UsageError(f"{str(file)!r} is neither a .jsonl file nor a .drop folder", hint="name a JSON Lines file", code=code)
    folder = home.inbox if adapter == DEFAULT_ADAPTER else home.inbox / adapter
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = _free_name(folder, file.stem, file.suffix)
        hidden = folder / f".{target.name}.{os.getpid()}"
        try:
            _copy(file, hidden)
            if sidecar:
                replace_file(target.with_name(target.stem + ".job.json"), json.dumps(sidecar, indent=1) + "\n")
            found = hidden.stat()  # before the rename: the daemon may claim it at once
            os.rename(hidden, target)
        finally:
            if hidden.is_dir():
                shutil.rmtree(hidden)
            else:
                hidden.unlink(missing_ok=True)
        sync_dir(folder)
    finally:
        os.close(lock)
    return Dropped(target, found.st_dev, found.st_ino)


@contextmanager
def lent(home: Home, files: Sequence[Path]) -> Iterator[list[Path]]:
    """Copies of files for the daemon to read, under a dot-name of the inbox; at the end they are gone.

    The daemon may be unable to see the files themselves: as a service it has neither /home nor /tmp of people. Raises OSError.
    """
    home.inbox.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=LENT, dir=home.inbox))
    try:
        folder.chmod(0o755)
        copies = []
        for number, file in enumerate(files):
            (folder / str(number)).mkdir()
            copies.append(folder / str(number) / file.name)
            shutil.copyfile(file, copies[-1])
        yield copies
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_lent(home: Home, older_than_s: float, now_s: float) -> None:
    """Delete copies whose command was killed before it could."""
    for folder in home.inbox.glob(f"{LENT}*"):
        with suppress(FileNotFoundError):  # given back in between
            if now_s - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder)


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    names = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(folder / f"{name}{suffix}" for name in names if not (folder / f"{name}{suffix}").exists())


def _copy(file: Path, hidden: Path) -> None:
    if file.is_dir():
        shutil.copytree(file, hidden, symlinks=True)
        sync_tree(hidden)
        return
    with open(file, "rb") as source, open(hidden, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
