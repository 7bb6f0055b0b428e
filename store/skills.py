"""`curriculum/drawn/<skill>.json`: which seeds of a teacher were drawn, so that no row is drawn twice. Whoever draws holds its lock."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from store.codec import read, write
from store.locks import take_lock
from store.paths import Home

KEPT_PRINTS = 1024  # rows that are remembered by their hash, the newest; enough to find a teacher that repeats itself


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLevel:
    """What was drawn of one level. Seeds below `next_seed` were drawn, or passed over."""

    next_seed: int = 0
    rows: int = 0
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was drawn of one skill; `prints` are hashes of some rows of each draw."""

    levels: Mapping[int, DrawnLevel] = field(default_factory=dict)
    prints: tuple[str, ...] = ()

    def level(self, level: int) -> DrawnLevel:
        """What was drawn of this level; nothing for one that never was."""
        return self.levels.get(level, DrawnLevel())

    def plus(self, level: int, drawn: DrawnLevel, prints: tuple[str, ...]) -> "Drawn":
        """The same after another draw."""
        return replace(self, levels={**self.levels, level: drawn}, prints=(*self.prints, *prints)[-KEPT_PRINTS:])


def read_drawn(home: Home, skill: str) -> Drawn:
    """What was drawn of a skill. Raises IntegrityError for a damaged file."""
    try:
        return read(Drawn, home.drawn(skill))
    except FileNotFoundError:
        return Drawn()


def write_drawn(home: Home, skill: str, drawn: Drawn) -> None:
    """Remember it durably. Write it before the rows are dropped: after a crash seeds may be lost, and no row comes twice."""
    home.drawn(skill).parent.mkdir(parents=True, exist_ok=True)
    write(home.drawn(skill), drawn)


@contextmanager
def drawing(home: Home, skill: str) -> Iterator[None]:
    """Nobody else draws rows of this skill meanwhile. Raises LockHeldError."""
    path = home.drawn(skill).with_suffix(".lock")
    lock = take_lock(path, f"pid {os.getpid()}", f"the skill {skill!r}", hint="rows of it are being drawn: wait for the end")
    try:
        yield
    finally:
        os.close(lock)
