"""Takes files of others in: a folder or an archive becomes plain files in a folder of ours, or is refused before it does harm.

Refused: links and devices, paths that lead out, pickles (a pickle runs code where it is loaded), more bytes or files than an
adapter has, and archives that unpack to many times their size. Nothing is executed, nothing is opened but to be copied.
"""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, cast

from core.errors import RefusedError

MOST_BYTES = 16 << 30  # of all files together; rank 512 on all layers of a 70B base takes about 7 GB in 16 bits
MOST_FILES = 1000
MOST_RATIO = 100  # unpacked bytes for each byte of the archive: real weights hardly shrink at all
ALWAYS_BYTES = 64 << 20  # so much may come of any archive
MOST_AT_ONCE = 16 << 20  # one read of an archive's own headers
CHUNK = 1 << 20
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz"})
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def is_archive(path: Path) -> bool:
    """Whether the name says that it is an archive that can be read here."""
    return path.name.lower().endswith(ARCHIVES)


def take_in(source: Path, into: Path) -> None:
    """Copy a folder, or unpack an archive, into the new folder `into`. Raises RefusedError; what was copied by then is the caller's to delete."""
    into.mkdir(parents=True)
    room = _Room(into, source)
    if source.is_dir():
        for path, relative in _files_of(source):
            with open(path, "rb") as file:
                room.put(relative, file)
    elif source.name.lower().endswith(".zip"):
        _unzip(source, room)
    else:
        _untar(source, room)


def refuse(what: str, hint: str, code: str) -> NoReturn:
    """Raise RefusedError."""
    raise RefusedError(what, hint=hint, code=code)


class _Room:
    """Where files go, and how much may still come."""

    def __init__(self, into: Path, source: Path) -> None:
        self.into, self.source = into, source
        self.files = 0
        size = source.stat().st_size
        most = MOST_BYTES if source.is_dir() else min(MOST_BYTES, max(ALWAYS_BYTES, MOST_RATIO * size))
        self.most = self.left = min(most, max(0, shutil.disk_usage(into).free - ALWAYS_BYTES))

    def put(self, name: str, file: IO[bytes]) -> None:
        """Copy one file to its relative path. Raises RefusedError for a name that leads out, for a pickle, and when it is too much."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or "\\" in name or "\0" in name or any(part in ("..", ".") for part in parts):
            refuse(f"{str(self.source)!r} holds the path {name!r}, which leads elsewhere", "pack it anew with plain relative paths", "IMPORT_PATH")
        if Path(parts[-1]).suffix.lower() in PICKLES:
            hint = "take it out (training_args.bin and optimizer.pt are not needed); convert weights to safetensors first"
            refuse(f"{name!r} in {str(self.source)!r} may be a pickle, which runs code where it is loaded", hint, "IMPORT_PICKLE")
        self.files += 1
        if self.files > MOST_FILES:
            self.too_much(f"more than {MOST_FILES} files")
        place = self.into.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "xb") as out:
            while block := file.read(CHUNK):
                self.left -= len(block)
                if self.left < 0:
                    self.too_much(f"more than {self.most >> 20} MiB unpacked")
                out.write(block)

    def too_much(self, what: str) -> NoReturn:
        """Raise RefusedError for something far larger than an adapter, or than the disk has room for."""
        refuse(
            f"{str(self.source)!r} holds {what}: that is no adapter, or the disk has no room for it", "unpack it by hand and look inside", "IMPORT_TOO_LARGE"
        )


def _files_of(source: Path) -> Iterator[tuple[Path, str]]:
    """Every file of a folder with its relative path. Raises RefusedError for what is neither file nor folder."""
    for root, folders, names in os.walk(source):
        for name in sorted(folders + names):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                refuse(f"{str(path)!r} is {kind}", "copy the files themselves: `cp -rL FOLDER COPY`, then import the copy", "IMPORT_LINK")
            if stat.S_ISREG(mode):
                yield path, path.relative_to(source).as_posix()


def _unzip(source: Path, room: _Room) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > room.most:  # what it says of itself; what comes is counted too
                room.too_much(f"more than {room.most >> 20} MiB unpacked")
            for entry in entries:
                mode = entry.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    refuse(f"{entry.filename!r} in {str(source)!r} is a link or a device", "pack the files themselves", "IMPORT_LINK")
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        room.put(entry.filename, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        refuse(f"{str(source)!r} cannot be unpacked: {error}", "fetch it anew", "IMPORT_DAMAGED")


def _untar(source: Path, room: _Room) -> None:
    try:
        with open(source, "rb") as raw:
            plain = raw if source.name.lower().endswith(".tar") else gzip.GzipFile(fileobj=raw)
            bounded = cast("IO[bytes]", _Bounded(cast("IO[bytes]", plain), room))
            with tarfile.open(fileobj=bounded, mode="r:") as archive:
                for entry in archive:
                    if not entry.isfile() and not entry.isdir():
                        refuse(f"{entry.name!r} in {str(source)!r} is a link or a device", "pack the files themselves", "IMPORT_LINK")
                    if entry.isfile():
                        file = archive.extractfile(entry)
                        assert file is not None, "a file has bytes"
                        room.put(entry.name.removeprefix("./"), file)
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        refuse(f"{str(source)!r} cannot be unpacked: {error}", "fetch it anew", "IMPORT_DAMAGED")


class _Bounded:
    """A tar's bytes as they come out of the compression: no more than the room has, and no header larger than a header is."""

    def __init__(self, file: IO[bytes], room: _Room) -> None:
        self._file, self._room = file, room

    def read(self, size: int = -1) -> bytes:
        """Bytes at the current place. Raises RefusedError."""
        if not 0 <= size <= MOST_AT_ONCE:
            self._room.too_much("an entry's header of many megabytes")
        self._look(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place. Raises RefusedError where it lies beyond what may come."""
        self._look(place)
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """The current place."""
        return self._file.tell()

    def _look(self, place: int) -> None:
        if place > 2 * self._room.most + ALWAYS_BYTES:  # what was passed over counts too
            self._room.too_much(f"more than {self._room.most >> 20} MiB unpacked")
