"""tmp/trash/: what was renamed out of home and waits to be deleted. The daemon renames, a chore deletes."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.retention import Item, Part
from store.durable import replace_file
from store.paths import Home
from store.runs import LOG
from store.seals import SEAL

TAIL_BYTES = 64 << 10  # what stays of the log of a run whose weights have gone
NOTE = b"(the beginning was cut when lorad made room)\n"


def throw_away(home: Home, item: Item, why: str, at: str) -> bool:
    """Rename the item's folders and files into the trash. False where there was nothing of it any more.

    A release leaves a tombstone, durable before it goes. A repeat after a crash moves the rest.
    """
    if item.part is Part.RELEASE:
        _entomb(home, item, why, at)
    moved = False
    for relative in item.paths:
        path = home.root / relative
        place = _free_place(home, relative)
        with suppress(FileNotFoundError):
            os.rename(path, place)
            moved = True
    return moved


def _entomb(home: Home, item: Item, why: str, at: str) -> None:
    for relative in item.paths:
        path = home.root / relative
        if path.is_dir():
            stone = {"release": item.owner, "adapter": item.adapter, "version": item.version, "gone_at": at, "why": why}
            replace_file(path.with_name(f"{path.name}.gone.json"), json.dumps(stone, ensure_ascii=False) + "\n")


def _free_place(home: Home, relative: str) -> Path:
    """A name in the trash that says where the thing lay; with a number where one of that name is still waiting."""
    home.trash.mkdir(parents=True, exist_ok=True)
    name, number = relative.replace("/", "+"), 1
    place = home.trash / name
    while os.path.lexists(place):
        number += 1
        place = home.trash / f"{name}+{number}"
    return place


def empty_trash(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "trash": delete what lies there, and cut the logs that `spec["logs"]` names (relative to home) to their ends."""
    deleted = 0
    if home.trash.is_dir():
        for entry in sorted(home.trash.iterdir()):
            delete(entry)
            deleted += 1
        with suppress(OSError):  # the daemon has put something in meanwhile
            home.trash.rmdir()
    for relative in spec.get("logs", ()):
        cut_to_tail(home.root / relative)
    return {"deleted": deleted}


def delete(path: Path) -> None:
    """Delete a folder, its seal first (a half-deleted folder must not look whole), or a file. No such thing: nothing happens."""
    if path.is_dir() and not path.is_symlink():
        for seal in path.rglob(SEAL):
            seal.unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def cut_to_tail(path: Path, tail_bytes: int = TAIL_BYTES, note: bytes = NOTE, above: int = 0) -> bool:
    """Keep the end of a log that is longer (and longer than `above`), with a note before it. True where it was cut.

    Whoever has it open to append goes on after that; what it says in the very moment of the cut may be lost.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return False
    if size <= max(above, tail_bytes + len(note)):
        return False
    with open(path, "r+b") as file:
        file.seek(size - tail_bytes)
        tail = file.read().partition(b"\n")[2]
        file.truncate(0)
    with open(path, "ab") as file:  # after what its writer may have said meanwhile
        file.write(note + tail)
    return True


def logs_of(items: Iterable[Item]) -> list[str]:
    """The logs (relative to home) of the runs that lose their weights."""
    runs = {"/".join(path.split("/")[:3]) for item in items if item.part in (Part.CHECKPOINT, Part.RESUME) for path in item.paths}
    return [f"{run}/{LOG}" for run in sorted(runs)]
