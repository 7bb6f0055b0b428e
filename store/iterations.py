"""How each iteration stands, and whose loop a person stopped. The daemon writes both.

iterations/<id>.json             one that is open
iterations/<YYYY-MM>/<id>.json   one that has ended, by the month of its end: a start reads the open ones alone
iterations/continuous.json       adapter -> who stopped its loop
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from core.iterations import Iteration
from store.codec import read, read_if_whole, write
from store.durable import sync_dir
from store.paths import Home

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """That a person stopped the loop of an adapter."""

    at: datetime
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuous:
    """`continuous.json`: adapter -> who stopped its loop. The loop of an adapter that is not named runs by itself."""

    stopped: Mapping[str, Stop] = field(default_factory=dict)
    format: int = 1


NAME = "iteration-*.json"


def open_iterations(home: Home) -> Iterator[Iteration]:
    """Those that have not ended, oldest first. One that is damaged is told in the log and left alone."""
    return (found for path in sorted(home.iterations.glob(NAME)) if (found := _whole(path)) is not None and found.is_open)


def newest_iterations(home: Home) -> Iterator[Iteration]:
    """Every iteration, newest first; each is read when it is asked for."""
    paths = {path.stem: path for path in (*home.iterations.glob(NAME), *home.iterations.glob(f"*/{NAME}"))}  # an ended one last: it counts
    return (found for _, path in sorted(paths.items(), reverse=True) if (found := _whole(path)) is not None)


def _whole(path: Path) -> Iteration | None:
    found = read_if_whole(Iteration, path)
    if found is None and path.exists():
        log.warning("%s is damaged and left alone", path, extra={"action": "record_damaged"})
    return found


def write_iteration(home: Home, iteration: Iteration) -> None:
    """Replace it durably, and where it has ended move it to its month. A repeat changes nothing. Raises OSError."""
    is_first = not home.iterations.is_dir()
    place = home.iterations / f"{iteration.ended_at:%Y-%m}" if iteration.ended_at else home.iterations
    place.mkdir(parents=True, exist_ok=True)
    write(place / f"{iteration.id}.json", iteration)
    if iteration.ended_at:
        sync_dir(home.iterations)
        (home.iterations / f"{iteration.id}.json").unlink(missing_ok=True)
    if is_first:
        sync_dir(home.root)


def read_continuous(home: Home) -> Continuous:
    """Whose loop a person stopped. Raises IntegrityError for a damaged file: whoever stopped a loop must not find it running."""
    try:
        return read(Continuous, home.continuous)
    except FileNotFoundError:
        return Continuous()


def write_continuous(home: Home, continuous: Continuous) -> None:
    """Replace it durably. Raises OSError."""
    home.iterations.mkdir(exist_ok=True)
    write(home.continuous, continuous)


def stopped(home: Home) -> Mapping[str, Stop]:
    """Adapter -> who stopped its loop, for whoever asks without the daemon. Raises IntegrityError."""
    return read_continuous(home).stopped
