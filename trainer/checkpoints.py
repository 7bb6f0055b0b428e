"""Checkpoints and resume points of a run: folders that exist only once they are sealed.

    checkpoints/step_000123/   what ranking judges: an adapter in PEFT layout and checkpoint.json
    resume/step_000123/        what a later run goes on from: adapter, optimizer, step, random state; the newest two

Each is filled under `.making/`, sealed, and renamed in. A run that goes on from another run's resume point links that
run's earlier checkpoints into its own folder, so that its result is whole by itself.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import IntegrityError
from core.records import Candidate
from store.durable import made_aside
from store.seals import SEAL, check_seal, is_sealed, seal, seal_hash

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
RESUME = "resume"
NOTE = "checkpoint.json"
MAKING = ".making"
PREFIX = "step_"

Fill = Callable[[Path], None]


def _name(step: int) -> str:
    return f"{PREFIX}{step:06d}"


def _sealed(parent: Path) -> Iterator[tuple[int, Path]]:
    """Steps and folders below `parent` in order; a folder without its seal does not exist."""
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        if is_sealed(folder):
            yield int(folder.name.removeprefix(PREFIX)), folder


def _make(root: Path, kind: str, step: int, fill: Fill) -> None:
    with made_aside(root / kind / _name(step), root / MAKING) as aside:
        fill(aside)
        seal(aside)


def keep(root: Path, step: int, fill: Fill) -> None:
    """Seal a checkpoint that `fill` writes into the folder it is given. A repeat is harmless."""
    if not has_checkpoint(root, step):
        _make(root, CHECKPOINTS, step, fill)


def has_checkpoint(root: Path, step: int) -> bool:
    """Whether the checkpoint of this step is whole."""
    return is_sealed(root / CHECKPOINTS / _name(step))


def kept(root: Path) -> tuple[Candidate, ...]:
    """The sealed checkpoints in order of their steps; paths are relative to `root`."""
    found = []
    for step, folder in _sealed(root / CHECKPOINTS):
        dev_loss = json.loads((folder / NOTE).read_bytes())["dev_loss"]
        found.append(Candidate(step=step, path=f"{CHECKPOINTS}/{folder.name}", sha256=seal_hash(folder), dev_loss=dev_loss))
    return tuple(found)


def save_resume(root: Path, step: int, fill: Fill) -> None:
    """Seal a resume point, then delete the older ones but for the one before: a disk may tear the newest. A repeat is harmless."""
    if not is_sealed(root / RESUME / _name(step)):
        _make(root, RESUME, step, fill)
    earlier = [folder for older, folder in _sealed(root / RESUME) if older < step]
    for folder in earlier[:-1]:
        (folder / SEAL).unlink()  # first: a half-deleted folder must not look whole
        shutil.rmtree(folder)


def newest_resume(root: Path) -> str | None:
    """The newest sealed resume point, relative to `root`."""
    found = list(_sealed(root / RESUME))
    return f"{RESUME}/{found[-1][1].name}" if found else None


def usable_resumes(newest: Path) -> Iterator[Path]:
    """`newest` and the job's resume points before it, newest first, as far as they have the bytes that were sealed; what has others is told.

    Whoever lists resume points reads no large file to its end: damage of equal length is first seen here.
    """
    earlier = (folder for folder in newest.parents[2].glob(f"*/{RESUME}/{PREFIX}*") if is_sealed(folder) and _age(folder) < _age(newest))
    for folder in (newest, *sorted(earlier, key=_age, reverse=True)):
        try:
            check_seal(folder)
        except (IntegrityError, OSError) as error:
            log.warning("no resume point: %s", error)
        else:
            yield folder


def _age(resume: Path) -> tuple[str, str]:
    """Its step, then its run: the same order in which the daemon lists them."""
    return resume.name, resume.parents[1].name


def adopt(resume: Path, root: Path) -> None:
    """Link the checkpoints that the run of `resume` had sealed up to that step into `root`. Sealed bytes never change."""
    through = int(resume.name.removeprefix(PREFIX))
    for step, folder in _sealed(resume.parent.parent / CHECKPOINTS):
        if step <= through and not has_checkpoint(root, step):
            with made_aside(root / CHECKPOINTS / folder.name, root / MAKING) as aside:
                shutil.copytree(folder, aside, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, destination)
