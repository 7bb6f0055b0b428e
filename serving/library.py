"""Releases on this box: arrivals are moved out of the training box's reach, verified, and then never change.

`in/incoming/<release>.<attempt>/` → `releases/.checking/<release>.<attempt>/` → `releases/<persona>/<domain>/v<N>-<12 hex>/`

Each arrow is one rename. A crash leaves an arrival at one of these places, and each of them is looked at again.
"""

import logging
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from core.errors import IntegrityError, LoradError, StateError
from core.servable import layout_of
from core.wire import Manifest, release_name
from serving.engines.port import BaseIdentity
from store.durable import move
from store.paths import Box
from store.seals import SEAL
from store.wire import MANIFEST, check_release, release_id

log = logging.getLogger(__name__)

ROTTEN = frozenset({"MANIFEST_MISSING", "RELEASE_BYTES", "SIGNATURE_FOREIGN", "SIGNATURE_MISSING"})
OTHER_BASE = "train it again on the base of this box, or give this box that base"


class Deferred(LoradError):
    """The wish cannot be carried out now; it is tried again."""


class Library:
    """The verified releases of one box. One writing thread."""

    def __init__(self, box: Box, keys: Path, base: BaseIdentity, backend: str) -> None:
        self._box = box
        self._keys = keys
        self._base = base
        self._backend = backend
        self._folders: dict[str, Path] = {}

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
                shutil.rmtree(self._folders.pop(release))
        arrival = self._arrival(release)
        manifest = self._verify(arrival, release, alias)
        place = self._box.releases / release_name(manifest.adapter, manifest.version, release)
        shutil.rmtree(place, ignore_errors=True)  # not in the index, so not a release
        move(arrival, place)
        self._folders[release] = place
        return manifest

    def drop(self, release: str) -> None:
        """Delete what is being checked of a refused release."""
        for folder in self._box.checking.glob(f"{release}.*"):
            shutil.rmtree(folder)

    def purge(self, releases: Iterable[str]) -> None:
        """Delete releases wherever they lie on this box: verified, being checked, arriving. Raises OSError."""
        for release in releases:
            if release in self._folders:
                folder = self._folders.pop(release)
                os.unlink(folder / MANIFEST)  # first: what is half deleted is no release
                shutil.rmtree(folder)
            for left in (*self._box.checking.glob(f"{release}.*"), *self._box.incoming.glob(f"{release}.*")):
                shutil.rmtree(left)

    def remains(self, release: str) -> bool:
        """Whether anything of a release lies on this box."""
        places = (self._box.checking.glob(f"{release}.*"), self._box.incoming.glob(f"{release}.*"), self._box.releases.glob(f"*/*/v*-{release[:12]}"))
        return any(True for place in places for _ in place)

    def sweep(self, wanted: Iterable[str]) -> None:
        """Delete leftovers: checked folders that no wish waits for, arrivals of known releases, older attempts."""
        waiting = set(wanted)
        for folder in self._box.checking.iterdir():
            if folder.name.partition(".")[0] not in waiting:
                shutil.rmtree(folder, ignore_errors=True)
        newest: dict[str, Path] = {}
        for folder in sorted(self._box.incoming.iterdir(), key=_attempt):
            release = folder.name.partition(".")[0]
            for old in [folder] if release in self._folders else [newest[release]] if release in newest else []:
                shutil.rmtree(old, ignore_errors=True)
            newest[release] = folder

    def _arrival(self, release: str) -> Path:
        checking = sorted(self._box.checking.glob(f"{release}.*"), key=_attempt)
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
