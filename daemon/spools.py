"""Takes in what the links pull: the mirrored spools of the targets, in order, each signal once.

Stored durably first, then the cursor (`feedback/cursors.json`), then the acknowledgment (`targets/<name>/ack.json`), which the
link pushes: whatever dies in between, the lines are there again, and number and id decide that nothing is stored twice.
Lines of a box that is no longer behind its target (`targets/<name>/spool.left/`) are stored first; nobody is told of these.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from core.signals import Ack, Signal
from daemon.clock import monotonic_s
from store.codec import read_if_whole, write
from store.durable import lines_of, replace_file
from store.paths import Home
from store.spool import segments_in, spooled_after
from store.targets import box_of_spool, mirror, spools_left
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
    box: str | None = None  # whose lines are read; None: nothing was read yet
    left: dict[str, int] = field(default_factory=dict)  # folder of a former box -> number of its last line that is stored
    stuck: dict[str, Marks] = field(default_factory=dict)  # such a folder with a damaged line -> how its segments were then


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
            stored += self._read_left(name, seen, now) or self._read(name, seen, now)
            self._acknowledge(name, seen)
        return stored

    def _read_left(self, name: str, seen: _Seen, now: datetime) -> int:
        """Store the next lines of a box that was behind the target before; its folder goes with the last one."""
        for folder in spools_left(self.home, name):
            cursor, marks = seen.left.get(folder.name, 0), _marks(folder)
            if marks and seen.stuck.get(folder.name) == marks:
                continue
            if lines := spooled_after(folder, cursor, MOST):
                self.take([line.signal for line in lines], now)
                seen.left[folder.name] = lines[-1].number
                return len(lines)
            if _last_number(folder) > cursor:
                self.warn(f"{folder} holds a line behind number {cursor} that is no signal; what is behind it waits")
                seen.stuck[folder.name] = marks
                continue
            shutil.rmtree(folder)
            seen.left.pop(folder.name, None)
        return 0

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
        box = self._box(name)
        if seen.box is None:
            ack = read_if_whole(Ack, self.home.target(name) / ACK)
            seen.box = ack.box if ack is not None else box
        if box is None or box == seen.box:
            return cursor
        seen.box, self.cursors[name] = box, 0
        return 0

    def _box(self, name: str) -> str | None:
        """Whose lines the mirror holds, by the link's own word: what the box says of itself comes over before its lines do."""
        if (box := box_of_spool(self.home, name)) is not None:
            return box
        active = read_active(mirror(self.home, name) / "active.json")
        return active.box if active is not None else None

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
        box = self._box(name)
        if box is None:
            return
        ack, path = Ack(box=box, number=number), self.home.target(name) / ACK
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


def _last_number(folder: Path) -> int:
    """The number that the last line of a folder of segments has where all before it are whole."""
    found = segments_in(folder)
    return found[-1][0] - 1 + sum(1 for _ in lines_of(found[-1][1], errors="surrogateescape")) if found else 0


def _marks(folder: Path) -> Marks:
    """What changes when more lines come."""
    found = []
    for number, path in segments_in(folder):
        try:
            found.append((number, path.stat().st_size))
        except OSError:
            continue
    return tuple(found)
