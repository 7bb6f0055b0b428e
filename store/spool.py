"""The signals that a serving box took and that its training box has yet to fetch.

`append` returns once the signals are durable. Many callers share one sync: while one runs, what comes is gathered for the
next. Lines are `Spooled`, numbered without a gap over the life of the box.

A segment grows in `spool/`, which nobody fetches, and is renamed into `out/spool/` when its first line is a second old; from
then on it never changes. So the link fetches whole files only, and never a line that a power cut could take back: its
number would be given away again, and the training box would take the second signal for the first. While fetched segments
are not acknowledged, the next ones are published ever later, so that a week without the training box leaves a thousand files
and not a million. A segment that `in/ack.json` acknowledges whole is deleted.

The file that grows is always there, also empty: its name is the next number, whatever was deleted.

A crash, or a power cut, loses nothing that `append` returned for. It may leave lines behind that `append` never returned for:
whoever repeats them sends the same id.
"""

import itertools
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import LoradError, StateError
from core.signals import Ack, Signal, Spooled
from store.codec import dump, parse, read_if_whole
from store.durable import FULL, lines_of, sync_dir
from store.paths import Box

log = logging.getLogger(__name__)

SUFFIX = ".jsonl"
DIGITS = 12
FIRST_A_SECOND = 100  # a new spool begins at so many times the seconds since 1970: above all that a former one at this address gave away
MOST_BYTES = 256 << 20  # of all lines that are not acknowledged; then signals are refused
MOST_AT_ONCE = 4 << 20  # bytes of the lines that are read in one go
SEGMENT_BYTES = 1 << 20  # a segment of this size is published at once
PUBLISH_S = 1.0  # age of its first line at which a segment is published, times the number of those that wait to be fetched
PUBLISH_MOST_S = 600.0
LOOK_S = 0.25  # how often the time, and the acknowledgment, is looked at while there is anything to publish or to delete
MODE = 0o640


class SpoolFull(StateError):
    """Signals can be taken neither now nor, as it looks, in a moment; nothing of them was."""


@dataclass(slots=True)
class _Wish:
    """Signals that are to be taken all or none."""

    signals: Sequence[Signal]
    taken: Future[int] = field(default_factory=Future)


class Spool:
    """The spool of one box. One process at a time (the server holds the box's lock); safe in threads.

    Args: box_id: the box's own id; an acknowledgment that names another is not ours. first: the first number, where nothing was
    ever taken. most_bytes: see MOST_BYTES. told: called from the writing thread after a segment was published.
    Raises OSError where the folders cannot be made or read.
    """

    def __init__(self, box: Box, box_id: str = "", *, first: int = 1, most_bytes: int = MOST_BYTES, told: Callable[[], None] = lambda: None) -> None:
        self._box = box
        self._box_id = box_id
        self._most_bytes = most_bytes
        self.told = told
        self._segments: dict[int, int] = {}  # first number -> bytes, of those that wait in out/spool
        self._ack_seen: tuple[int, int] | None = None
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._fd = -1
        self._is_torn = False  # a failed write may have left bytes behind
        self._first = self._next = first  # of the segment that grows; of the signal that comes
        self._bytes = 0  # of the segment that grows
        self._begun_s = 0.0  # when its first line came
        self._recover(first)
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def last(self) -> int:
        """The number of the newest signal that is durable."""
        return self._next - 1

    @property
    def room(self) -> int:
        """Bytes that may still be taken before signals are refused."""
        return self._most_bytes - self._bytes - sum(tuple(self._segments.values()))

    @property
    def published(self) -> int:
        """The number of the newest signal that can be fetched; 0 while nothing waits for that."""
        return self._first - 1 if self._segments else 0

    def append(self, signals: Sequence[Signal]) -> int:
        """Take the signals, all or none; the number of the last one, once they are durable. Blocks. Raises SpoolFull."""
        return self.put(signals).result()

    def put(self, signals: Sequence[Signal]) -> "Future[int]":
        """The same without waiting; the future raises SpoolFull. Cancelled in time, nothing is taken."""
        wish = _Wish(signals)
        with self._closing:
            if self._is_closed:
                raise SpoolFull("this server is ending", hint="send it again in a moment", code="SPOOL_CLOSED")
            self._wishes.put(wish)
        return wish.taken

    def close(self) -> None:
        """Take what was put, publish everything, end the thread. Repeating it is harmless."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._wishes.put(None)
        self._thread.join()

    # The writing thread

    def _run(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._gather()
            try:
                if group:
                    self._take(group)
                self._tend(is_last=not is_open)
            except OSError as error:  # what was taken is durable; publishing and deleting is tried again
                log.error("the spool: %s", error, extra={"action": "spool_trouble"})
            except Exception:  # the border of the thread: whoever waits must hear, and the next ones must be taken
                log.exception("the spool failed at a group of signals", extra={"action": "spool_failed"})
                _fail(group, SpoolFull("the server failed at taking signals", hint="its log says why", code="SPOOL_FAILED"))
        if self._fd >= 0:
            os.close(self._fd)

    def _gather(self) -> tuple[list[_Wish], bool]:
        """What came since the last sync, and whether more may come."""
        group: list[_Wish] = []
        is_idle = not self._bytes and not self._segments
        with suppress(queue.Empty):
            wish = self._wishes.get(timeout=None if is_idle else LOOK_S)
            while wish is not None:
                if wish.taken.set_running_or_notify_cancel():  # from now on it cannot be called off
                    group.append(wish)
                wish = self._wishes.get_nowait()
            return group, False
        return group, True

    def _take(self, group: list[_Wish]) -> None:
        """Write a group, sync once, answer each."""
        raw, taken, number = bytearray(), list[tuple[_Wish, int]](), self._next
        room = self._most_bytes - self._bytes - sum(self._segments.values())
        for wish in group:
            lines = b"".join(dump(Spooled(number=number + place, signal=signal)).encode() + b"\n" for place, signal in enumerate(wish.signals))
            if len(raw) + len(lines) > room:
                what = f"{self._most_bytes >> 20} MiB of feedback wait here for the training box"
                wish.taken.set_exception(SpoolFull(what, hint="is the link to this box up? `lorad status` on the training box says so", code="SPOOL_FULL"))
                continue
            raw += lines
            number += len(wish.signals)
            taken.append((wish, number - 1))
        try:
            self._write(bytes(raw))
        except OSError as error:
            why = "the disk is full" if error.errno in FULL else str(error)
            _fail([wish for wish, _ in taken], SpoolFull(f"feedback cannot be kept: {why}", hint="free space on the serving box", code="SPOOL_DISK"))
            raise
        if not self._bytes:
            self._begun_s = time.monotonic()
        self._bytes += len(raw)
        self._next = number
        for wish, last in taken:
            wish.taken.set_result(last)

    def _write(self, raw: bytes) -> None:
        """Add to the segment that grows, durably. Of what fails nothing stays: it is cut off before the next write. Raises OSError."""
        if self._fd < 0:
            self._begin()
        if self._is_torn:
            os.ftruncate(self._fd, self._bytes)
            self._is_torn = False
        if not raw:
            return
        self._is_torn, done = True, 0
        while done < len(raw):
            done += os.pwrite(self._fd, raw[done:], self._bytes + done)
        os.fsync(self._fd)
        self._is_torn = False

    def _begin(self) -> None:
        """Make the file that grows next, empty; its name is durable. Raises OSError."""
        path = self._box.taking / _name(self._next)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE)
        sync_dir(path.parent)
        self._first, self._bytes, self._is_torn = self._next, 0, False

    def _tend(self, *, is_last: bool) -> None:
        """Publish the segment that grows when it is time; delete what is acknowledged. Raises OSError."""
        acked = self._acknowledged()
        age_s = time.monotonic() - self._begun_s
        due_s = min(PUBLISH_MOST_S, PUBLISH_S * max(1, len(self._segments)))
        if self._bytes and (is_last or age_s >= due_s or self._bytes >= SEGMENT_BYTES):
            self._publish()
        if acked is None:
            return
        if self._fd < 0:  # the name of the file that grows must outlive the segments before it
            self._begin()
        firsts = [*self._segments, self._first]
        for first, behind in itertools.pairwise(firsts):
            if behind - 1 <= acked[0]:
                (self._box.spool / _name(first)).unlink(missing_ok=True)
                del self._segments[first]
        self._ack_seen = acked[1]  # only now: what failed is tried again

    def _publish(self) -> None:
        """Let the link see the segment that grows, and begin the next. Raises OSError."""
        if self._is_torn:
            os.ftruncate(self._fd, self._bytes)
            self._is_torn = False
        name = _name(self._first)
        os.rename(self._box.taking / name, self._box.spool / name)
        self._segments[self._first], self._bytes = self._bytes, 0
        os.close(self._fd)
        self._fd, self._first = -1, self._next
        sync_dir(self._box.spool)
        sync_dir(self._box.taking)
        self._begin()
        self.told()

    def _acknowledged(self) -> tuple[int, tuple[int, int]] | None:
        """(up to where `in/ack.json` acknowledges, the mark of that file), where it says something new."""
        try:
            found = self._box.ack.stat()
        except OSError:
            return None
        mark = (found.st_ino, found.st_mtime_ns)
        if mark == self._ack_seen:
            return None
        ack = read_if_whole(Ack, self._box.ack)
        if ack is None or (self._box_id and ack.box != self._box_id):
            self._ack_seen = mark
            return None
        return ack.number, mark

    # The start

    def _recover(self, first: int) -> None:
        """Find the next number, cut off what no caller was told of, publish what a former process left. Raises OSError."""
        self._box.taking.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._box.spool.mkdir(parents=True, exist_ok=True)
        published = segments_in(self._box.spool)
        self._segments = {number: path.stat().st_size for number, path in published}
        growing = segments_in(self._box.taking)
        if published and not growing:
            number, path = published[-1]
            first = number + sum(1 for _ in lines_of(path))
        self._next = first
        for number, path in growing:  # more than one only where somebody put a file there
            if self._fd >= 0:
                os.close(self._fd)
            self._first, self._bytes = number, _whole_bytes(path, number)
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.ftruncate(self._fd, self._bytes)
            os.fsync(self._fd)
            self._next = number + sum(1 for _ in lines_of(path))
        if self._fd < 0:
            self._begin()
        elif self._bytes:
            self._publish()


def segments_in(folder: Path) -> list[tuple[int, Path]]:
    """(first number, file) of the segments in a folder, in order. No folder: none. Files of other names are none."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [name for name in names if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal()]
    return sorted((int(name.removesuffix(SUFFIX)), folder / name) for name in found if _is_plain(folder / name))


def _is_plain(path: Path) -> bool:
    """Whether it is a file and nothing else: a damaged box may send a link, or a pipe that nobody writes to."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def spooled_after(folder: Path, number: int, most: int) -> list[Spooled]:
    """At most `most` lines, or some MiB of them, of a folder of segments whose number is above `number`, in order.

    A line that is no `Spooled` ends them.
    """
    found, size = list[Spooled](), 0
    for _, path in _from(segments_in(folder), number + 1):
        for line in lines_of(path, errors="surrogateescape"):
            try:
                spooled = parse(Spooled, line)
            except ValueError:
                log.error("%s holds a line that is no signal; what is behind it waits", path, extra={"action": "spool_damaged"})
                return found
            if spooled.number > number:
                found.append(spooled)
                size += len(line)
            if len(found) >= most or size >= MOST_AT_ONCE:
                return found
    return found


def _from(segments: list[tuple[int, Path]], number: int) -> Iterator[tuple[int, Path]]:
    """The segments that may hold `number` or more."""
    for place, segment in enumerate(segments):
        if place + 1 == len(segments) or segments[place + 1][0] > number:
            yield segment


def _whole_bytes(path: Path, first: int) -> int:
    """How many bytes at the beginning are lines as they should be: what a crash left behind them was never answered for."""
    size = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, first):
            try:
                if not line.endswith(b"\n") or parse(Spooled, line).number != number:
                    return size
            except ValueError:
                return size
            size += len(line)
    return size


def _name(first: int) -> str:
    return f"{first:0{DIGITS}d}{SUFFIX}"


def _fail(wishes: Sequence[_Wish], error: LoradError) -> None:
    for wish in wishes:
        if not wish.taken.done():
            wish.taken.set_exception(error)
