"""Everything that passes between the boxes goes through these functions, by the real rsync.

The flags were measured under rrsync, the confined rsync of the ssh road: `--inplace` keeps what arrived of a broken
transfer; `--partial-dir` and `--delay-updates` end with 0 there and the files are not there. JSON files travel with
`--ignore-times`: rsync's quick check skips a second file of equal size within one second, and a rollback would never be
sent. They are not written in place, so that a reader sees the old file or the new one.

Exit status 0 proves nothing about the far side's bytes; only the far side's own hashes do.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.deployment import TargetConfig
from deploy.failures import TARGET_DISK_FULL, TARGET_RACED, TransferError, explain, rsync_missing
from deploy.ssh import for_rsync, remote, shell_words
from store.paths import Box, Home
from store.seals import SEAL

SILENCE_S = 20  # a transfer without a byte for so long is broken off
RACES = 3  # repeats of a pull whose file was replaced under it
ALWAYS = ("--archive", "--fsync", f"--timeout={SILENCE_S}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """How a target's two folders are reached: a prefix for names in its `in/`, one for names in its `out/`.

    For kind local both are paths. A confined ssh key is rooted in its one folder, so there they are `user@host:`, and
    `into_options` and `out_options` name the remote shell with the key of that way. rsync runs in `folder`.
    """

    target: str
    into: str
    out_of: str
    into_options: tuple[str, ...] = ()
    out_options: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it leads over a network: then a failure is not tried again at once."""
        return self.folder is not None


def road_to(target: TargetConfig, home: Home) -> Road:
    """The road to a target of the config. Raises StateError where an ssh target was not set up yet."""
    if target.kind == "local":
        box = Box(Path(target.path))
        return Road(target=target.name, into=f"{box.incoming.parent}/", out_of=f"{box.out}/")
    into, out_of = (f"--rsh={for_rsync(shell_words(target, home, way))}" for way in ("in", "out"))
    place = remote(target)
    return Road(target=target.name, into=place, out_of=place, into_options=(into,), out_options=(out_of,), folder=home.target(target.name))


def send_release(road: Road, folder: Path, name: str, resume: str = "") -> None:
    """Copy a sealed release folder to `in/incoming/<name>/`: payload first, SEALED when all of it is there. Raises TransferError.

    What arrived of the broken attempt `resume` (a name in incoming) is not sent again: the far rsync takes it as a basis.
    """
    here = f"{road.into}incoming/" if not road.is_remote else "/incoming/"  # of the folder that the key is confined to
    send_folder(road, folder, f"incoming/{name}", (f"--copy-dest={here}{resume}", "--ignore-times") if resume else ())


def send_folder(road: Road, folder: Path, place: str, options: Sequence[str] = ()) -> None:
    """Copy a sealed folder to `in/<place>/`, its seal when all the rest of it is there. Raises TransferError."""
    into = f"{road.into}{place}/"
    _send(road, ["--inplace", *options, f"--exclude=/{SEAL}", "--", f"{folder}/", into])
    _send(road, ["--inplace", "--ignore-times", "--", str(folder / SEAL), into])


def send_file(road: Road, path: Path, name: str = "") -> None:
    """Replace `in/<name>` (else the name of `path`), whatever its time and size. Raises TransferError."""
    # Into the folder, never onto the name: rrsync replaces the name of a file that is there by a link, which rsync then tries to delete.
    place, _, last = (name or path.name).rpartition("/")
    with tempfile.TemporaryDirectory() as aside:
        (Path(aside) / last).symlink_to(path.absolute())
        _send(road, ["--ignore-times", "--copy-links", "--", f"{aside}/{last}", f"{road.into}{place or '.'}/"])


def send_large(road: Road, path: Path, place: str) -> None:
    """Copy a file to `in/<place>/`; what a broken transfer had brought stays and is not sent again. Raises TransferError."""
    _send(road, ["--inplace", "--", str(path), f"{road.into}{place}/"])


def fetch(road: Road, names: Sequence[str], folder: Path) -> None:
    """Replace `folder/<name>` by the box's `out/<name>`; a name that the box does not have is left as it is. Raises TransferError.

    Files are named one by one: a listing of a folder may miss a file that is replaced while it is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(road, list(names), folder)
    except TransferError as error:
        raise _of_this_box(error) from None


def fetch_folder(road: Road, name: str, folder: Path, known: Path) -> None:
    """Bring the files of the box's `out/<name>/` that lie neither in `folder` nor in `known`. For files that are never changed there.

    One that is deleted there meanwhile is left out. Raises TransferError.
    """
    plain = ("--no-links", "--no-devices", "--no-specials", "--exclude=.*", "--exclude=*/")  # files, whatever a damaged box holds
    words = [*road.out_options, *plain, f"--compare-dest={known}", "--", f"{road.out_of}{name}/", f"{folder}/"]
    for left in reversed(range(RACES)):
        try:
            return _rsync(road, words)
        except TransferError as error:
            if error.code != TARGET_RACED or not left:
                raise _of_this_box(error) from None


def _of_this_box(error: TransferError) -> TransferError:
    """The same, where the disk that is full is ours."""
    if error.code != TARGET_DISK_FULL:
        return error
    return TransferError(error.what, hint="free space on this box: it receives what the target says", code="DISK_FULL")


def _fetch(road: Road, left: list[str], folder: Path) -> None:
    """rrsync ends with an error for a name that is not there, and for a file that was replaced while it looked: then once more."""
    tries = len(left) + RACES
    while left:
        tries -= 1
        words = [*road.out_options, "--ignore-times", "--ignore-missing-args", "--", *(f"{road.out_of}{name}" for name in left), f"{folder}/"]
        try:
            return _rsync(road, words)
        except TransferError as error:
            if error.code != TARGET_RACED or not tries:
                raise
            left = [name for name in left if f" {name} No such file" not in error.what]


def _send(road: Road, words: list[str]) -> None:
    _rsync(road, [*road.into_options, *words])


def _rsync(road: Road, words: list[str]) -> None:
    # The words that are matched by `explain` are English only under this locale.
    environment = os.environ | {"LC_ALL": "C"}
    # Not a pipe: an ssh that stays open behind this transfer may hold its end of it.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                ["rsync", *ALWAYS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=environment, cwd=road.folder, check=False
            )
        except FileNotFoundError:
            raise rsync_missing() from None
        if done.returncode:
            said.seek(0)
            raise explain(road.target, done.returncode, said.read().decode(errors="replace"))
