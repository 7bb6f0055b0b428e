"""Takes in what the links pull: the mirrored spools of the targets, in order, each signal once.

Stored durably first, then the cursor (`feedback/cursors.json`), then the acknowledgment (`targets/<name>/ack.json`), which the
link pushes: whatever dies in between, the lines are there again, and number and id decide that nothing is stored twice.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from core.signals import Ack, Signal
from daemon.clock import monotonic_s
from store.codec import read_if_whole, write
from store.durable import replace_file
from store.paths import Home
from store.spool import segments_in, spooled_after
from store.targets import mirror
from store.wire import read_active

log = logging.getLogger(__name__)

MOST = 500  # lines of one tick: some 30 ms
GAP_S = 600.0  # so long lines that are missing are waited for; a box that was set up anew counts from another number
ACK = "ack.json"

Marks = tuple[tuple[int, int], ...]
Take = Callable[[Sequence[Signal], datetime], object]


@dataclass(slots=True)
class _Seen:
    """What is known of one target's mirror."""

    read: Marks | None = None  # how its segments were when nothing more was in them
    gap_since_s: float | None = None
    acked: tuple[str, int] | None = None
    box: str = ""  # from which lines are read, where it is another than before


@dataclass(slots=True)
class Spools:
    """The mirrors of all targets. `turn` once a tick."""

    home: Home
    take: Take  # stores signals durably; raises OSError
    warn: Callable[[str], None]  # told what a person has to mend
    cursors: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cursors = read_cursors(self.home)

    def turn(self, targets: Sequence[str], now: datetime) -> int:
        """Store the next lines of each target, then acknowledge. Returns how many were stored. Raises OSError."""
        stored = 0
        for name in targets:
            seen = self._seen.setdefault(name, _Seen())
            stored += self._read(name, seen, now)
            self._acknowledge(name, seen)
        return stored

    def _read(self, name: str, seen: _Seen, now: datetime) -> int:
        folder, cursor = mirror(self.home, name) / "spool", self.cursors.get(name, 0)
        marks = _marks(folder)
        if marks == seen.read or not marks:
            return 0
        cursor = self._follow_box(name, seen, cursor)
        lines = spooled_after(folder, cursor, MOST)
        if not lines:
            seen.read = marks
            if marks[-1][0] > cursor:
                self.warn(f"the spool of target {name!r} holds a line behind number {cursor} that is no signal; what is behind it waits")
            return 0
        if cursor and lines[0].number > cursor + 1 and self._waits(name, seen, cursor, lines[0].number):
            return 0
        whole = next((place for place, line in enumerate(lines) if line.number != lines[0].number + place), len(lines))
        seen.gap_since_s = None
        self.take([line.signal for line in lines[:whole]], now)
        self.cursors[name] = lines[whole - 1].number
        write_cursors(self.home, self.cursors)
        return whole

    def _follow_box(self, name: str, seen: _Seen, cursor: int) -> int:
        """The cursor; from the beginning where another box is behind the target than the one that was acknowledged to: its numbers are its own."""
        active, ack = read_active(mirror(self.home, name) / "active.json"), read_if_whole(Ack, self.home.target(name) / ACK)
        if active is None or ack is None or ack.box == active.box or seen.box == active.box:
            return cursor
        seen.box, self.cursors[name] = active.box, 0
        return 0

    def _waits(self, name: str, seen: _Seen, cursor: int, first: int) -> bool:
        """Whether the lines between may still come: a pull that was cut brings them with the next."""
        if seen.gap_since_s is None:
            seen.gap_since_s = monotonic_s()
            told = {"action": "spool_gap", "target": name}
            log.warning("the spool of %s goes on with line %d after %d; those between are waited for", name, first, cursor, extra=told)
        return monotonic_s() - seen.gap_since_s < GAP_S

    def _acknowledge(self, name: str, seen: _Seen) -> None:
        """Say to the box how far its lines are stored, where that is not said yet."""
        number = self.cursors.get(name, 0)
        if not number or (seen.acked is not None and seen.acked[1] == number):
            return
        active = read_active(mirror(self.home, name) / "active.json")
        if active is None:
            return
        ack, path = Ack(box=active.box, number=number), self.home.target(name) / ACK
        known = read_if_whole(Ack, path)
        if known is not None and known.box != ack.box != seen.box:
            return  # the number is of the box before
        if known != ack:
            write(path, ack)
        seen.acked = (ack.box, number)


def read_cursors(home: Home) -> dict[str, int]:
    """Target -> number of the last line that is stored; none where the file is missing or damaged: then ids alone decide."""
    try:
        found = json.loads((home.root / "feedback" / "cursors.json").read_text())
        return {str(name): int(number) for name, number in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("feedback/cursors.json is damaged, spools are read anew: %s", type(error).__name__, extra={"action": "record_damaged"})
        return {}


def write_cursors(home: Home, cursors: Mapping[str, int]) -> None:
    """Make them durable. Raises OSError."""
    path = home.root / "feedback" / "cursors.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(cursors, indent=1, sort_keys=True) + "\n")


def _marks(folder: Path) -> Marks:
    """What changes when more lines come."""
    found = []
    for number, path in segments_in(folder):
        try:
            found.append((number, path.stat().st_size))
        except OSError:
            continue
    return tuple(found)
