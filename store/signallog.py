"""The signals of one adapter on disk: `pending/<day>-<sequence>.jsonl`. Lines are added; of those about one signal the last counts.

A line is a `Note`: how a signal stands since when, and with its first line (or after an edit) the signal itself. A torn
last line was never promised to anybody: it is passed over. Files are rewritten only to drop lines that nobody needs, and
to take the text of forgotten signals out; there is one writer, the daemon.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from core.signals import Signal, Standing
from store.durable import replace_file

log = logging.getLogger(__name__)

MODE = 0o600
FILE_BYTES = 4 << 20  # a file is rewritten in one go: this takes some 20 ms
BAD_LINE = (msgspec.MsgspecError, UnicodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line. `signal` is None where an earlier line has it."""

    id: str
    standing: Standing
    since: datetime
    stored_at: datetime  # when the signal came
    code: str = ""  # why it is quarantined or capped: id of the gate's finding, or one of this module's users
    message: str = ""
    by: str = ""  # the person who decided
    arrival: int = 0  # counts the signals that became pending; 0: this one has not yet
    signal: Signal | None = None


class Place(NamedTuple):
    """Where a line begins."""

    file: str
    offset: int


_notes = msgspec.json.Decoder(Note)
_signals = msgspec.json.Decoder(Signal)


class SignalLog:
    """The files of one adapter. Nothing is kept open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[str]:
        """Their names in the order of their writing."""
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(".jsonl") and not name.startswith(".")]
        except FileNotFoundError:
            return []
        return sorted(names, key=_order)

    def append(self, notes: Sequence[Note], now: datetime) -> tuple[list[Place], Path, bool]:
        """Add lines; nothing is synced. Returns where each begins, the file, and whether that is new; the caller syncs. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / self._name(now)
        places, is_new = list[Place](), not path.exists()
        with open(path, "ab+", opener=_private) as file:
            offset = file.seek(0, os.SEEK_END)
            parts = [b"\n"] if offset and _is_torn(file.fileno(), offset) else []
            offset += len(parts)
            for note in notes:
                places.append(Place(path.name, offset))
                parts.append(msgspec.json.encode(note) + b"\n")
                offset += len(parts[-1])
            file.write(b"".join(parts))
        return places, path, is_new

    def _name(self, now: datetime) -> str:
        """The file to add to: the newest, unless it is full or of an earlier day; names keep their order where the clock goes back."""
        day, newest = f"{now:%Y-%m-%d}", next(reversed(self.files()), "")
        if not newest:
            return f"{day}-001.jsonl"
        last_day, sequence = _order(newest)
        if (self.folder / newest).stat().st_size < FILE_BYTES and last_day >= day:
            return newest
        return f"{day}-001.jsonl" if last_day < day else f"{last_day}-{sequence + 1:03d}.jsonl"

    def read(self, name: str) -> Iterator[tuple[Place, Note]]:
        """The whole lines of a file. One that is damaged is told in the log and passed over."""
        try:
            with open(self.folder / name, "rb") as file:
                offset = 0
                for line in file:
                    begin, offset = offset, offset + len(line)
                    note = _parsed(line)
                    if note is not None:
                        yield Place(name, begin), note
                    elif line.endswith(b"\n") and line.strip():
                        log.warning("%s has a damaged line at byte %d", self.folder / name, begin, extra={"action": "record_damaged"})
        except FileNotFoundError:
            return

    def signal_at(self, place: Place) -> Signal | None:
        """The signal of the line that begins there; None where it cannot be read."""
        try:
            with open(self.folder / place.file, "rb") as file:
                file.seek(place.offset)
                note = _parsed(file.readline())
        except OSError:
            return None
        return note.signal if note else None

    def rewrite(self, name: str, keep: Callable[[Place, Note], Note | None]) -> dict[str, Place]:
        """Replace a file by what `keep` makes of each of its lines (None: nothing). Returns where the lines of each signal that have text lie now."""
        parts, places, offset = [], {}, 0
        for place, note in self.read(name):
            kept = keep(place, note)
            if kept is None:
                continue
            if kept.signal is not None:
                places[kept.id] = Place(name, offset)
            parts.append(msgspec.json.encode(kept) + b"\n")
            offset += len(parts[-1])
        if parts:
            replace_file(self.folder / name, b"".join(parts), mode=MODE)
        else:
            (self.folder / name).unlink(missing_ok=True)
        return places


def signals_in(path: Path) -> Iterator[Signal]:
    """The signals of a file with one a line, such as a queued batch; lines that are none, and a torn last one, are passed over."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if (found := signal_of(line)) is not None:
                    yield found
    except FileNotFoundError:
        return


def signal_of(line: bytes) -> Signal | None:
    """The signal of one line; None where it is none."""
    try:
        return _signals.decode(line)
    except BAD_LINE:
        return None


def _parsed(line: bytes) -> Note | None:
    try:
        return _notes.decode(line)
    except BAD_LINE:
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)


def _is_torn(fd: int, size: int) -> bool:
    return os.pread(fd, 1, size - 1) != b"\n"


def _order(name: str) -> tuple[str, int]:
    day, _, sequence = name.removesuffix(".jsonl").rpartition("-")
    return day, int(sequence) if sequence.isdigit() else 0
