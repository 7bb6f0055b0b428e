"""Brings the base model to a serving box over the key that writes its `in/`: `lorad deploy push --base`.

The base goes to `in/bases/<name>.<attempt>/`, its signature beside it and its seal last; `lorad serve` verifies both before it
takes the base in, when it starts. A base whose weights lie elsewhere on this box (`model_path`) arrives whole all the same.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.config import Config
from core.deployment import TargetConfig
from core.errors import LoradError
from deploy.delivery import RESERVE_BYTES
from deploy.failures import TARGET_DISK_FULL
from deploy.rsync import Road, road_to, send_file, send_folder, send_large
from store.bases import BASE, base_folder, gguf_of, read_base, weights_folder
from store.codec import write
from store.durable import replace_file
from store.keys import sign
from store.locks import take_lock
from store.paths import Home
from store.seals import SEAL, hash_files, seal_hash
from store.targets import mirror
from store.wire import read_capacity

LOCK = "base.lock"
ATTEMPT = "base-attempt"  # number of the last folder, and the seal of what goes there while it is on its way
SHIPPED = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model"})  # of a folder of weights


@dataclass(frozen=True, slots=True)
class Shipped:
    """What was sent: the base's name in models_dir, and its bytes."""

    name: str
    num_bytes: int


def push_base(config: Config, target: TargetConfig, say: Callable[[str], None]) -> Shipped:
    """Send this home's base to a target; what an attempt that was broken off had brought is not sent again.

    Raises BaseMissingError, TransferError, LockHeldError (another push is under way) and LoradError TARGET_DISK_FULL.
    """
    home = Home(Path(config.home))
    folder = base_folder(config)
    read_base(folder)
    place = home.target(target.name)
    place.mkdir(parents=True, exist_ok=True)
    lock = take_lock(place / LOCK, f"pid {os.getpid()}", f"the base of target {target.name!r}", hint="wait until the other push has ended")
    try:
        road = road_to(target, home)
        with _staged(folder) as staging:
            gguf = gguf_of(folder)
            size = sum(path.stat().st_size for path in (*staging.iterdir(), *([gguf] if gguf else [])))
            _check_room(home, target.name, size)
            say(f"sending {folder.name} ({size / 1e6:,.0f} MB) to {target.name}")
            if gguf is not None:  # first: the base is taken in once its seal is there
                send_large(road, gguf, "bases")
            _send(home, road, staging, folder.name)
        return Shipped(folder.name, size)
    finally:
        os.close(lock)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder of links to every file of the base, its weights included, with a base.json and a seal that fit. Reads every byte."""
    weights = weights_folder(folder)
    with tempfile.TemporaryDirectory(prefix=".base-", dir=folder.parent) as made:
        staging = Path(made)
        for path in (*weights.iterdir(), *folder.iterdir()):  # the base's own tokenizer and template win
            if path.is_file() and path.suffix in SHIPPED:
                (staging / path.name).unlink(missing_ok=True)
                (staging / path.name).symlink_to(path.resolve())
        (staging / BASE).unlink()
        write(staging / BASE, replace(read_base(folder), weights="."), durable=False)
        text = "".join(f"{digest}  {name}\n" for name, digest in hash_files(staging).items())
        replace_file(staging / SEAL, text, durable=False)
        yield staging


def _send(home: Home, road: Road, staging: Path, name: str) -> None:
    note, what = home.target(road.target) / ATTEMPT, seal_hash(staging)
    try:
        last, *under_way = note.read_text().split()
        attempt = int(last) + 1
    except (FileNotFoundError, ValueError):
        attempt, under_way = 1, []
    replace_file(note, f"{attempt} {what}\n")
    signature = staging / f"{SEAL}.sig"
    replace_file(signature, sign(home.keys, (staging / SEAL).read_bytes()) + "\n", durable=False)
    place = f"bases/{name}.{attempt}"
    send_file(road, signature, f"{place}.sig")
    signature.unlink()
    options = ["--copy-links"]
    if under_way == [what]:
        here = "/bases/" if road.is_remote else f"{road.into}bases/"
        options += [f"--copy-dest={here}{name}.{attempt - 1}", "--ignore-times"]
    send_folder(road, staging, place, options)
    replace_file(note, f"{attempt}\n", durable=False)


def _check_room(home: Home, target: str, size_bytes: int) -> None:
    """Raises LoradError where the box said that it has less room than the base takes."""
    capacity = read_capacity(mirror(home, target) / "capacity.json")
    if capacity is not None and capacity.free_bytes < size_bytes + RESERVE_BYTES:
        what = f"target {target!r} has {capacity.free_bytes >> 20} MiB free, the base takes {size_bytes + RESERVE_BYTES >> 20}"
        raise LoradError(what, hint="free space on it, then push again", code=TARGET_DISK_FULL)
