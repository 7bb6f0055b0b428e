"""Everything that passes between the boxes goes through these three functions, by the real rsync.

The flags were measured under rrsync, the confined rsync of the ssh road: `--inplace` keeps what arrived of a broken
transfer; `--partial-dir` and `--delay-updates` end with 0 there and the files are not there. JSON files travel with
`--ignore-times`: rsync's quick check skips a second file of equal size within one second, and a rollback would never be
sent. They are not written in place, so that a reader sees the old file or the new one.

Exit status 0 proves nothing about the far side's bytes; only the far side's own hashes do.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.deployment import TargetConfig
from core.errors import LoradError
from store.paths import Box
from store.seals import SEAL

SILENCE_S = 20  # a transfer without a byte for so long is broken off
ALWAYS = ("--archive", "--fsync", f"--timeout={SILENCE_S}")
INSTALL = "install rsync: `apt-get install rsync`, `dnf install rsync`, `apk add rsync` or `brew install rsync`"
ASLEEP = "start `lorad serve` on it; what is live stays live, and the delivery goes on by itself"

TARGET_DISK_FULL = "TARGET_DISK_FULL"
TARGET_UNREACHABLE = "TARGET_UNREACHABLE"
UNREACHABLE_CODES = {5, 10, 12, 30, 35, 255}  # start of the protocol, socket, stream, two timeouts, ssh


class TransferError(LoradError):
    """rsync did not bring it over; the code says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """How a target's two folders are reached: a prefix for names in its `in/`, one for names in its `out/`.

    For kind local both are paths. A confined ssh key is rooted in its one folder, so there they are `user@host:`, and
    `options` names the remote shell.
    """

    target: str
    into: str
    out_of: str
    options: tuple[str, ...] = ()


def road_to(target: TargetConfig) -> Road:
    """The road to a target of the config."""
    box = Box(Path(target.path))
    return Road(target=target.name, into=f"{box.incoming.parent}/", out_of=f"{box.out}/")


def send_release(road: Road, folder: Path, name: str) -> None:
    """Copy a sealed release folder to `in/incoming/<name>/`: payload first, SEALED when all of it is there. Raises TransferError."""
    place = f"{road.into}incoming/{name}/"
    _rsync(road, ["--inplace", f"--exclude=/{SEAL}", "--", f"{folder}/", place])
    _rsync(road, ["--inplace", "--ignore-times", "--", str(folder / SEAL), f"{place}{SEAL}"])


def send_file(road: Road, path: Path) -> None:
    """Replace `in/<name of path>`, whatever its time and size. Raises TransferError."""
    _rsync(road, ["--ignore-times", "--", str(path), f"{road.into}{path.name}"])


def fetch(road: Road, names: Sequence[str], folder: Path) -> None:
    """Replace `folder/<name>` by the box's `out/<name>`; a name that the box does not have is left as it is. Raises TransferError.

    Files are named one by one: a listing of a folder may miss a file that is replaced while it is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _rsync(road, ["--ignore-times", "--ignore-missing-args", "--", *(f"{road.out_of}{name}" for name in names), f"{folder}/"])
    except TransferError as error:
        if error.code != TARGET_DISK_FULL:
            raise
        raise TransferError(error.what, hint="free space on this box: it receives what the target says", code="DISK_FULL") from None


def _rsync(road: Road, words: list[str]) -> None:
    # The words that are matched below are English only under this locale.
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(["rsync", *ALWAYS, *road.options, *words], stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
    except FileNotFoundError:
        raise TransferError("rsync is not on PATH", hint=INSTALL, code="RSYNC_MISSING") from None
    if done.returncode:
        raise explain(road.target, done.returncode, done.stderr.decode(errors="replace"))


def explain(target: str, status: int, stderr: str) -> TransferError:
    """What rsync's exit status and messages mean for a person."""
    said = stderr.strip().splitlines()
    what = f"target {target!r}: rsync ended with {status}: {said[0] if said else 'no message'}"
    if "unknown option" in stderr:
        return TransferError(what, hint="rsync 3.2.4 or newer is needed on both boxes", code="RSYNC_OLD")
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return TransferError(what, hint="free space on the receiving box; the delivery goes on by itself", code=TARGET_DISK_FULL)
    if "Permission denied" in stderr or "Read-only file system" in stderr:
        return TransferError(what, hint="the user of the daemon must be able to write the target's in/ and to read its out/", code="TARGET_DENIED")
    if status in UNREACHABLE_CODES or "No such file or directory" in stderr:
        return TransferError(what, hint=ASLEEP, code=TARGET_UNREACHABLE)
    return TransferError(what, hint="the link tries again by itself; the message is rsync's own", code="RSYNC_FAILED")
