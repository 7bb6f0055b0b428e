"""`caches/weaknesses/<persona>/<domain>.json`: what was found of one adapter. Whoever finds or teaches holds its lock.

Beside them `caches/exams/<skill>.json`, the rows of a skill's last evaluation that were answered wrong. Both hold the text of
failures; so they lie in the caches, where a forgetting takes all of it, and are made again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.weaknesses import Failed, Weaknesses
from store.codec import read_if_whole, write
from store.locks import take_lock
from store.paths import Home

PLACE = "weaknesses"


def weaknesses_file(home: Home, adapter: str) -> Path:
    """Where they lie."""
    return home.root / "caches" / PLACE / f"{adapter}.json"


def read_weaknesses(home: Home, adapter: str) -> Weaknesses | None:
    """What was found of an adapter; None where nobody looked, or what lies there is damaged: it is made again."""
    return read_if_whole(Weaknesses, weaknesses_file(home, adapter))


def all_weaknesses(home: Home) -> Iterator[Weaknesses]:
    """Of every adapter, by name."""
    root = home.root / "caches" / PLACE
    for path in sorted(root.glob("*/*.json")):
        found = read_weaknesses(home, str(path.relative_to(root).with_suffix("")))
        if found is not None:
            yield found


def write_weaknesses(home: Home, found: Weaknesses) -> None:
    """Replace what was found of an adapter. Raises OSError."""
    path = weaknesses_file(home, found.adapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, found, durable=False)


def exam_file(home: Home, skill: str) -> Path:
    """Where the rows lie that the last evaluation of a skill found wrong."""
    return home.root / "caches" / "exams" / f"{skill}.json"


def read_failed(home: Home, skill: str) -> Failed | None:
    """Them; None where there was no evaluation, or they were forgotten."""
    return read_if_whole(Failed, exam_file(home, skill))


def write_failed(home: Home, failed: Failed) -> None:
    """Replace them. Raises OSError."""
    path = exam_file(home, failed.skill)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, failed, durable=False)


@contextmanager
def finding(home: Home, adapter: str) -> Iterator[None]:
    """Nobody else finds or teaches weaknesses of this adapter meanwhile. Raises LockHeldError."""
    lock = take_lock(
        weaknesses_file(home, adapter).with_suffix(".lock"),
        f"pid {os.getpid()}",
        f"the weaknesses of {adapter}",
        hint="they are being looked for: wait for the end",
    )
    try:
        yield
    finally:
        os.close(lock)
