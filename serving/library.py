"""Releases on this box: arrivals are moved out of the training box's reach, verified, and then never change.

`in/incoming/<release>.<attempt>/` → `releases/.checking/<release>.<attempt>/` → `releases/<persona>/<domain>/v<N>-<12 hex>/`

The first arrow is a rename. The second is the rename of a verified copy (`arrivals`), of which no sender has a file open. A crash
leaves an arrival at one of these places, and each of them is looked at again.
"""

import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from core.errors import IntegrityError, LoradError, StateError
from core.servable import layout_of
from core.wire import Manifest, release_name
from serving.arrivals import copy_tree
from serving.engines.port import BaseIdentity
from store.capture import purge_captures
from store.durable import move
from store.paths import Box
from store.seals import SEAL
from store.wire import MANIFEST, check_release, read_manifest, release_id

log = logging.getLogger(__name__)

ROTTEN = frozenset({"MANIFEST_MISSING", "RELEASE_BYTES", "SIGNATURE_FOREIGN", "SIGNATURE_MISSING"})
OWN = "own"  # where the number of an attempt stands: the copy that becomes the release
ARRIVAL = re.compile(r"[0-9a-f]{64}\.[0-9]{1,20}")
ABANDONED_S = 3600.0  # an arrival that nobody wishes for goes when nothing of it has moved for so long; a slow road still moves
LEAST_FREE_BYTES, LEAST_FREE_INODES = 16 << 20, 64  # for what the box itself writes: its ledger, active.json
CODE = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".py", ".so"})
OTHER_BASE = "train it again on the base of this box, or give this box that base"


class Deferred(LoradError):
    """The wish cannot be carried out now; it is tried again."""


class Rotten(IntegrityError):
    """The bytes of a release that was verified on this box are not those any more."""


class Library:
    """The verified releases of one box. One writing thread."""

    def __init__(self, box: Box, keys: Path, base: BaseIdentity, backend: str) -> None:
        self._box = box
        self._keys = keys
        self._base = base
        self._backend = backend
        self._folders: dict[str, Path] = {}
        self._bytes: dict[str, int] = {}  # of those that `retain` has looked at

    def open(self) -> None:
        """Learn what lies in `releases/`. Raises StateError where a release could not be moved in by rename."""
        if self._box.incoming.stat().st_dev != self._box.checking.stat().st_dev:
            raise StateError(
                f"{self._box.incoming} is on another file system than {self._box.releases}",
                hint="a release is taken by rename: put in/ and releases/ on one file system",
                code="BOX_OTHER_DEVICE",
            )
        for folder in self._box.releases.glob("[!.]*/[!.]*/v*-*"):
            if not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)  # a purge was broken off
                continue
            try:
                self._folders[release_id(folder)] = folder
            except OSError as error:
                log.warning("%s is no release: %s", folder, error)

    def ids(self) -> tuple[str, ...]:
        """Ids of the releases on the box."""
        return tuple(sorted(self._folders))

    def folder(self, release: str) -> Path:
        """Where a release lies that `admit` or `recall` has returned."""
        return self._folders[release]

    def name_of(self, release: str) -> str:
        """The release's own name, persona/domain@vN. Raises KeyError where it is not here."""
        folder = self._folders[release]  # releases/<persona>/<domain>/v<N>-<12 hex>
        return f"{folder.parent.parent.name}/{folder.parent.name}@{folder.name.partition('-')[0]}"

    def alias_of(self, release: str) -> str:
        """The adapter that a release of this box is of. Raises IntegrityError where it is not here."""
        if release not in self._folders:
            raise IntegrityError(f"release {release[:12]} is not on this box", hint="it is sent by a wish", code="RELEASE_MISSING")
        return read_manifest(self._folders[release]).adapter

    def recall(self, release: str, alias: str) -> Manifest:
        """A release that is already on the box, its bytes verified again. Raises LoradError."""
        if release not in self._folders:
            raise IntegrityError(f"release {release[:12]} is not on this box", hint="it is sent again by a new wish", code="RELEASE_MISSING")
        return self._verify(self._folders[release], release, alias)

    def admit(self, release: str, alias: str) -> Manifest:
        """The release, verified and in its place under `releases/`.

        Raises Deferred RELEASE_MISSING while it has not arrived whole; another LoradError where it is not what the wish
        names: then the arrival stays in `.checking/` until `drop`, so that a crash before the ledger line repeats this.
        """
        if release in self._folders:
            try:
                return self.recall(release, alias)
            except IntegrityError as error:
                if error.code not in ROTTEN:
                    raise
                log.error("release %s rotted on this box and is dropped: %s", release[:12], error.what)
                shutil.rmtree(self._folders.pop(release), ignore_errors=True)  # it may be gone altogether
        arrival = self._arrival(release)
        self._check_room(release, arrival)
        own = self._box.checking / f"{release}.{OWN}"
        try:
            copy_tree(arrival, own)
            manifest = self._verify(own, release, alias)
            _no_code(own)
            place = self._box.releases / release_name(manifest.adapter, manifest.version, release)
            shutil.rmtree(place, ignore_errors=True)  # not in the index, so not a release
            move(own, place)
        finally:
            shutil.rmtree(own, ignore_errors=True)
        self._folders[release] = place
        shutil.rmtree(arrival, ignore_errors=True)  # else swept later
        return manifest

    def drop(self, release: str) -> None:
        """Delete what is being checked of a refused release."""
        for folder in self._box.checking.glob(f"{release}.*"):
            shutil.rmtree(folder)

    def purge(self, releases: Iterable[str]) -> None:
        """Delete releases wherever they lie on this box: verified, being checked, arriving. Raises OSError."""
        for release in releases:
            if release in self._folders:
                self._remove(release)
            for left in (*self._box.checking.glob(f"{release}.*"), *self._box.incoming.glob(f"{release}.*")):
                shutil.rmtree(left)

    def purge_texts(self, releases: Iterable[str]) -> None:
        """Delete what was captured of the answers of these releases. Raises OSError."""
        purge_captures(self._box, releases)

    def remains(self, release: str) -> bool:
        """Whether anything of a release lies on this box."""
        places = (self._box.checking.glob(f"{release}.*"), self._box.incoming.glob(f"{release}.*"), self._box.releases.glob(f"*/*/v*-{release[:12]}"))
        return any(True for place in places for _ in place)

    def retain(self, keep: Iterable[str], most_bytes: int) -> tuple[str, ...]:
        """Delete releases outside of `keep`, those first that came first, until the rest holds `most_bytes` at most. Returns what went.

        What is kept is kept whatever it holds. Raises OSError.
        """
        kept, gone = set(keep), []
        self._bytes = {release: self._bytes.get(release) or _bytes_of(folder) for release, folder in self._folders.items()}
        held = sum(self._bytes.values())
        for release in sorted(self._folders.keys() - kept, key=lambda one: self._folders[one].stat().st_ctime_ns):
            if held <= most_bytes:
                break
            held -= self._bytes.pop(release)
            self._remove(release)
            gone.append(release)
        return tuple(gone)

    def sweep(self, wanted: Iterable[str]) -> None:
        """Delete leftovers: checked folders that no wish waits for, arrivals of known releases, older attempts, what was given up.

        Of an attempt that is under way the one before it stays too: what arrived there is not sent again.
        """
        waiting = set(wanted)
        for folder in self._box.checking.iterdir():
            if folder.name.partition(".")[0] not in waiting:
                shutil.rmtree(folder, ignore_errors=True)
        for release, attempts in self._arrivals().items():
            is_gone = release in self._folders or (release not in waiting and _is_quiet(attempts[-1]))
            under_way = 1 if (attempts[-1] / SEAL).exists() else 2
            for old in attempts if is_gone else attempts[:-under_way]:
                shutil.rmtree(old, ignore_errors=True)
        for left in self._box.incoming.parent.glob(".*"):  # what a killed rsync leaves of a file, under a name of its own
            if left.is_file() and _is_quiet(left):
                left.unlink(missing_ok=True)

    def _arrivals(self) -> dict[str, list[Path]]:
        """Release -> its incoming folders, oldest attempt first. What has another name is no arrival and goes when it is quiet."""
        found: dict[str, list[Path]] = {}
        for entry in sorted(self._box.incoming.iterdir(), key=_attempt):
            if ARRIVAL.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                found.setdefault(entry.name.partition(".")[0], []).append(entry)
            elif _is_quiet(entry):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return found

    def _check_room(self, release: str, arrival: Path) -> None:
        """Raises Deferred BOX_DISK where the box could not copy the arrival, or not write down what it does."""
        room = os.statvfs(self._box.checking)
        needed = LEAST_FREE_BYTES + _bytes_of(arrival)
        lacks_inodes = room.f_files > 0 and room.f_favail < LEAST_FREE_INODES  # some file systems have no table of them
        if room.f_bavail * room.f_frsize < needed or lacks_inodes:
            has = f"{room.f_favail} inodes" if lacks_inodes else f"{room.f_bavail * room.f_frsize >> 20} MiB"
            raise Deferred(f"release {release[:12]}: this box has {has} free", hint="free disk space on this box, or set serving.releases_gb", code="BOX_DISK")

    def _remove(self, release: str) -> None:
        folder = self._folders.pop(release)
        os.unlink(folder / MANIFEST)  # first: what is half deleted is no release
        shutil.rmtree(folder)

    def _arrival(self, release: str) -> Path:
        checking = sorted((folder for folder in self._box.checking.glob(f"{release}.*") if ARRIVAL.fullmatch(folder.name)), key=_attempt)
        if checking:
            return checking[-1]
        arrived = [folder for folder in self._box.incoming.glob(f"{release}.*") if not folder.is_symlink() and (folder / SEAL).is_file()]
        if not arrived:
            raise Deferred(f"release {release[:12]} has not arrived whole", hint="it is on its way, or must be sent", code="RELEASE_MISSING")
        newest = max(arrived, key=_attempt)
        move(newest, self._box.checking / newest.name)
        return self._box.checking / newest.name

    def _verify(self, folder: Path, release: str, alias: str) -> Manifest:
        _plain_files_only(folder)
        found, manifest = check_release(folder, self._keys)
        if found != release:
            raise IntegrityError(f"{folder} is release {found[:12]}, not {release[:12]}", hint="send it under its own id", code="RELEASE_BYTES")
        for code, what, has, needs in (
            ("ADAPTER_MISMATCH", "adapter", manifest.adapter, alias),
            ("BACKEND_MISMATCH", "backend", layout_of(manifest.backend), self._backend),
            ("BASE_MISMATCH", "base", manifest.base_sha256, self._base.base_sha256),
            ("TOKENIZER_MISMATCH", "tokenizer", manifest.tokenizer_sha256, self._base.tokenizer_sha256),
            ("TEMPLATE_MISMATCH", "chat template", manifest.template_sha256, self._base.template_sha256),
        ):
            if has != needs:
                raise IntegrityError(f"release {release[:12]} is for {what} {has!r}, here it is {needs!r}", hint=OTHER_BASE, code=code)
        return manifest


def _attempt(folder: Path) -> tuple[str, str]:
    release, _, attempt = folder.name.partition(".")
    return release, attempt.zfill(24)  # 2 before 10


def _plain_files_only(folder: Path) -> None:
    """A link or a device in a release would be read from elsewhere than was hashed. Raises IntegrityError."""
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(root, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise IntegrityError(f"{os.path.join(root, name)} is not a plain file", hint="releases hold plain files only", code="RELEASE_BYTES")


def _no_code(folder: Path) -> None:
    """A pickle runs code where it is loaded. Raises IntegrityError."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in CODE:
            raise IntegrityError(f"{path} is of a form that can hold code", hint="releases hold weights as safetensors", code="ADAPTER_FILE_FOREIGN")


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _is_quiet(path: Path) -> bool:
    """Whether nothing of a file or folder has changed for an hour, by this box's clock: the sender's times mean nothing here."""
    try:
        newest: float = max(entry.lstat().st_ctime for entry in (path, *(path.rglob("*") if path.is_dir() else ())))
    except FileNotFoundError:
        return False
    return time.time() - newest > ABANDONED_S
