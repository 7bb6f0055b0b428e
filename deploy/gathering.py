"""The signals of one target on their way here: pull what its box published, acknowledge what the daemon has stored.

Segments never change once they are published, and rsync writes under another name until a file is whole. They are pulled into
`spool.coming/` and renamed into the mirror in the order of their numbers and without a gap, so that whoever reads the mirror
may go by the highest number. A pull that was cut in the middle, or two at once, leave whole files there, which the next pull
moves on. What the daemon has stored (`ack.json`) is told to the box, then deleted here; a file that comes twice is known by
its number and goes. Where another box is behind the target than the one whose lines are here, these are put into `spool.left/`
for the daemon to store: nobody can ask that box again.
"""

import shutil
from pathlib import Path

from core.signals import Ack
from deploy.rsync import Road, fetch_folder, send_file
from store.codec import read_if_whole
from store.durable import lines_of, replace_file, sync_dir
from store.paths import Home
from store.spool import segments_in
from store.targets import ACK, SPOOL_BOX, SPOOL_LEFT, box_of_spool, mirror, spools_left

SPOOL = "spool"  # in `out/` of the box, and in the mirror
COMING = "spool.coming"  # beside the mirror


class Gathering:
    """The signals of one target. The only writer of its mirror's `spool/`. A new one goes on where any other left off."""

    def __init__(self, home: Home, road: Road) -> None:
        self._home, self._road = home, road
        self._ack = home.target(road.target) / ACK
        self._mirror = mirror(home, road.target) / SPOOL
        self._coming = home.target(road.target) / COMING
        self._have: int | None = None  # the highest number that is in the mirror or was stored; None: not looked yet
        self._behind_gap = 0  # number before which the last whole pull found some missing
        self._told: Ack | None = None
        self._box = ""

    def turn(self, box: str, spooled: int) -> None:
        """Acknowledge, then pull what is new. Args: box: its id. spooled: what it says is there to be fetched. Raises TransferError, OSError."""
        ack = read_if_whole(Ack, self._ack)
        if ack is not None and ack.box == box:
            self._acknowledge(ack)
        if self._have is None or box != self._box:
            self._follow(box, ack)
            shutil.rmtree(self._coming, ignore_errors=True)  # of a killed link: whole files too, which come again
            self._have, self._box = self._highest(ack.number if ack is not None and ack.box == box else 0), box
        if spooled <= self._have:
            return
        self._coming.mkdir(parents=True, exist_ok=True)
        self._mirror.mkdir(parents=True, exist_ok=True)
        is_whole = False
        try:
            fetch_folder(self._road, SPOOL, self._coming, known=self._mirror)
            is_whole = True
        finally:
            self._have = self._move(self._have, is_whole=is_whole)

    def _follow(self, box: str, ack: Ack | None) -> None:
        """Let the mirror hold lines of this box alone: its numbers are its own. Durable, and safe to repeat."""
        target = self._home.target(self._road.target)
        known = box_of_spool(self._home, self._road.target)
        before = known if known is not None or ack is None else ack.box
        if before is not None and before != box:
            self._set_aside(target / SPOOL_LEFT)
        if known != box:
            target.mkdir(parents=True, exist_ok=True)
            replace_file(target / SPOOL_BOX, box)

    def _set_aside(self, left: Path) -> None:
        self._mirror.mkdir(parents=True, exist_ok=True)
        for _, path in segments_in(self._coming):  # whole, and behind a gap or of a link that was killed
            if not (self._mirror / path.name).exists():
                path.rename(self._mirror / path.name)
        if not segments_in(self._mirror):
            return
        left.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in spools_left(self._home, self._road.target)), default=0) + 1
        self._mirror.rename(left / f"{number:06d}")
        for folder in (left, left.parent, self._mirror.parent):
            sync_dir(folder)

    def _move(self, have: int, *, is_whole: bool) -> int:
        """Put into the mirror what goes on from `have`; the new highest number.

        Numbers that are missing may still come, where a listing was made while they were published; where a second pull misses
        them too there are none: the box was set up anew, or its former training box has stored them.
        """
        for first, path in segments_in(self._coming):
            last = _last(first, path)
            if last <= have:
                path.unlink(missing_ok=True)
                continue
            if first > have + 1 and not (is_whole and first == self._behind_gap):
                self._behind_gap = first if is_whole else self._behind_gap
                break
            path.rename(self._mirror / path.name)
            have = last
        return have

    def _acknowledge(self, ack: Ack) -> None:
        if ack != self._told:
            send_file(self._road, self._ack)
            self._told = ack
        found = segments_in(self._mirror)
        for place, (first, path) in enumerate(found):
            last = found[place + 1][0] - 1 if place + 1 < len(found) else None
            if first > ack.number or (last or _last(first, path)) > ack.number:
                break
            path.unlink(missing_ok=True)

    def _highest(self, stored: int) -> int:
        found = segments_in(self._mirror)
        return max(stored, _last(*found[-1]) if found else 0)


def _last(first: int, path: Path) -> int:
    """The number of a segment's last line."""
    return first + sum(1 for _ in lines_of(path, errors="surrogateescape")) - 1
