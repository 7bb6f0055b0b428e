"""Takes in a base model that `lorad deploy push --base` has brought: verified before it stands in models_dir."""

import logging
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from core.errors import IntegrityError, LoradError
from core.names import is_part
from core.wire import Capacity
from serving.arrivals import copy_file, copy_tree
from store import codec
from store.bases import gguf_place, read_base
from store.durable import move
from store.keys import verify
from store.paths import Box
from store.seals import SEAL, check_seal, hash_file, is_sealed

log = logging.getLogger(__name__)


def take_in_bases(box: Box, models: Path, trust: Path) -> None:
    """Move every whole base out of `in/bases/` into models_dir. One that is not what a trusted training box sealed is deleted and logged."""
    if not box.bases.is_dir():
        return
    for arrival in sorted(path for path in box.bases.iterdir() if path.is_dir() and not path.is_symlink()):
        signature = _signature(arrival)
        if not is_sealed(arrival) or not signature.is_file():
            continue  # on its way, or broken off
        name = _name(arrival)
        try:
            _take_in(arrival, box, models / name, trust)
            log.info("base %s is taken in", name, extra={"action": "base_taken_in"})
            _sweep(box, name)
        except (LoradError, OSError) as error:
            log.error("base %s is refused: %s", arrival.name, error, extra={"action": "base_refused"})
            shutil.rmtree(arrival, ignore_errors=True)
            signature.unlink(missing_ok=True)


def _signature(arrival: Path) -> Path:
    return arrival.with_name(f"{arrival.name}.sig")


def _name(arrival: Path) -> str:
    return arrival.name.removesuffix(".sig").rpartition(".")[0]


def _take_in(arrival: Path, box: Box, place: Path, trust: Path) -> None:
    """Copy out of the sender's reach, verify, then move to its place. Raises LoradError and OSError."""
    if not is_part(place.name):
        raise IntegrityError(f"{place.name!r} is no name of a base", hint="push it again", code="BASE_NAME")
    signature = _signature(arrival).read_text().strip()
    checking = box.checking / f"base-{arrival.name}"
    shutil.rmtree(checking, ignore_errors=True)
    move(arrival, checking)
    making = place.with_name(f".{place.name}.arriving")
    try:
        making.parent.mkdir(parents=True, exist_ok=True)
        copy_tree(checking, making)
        _verify(making, signature, trust)
        if not is_sealed(place):
            move(making, place)
        _take_in_gguf(box.bases / gguf_place(place).name, place)
    finally:
        for left in (checking, making):
            shutil.rmtree(left, ignore_errors=True)


def _take_in_gguf(arrival: Path, base: Path) -> None:
    """Copy the GGUF file of a base, where it has arrived whole, to its place. Raises LoradError and OSError."""
    place = gguf_place(base)
    if not arrival.is_file() or place.is_file():
        return
    place.parent.mkdir(exist_ok=True)
    making = place.with_suffix(".arriving")
    making.unlink(missing_ok=True)
    try:
        copy_file(arrival, making)
        if hash_file(making) == read_base(base).source_sha256:
            move(making, place)
            arrival.unlink(missing_ok=True)
    finally:
        making.unlink(missing_ok=True)


def _verify(folder: Path, signature: str, trust: Path) -> None:
    """Raises IntegrityError for links, a foreign seal, and bytes that are not those that were sealed."""
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in folder.rglob("*")):
        raise IntegrityError(f"{folder} holds links", hint="push the base again", code="BASE_BYTES")
    verify(trust, (folder / SEAL).read_bytes(), signature)
    check_seal(folder)
    read_base(folder)


def _sweep(box: Box, name: str) -> None:
    """Delete what broken attempts at this base left."""
    for left in (path for path in box.bases.iterdir() if _name(path) == name):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def tell_of_no_base(box: Box, box_id: str, now: Callable[[], datetime]) -> None:
    """Leave a sign of life that names no base, so that the training box can say what is missing here."""
    space = shutil.disk_usage(box.root)
    told = Capacity(box=box_id, at=now(), free_bytes=space.free, free_inodes=0, base_sha256="", engine="none: no base model", pid=0)
    codec.write(box.capacity, told, durable=False)
