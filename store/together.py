"""Many files made durable at little more than the price of one.

fsync of a new file waits for its data and for a commit of the file system's journal. Where the system is first asked to
begin writing all of them, one commit carries them all, and the fsyncs that follow find their work done: 200 files of
600 bytes took 0.2 to 1.4 ms each here, against 4.3 to 7.0 ms one by one (ext4, a busy disk). Where there are many, several
threads wait for them at once, so that the disk's own flushes are shared too: 450 files and folders then took 30 to 70 ms,
against 80 to 1,300. Each file and each directory is still synced by itself: nothing here hangs on how one file system orders
its journal.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from store.durable import sync_dir

MANY = 16  # files or folders: below, threads are not worth their while
THREADS = 8  # wait at once; they do nothing else


def sync_together(files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """fsync files, then folders; each once. Raises OSError: then none of them is to be believed."""
    paths = list(dict.fromkeys(files))
    if len(paths) > 1 and hasattr(os, "posix_fadvise"):
        for path in paths:
            _begin_writing(path)
    _each(_sync, paths)
    _each(sync_dir, list(dict.fromkeys(folders)))


def _each(sync: Callable[[Path], None], paths: Sequence[Path]) -> None:
    """Call `sync` for each path. Raises what the first that failed has raised, once none is under way any more."""
    if len(paths) < MANY:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(sync, paths):
            pass


def inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """(files, folders) of a tree, itself included, for `sync_together`. Links are left out."""
    files, folders = [], [folder]
    for place in folders:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    files.append(Path(entry.path))
    return files, folders


def _begin_writing(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # its side effect: dirty pages are handed to the disk
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def made_together(destinations: Sequence[Path], tmp: Path) -> Iterator[list[Path]]:
    """Fill one folder under `tmp` for each destination, then rename them all: readers see all of a folder or nothing of it.

    After a crash some destinations may be there and others not. After an error none is: whoever asked knows of none. A
    destination that exists is an error.
    """
    aside = [tmp / f"{destination.name}.{os.getpid()}" for destination in destinations]
    renamed: list[Path] = []
    try:
        for folder in aside:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        yield aside
        sync_together((path for folder in aside for path in folder.iterdir()), aside)
        for folder, destination in zip(aside, destinations, strict=True):
            if destination.exists():
                raise FileExistsError(f"{destination} exists already")
            os.rename(folder, destination)
            renamed.append(destination)
        sync_together((), (*(destination.parent for destination in destinations), tmp))
    except OSError:
        for destination in renamed:
            shutil.rmtree(destination, ignore_errors=True)
        raise
    finally:
        for folder in aside:
            shutil.rmtree(folder, ignore_errors=True)
