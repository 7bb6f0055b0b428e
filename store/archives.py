"""Backups: a snapshot of home's state packed into one file, `.tar.zst`; and the way back from a backup or a snapshot.

A backup holds the private signing key and the rows of all accepted drops: without either a restored home could not go on.
It is made with mode 0600; keep it as you keep home itself.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError, StateError, UsageError
from store.child import clock
from store.durable import replace_file, sync_dir
from store.journal import write_entry
from store.locks import is_locked
from store.paths import FORMAT, Home
from store.seals import check_seal
from store.snapshots import CHECKPOINT, HOME, NOTE, snapshot_home
from store.targets import RESTORED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

SUFFIX = ".tar.zst"
LEVEL = 3  # what is large is compressed already or does not compress
MOST_BYTES = 1 << 40  # unpacked; a file that grows beyond is no backup of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did."""

    into: Path
    kind: str
    at: str  # of which moment it is
    files: int
    left_out: tuple[str, ...] = ()


# ---------------------------------------------------------------- backup


def pack(snapshot: Path, destination: Path) -> int:
    """Write the sealed snapshot as one file, mode 0600, whole or not at all. Returns its bytes. Raises UsageError where it exists."""
    import zstandard

    if destination.exists():
        raise UsageError(f"{str(destination)!r} exists already", hint="name another file, or move that one away", code="FILE_EXISTS")
    aside = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            with zstandard.ZstdCompressor(level=LEVEL).stream_writer(file, closefd=False) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
                tar.add(snapshot / NOTE, NOTE)
                for path in sorted(snapshot.iterdir()):
                    if path.name != NOTE:
                        tar.add(path, path.name)
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, destination)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_dir(destination.parent)
    return destination.stat().st_size


def back_up(home: Home, destination: Path, now: datetime, aside: Path) -> dict[str, Any]:
    """Snapshot home into `aside`, pack it as `destination`, delete `aside`. Returns the snapshot's note with the file's bytes."""
    shutil.rmtree(aside, ignore_errors=True)
    try:
        note = snapshot_home(home, aside, now)
        return note | {"bytes": pack(aside, destination)}
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def chore_backup(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "backup": make `tmp/<id>` (a file that ends in .tar.zst); the daemon renames it in."""
    name = str(spec["id"])
    (home.tmp / name).unlink(missing_ok=True)
    note = back_up(home, home.tmp / name, clock(), home.tmp / f"{name}.aside")
    return {"id": name, "bytes": note["bytes"], "message": f"backup {name}: {note['files']} files, {note['bytes']} bytes"}


# ---------------------------------------------------------------- restore


def restore(source: Path, into: Path, now: datetime) -> Restored:
    """Bring back a backup file or a snapshot folder as `into`, which must not exist or be empty. Every hash is verified first.

    A home: its keys with mode 0600; and no wish is made for a target before its fence is known again.
    Raises UsageError, StateError, IntegrityError; then nothing has changed.
    """
    _require_free(into)
    aside = into.parent / f".{into.name}.{os.getpid()}.part"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _unpack(source, aside)
        check_seal(aside)
        note = json.loads((aside / NOTE).read_text())
        inner = aside / (HOME if note["kind"] == HOME else CHECKPOINT)
        if note["kind"] == HOME:
            _prepare_home(inner, note, now)
        os.sync()
        if into.exists():
            into.rmdir()
        os.rename(inner, into)
        sync_dir(into.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Restored(into=into, kind=note["kind"], at=note["at"], files=int(note["files"]), left_out=tuple(note.get("not_inside", ())))


def _require_free(into: Path) -> None:
    if is_locked(Home(into).lock):
        raise StateError(f"a daemon runs on {str(into)!r}", hint="stop it, and restore into a folder of its own", code="DAEMON_RUNS")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        hint = "nothing is overwritten: name a folder that does not exist yet, or move that one away"
        raise StateError(f"{str(into)!r} is not empty", hint=hint, code="HOME_NOT_EMPTY")
    if not into.parent.is_dir():
        raise UsageError(f"no folder {str(into.parent)!r}", hint="make it first", code="NO_SUCH_FOLDER")


def _unpack(source: Path, aside: Path) -> None:
    if source.is_dir():
        if not (source / NOTE).is_file():
            raise UsageError(f"{str(source)!r} is no snapshot", hint="`lorad snapshot list` names them", code="NO_SNAPSHOT")
        shutil.copytree(source, aside, symlinks=True)
        return
    aside.mkdir(mode=0o700)
    try:
        with _reading(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            written = 0
            for member in tar:
                written += member.size
                if written > MOST_BYTES:
                    raise IntegrityError(f"{str(source)!r} unpacks to more than {MOST_BYTES >> 40} TiB", hint="it is no backup of lorad", code="BACKUP_DAMAGED")
                tar.extract(member, aside, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise IntegrityError(f"{str(source)!r} is no whole backup: {error}", hint="use an earlier one", code="BACKUP_DAMAGED") from None


@contextmanager
def _reading(source: Path) -> "Iterator[IO[bytes]]":
    import zstandard

    try:
        with open(source, "rb") as file, zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as stream:
            yield stream
    except FileNotFoundError:
        raise UsageError(f"no file or snapshot {str(source)!r}", hint="`lorad snapshot list` names the snapshots of this home", code="NO_SUCH_FILE") from None
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{str(source)!r} is no whole backup: {error}", hint="use an earlier one", code="BACKUP_DAMAGED") from None


def _prepare_home(home: Path, note: Mapping[str, Any], now: datetime) -> None:
    """Make what was copied a home that goes on safely."""
    found = int(json.loads((home / "format.json").read_text()).get("format", 0))
    if found > FORMAT:
        raise StateError(f"the backup has home format {found}; this lorad knows up to {FORMAT}", hint="upgrade lorad first", code="HOME_NEWER")
    for folder in (home / "keys", *(home / "keys").rglob("*")):
        folder.chmod(0o700 if folder.is_dir() else 0o644 if folder.suffix == ".pub" else 0o600)
    for target in (home / "targets").glob("*/"):
        replace_file(target / RESTORED, json.dumps({"at": now.isoformat()}) + "\n", durable=False)
    write_entry(home / "journal.jsonl", now, "home.restored", of=note["at"], home=note.get("home", ""))
