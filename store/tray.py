"""The signals of one adapter in memory, in step with their log: who stands where, what is counted, what a day has brought.

    feedback/<persona>/<domain>/
        manifest.json          counts, the day's caps, how the gate judged each source; its counts are worked out again at a start
        pending/               the log of signals (`store.signallog`)
        queued/<batch>.json    a `Batch`: its signals are queued whatever the log says, until it is refused; `<batch>.jsonl` holds them

So that nothing is lost or doubled whenever the daemon dies: a line is durable before memory says so; a batch that is whole
wins over the log; lines of its signals leave the log only once the gate has taken the drop for good.
"""

import heapq
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path

import msgspec

from core.signals import Batch, Counts, Signal, SignalKind, Standing
from store.caps import SOURCE_HELD, Manifest, read_manifest, write_manifest
from store.signallog import BAD_LINE, Note, Place, SignalLog, signals_in


@dataclass(slots=True)
class Entry:
    """A signal as memory knows it."""

    standing: Standing
    stored_at: datetime
    source: str
    user: str
    makes_row: bool  # its right answer is known
    is_proposal: bool
    is_mistake: bool
    has_consent: bool
    place: Place  # of the newest line with its text
    arrival: int = 0
    by: str = ""
    code: str = ""
    message: str = ""
    before: Standing | None = None  # of a queued one: where it goes back to

    def restand(self, note: Note) -> None:
        """Take over how a newer line says it stands."""
        self.standing, self.arrival, self.by, self.code, self.message = note.standing, max(self.arrival, note.arrival), note.by, note.code, note.message


NOWHERE = Place("", 0)  # of a signal without a text


class Tray:
    """All of one adapter. What is to change is first added to `log`, then taken over by `stand_by`."""

    def __init__(self, folder: Path, adapter: str) -> None:
        self.folder, self.adapter = folder, adapter
        self.log = SignalLog(folder / "pending")
        self.manifest = Manifest()
        self.entries: dict[str, Entry] = {}
        self.batches: dict[str, Batch] = {}
        self.batch_of: dict[str, str] = {}  # signal -> its batch, of those that were not refused
        self.is_changed = False
        self.freed_on = ""  # the day on which what was capped before has gone on as far as it may
        self._lines: Counter[str] = Counter()  # file -> lines that somebody may need
        self._dead: Counter[str] = Counter()
        self._oldest: dict[bool, list[tuple[datetime, str]]] = {True: [], False: []}  # heaps, by consent; some are out of date
        self._rows = {True: 0, False: 0}  # pending rows with consent, without
        self._mistakes = {True: 0, False: 0}
        self._standings: Counter[Standing] = Counter()
        self._sources: Counter[str] = Counter()
        self._num_held = 0  # quarantined with their source
        self._counts: tuple[bool, Counts] | None = None

    # ---------------------------------------------------------------- a start

    def load(self) -> None:
        """Read everything. What is damaged is left out and told in the log."""
        self.manifest = read_manifest(self.folder / "manifest.json")
        for batch in read_batches(self.folder / "queued"):
            self.keep_batch(batch)
        for name in self.log.files():
            for place, note in self.log.read(name):
                self._replay(place, note)
        self.manifest.day.recount((entry.stored_at, entry.source, entry.user) for entry in self.entries.values() if entry.standing is not Standing.CAPPED)

    def _replay(self, place: Place, note: Note) -> None:
        self._lines[place.file] += 1
        manifest, entry = self.manifest, self.entries.get(note.id)
        manifest.arrived = max(manifest.arrived, note.arrival)
        if entry is None and note.signal is None and note.standing is not Standing.FORGOTTEN:
            self._dead[place.file] += 1  # about a signal of which the first line is gone
            return
        if entry is None:
            entry = _entry(note, place)
            if (batch := self.batch_of.get(note.id)) is not None and note.standing is not Standing.FORGOTTEN:
                entry.before, entry.standing = note.standing, Standing.QUEUED
                if self._is_settled(batch):
                    self._dead[place.file] += 1
                    return
            self.entries[note.id] = entry
            self._count(note.id, entry, 1)
            return
        self._count(note.id, entry, -1)
        self._dead[entry.place.file if note.signal is not None else place.file] += 1
        queued = entry.standing is Standing.QUEUED
        entry.restand(note)
        if note.signal is not None:
            _describe(entry, note.signal, place)
        if queued and note.standing is not Standing.FORGOTTEN:
            entry.before, entry.standing = note.standing, Standing.QUEUED
        self._count(note.id, entry, 1)

    # ---------------------------------------------------------------- changes

    def knows(self, id: str) -> bool:
        """Whether the signal was stored before, whatever became of it."""
        return id in self.entries or id in self.batch_of

    def num_standing(self, standing: Standing) -> int:
        """How many signals stand there."""
        return self._standings[standing]

    def free_numbers(self) -> Iterator[int]:
        """Numbers for signals that become pending rows now."""
        return count(self.manifest.arrived + 1)

    def stand_by(self, places: Sequence[Place], notes: Sequence[Note]) -> None:
        """Take over lines that were added to the log and are durable."""
        for place, note in zip(places, notes, strict=True):
            self._replay(place, note)
        self._touch()

    def keep_batch(self, batch: Batch) -> None:
        """Take over a batch as its file says it stands; its signals are queued, or where they were before once it was refused."""
        if (before := self.batches.get(batch.id)) is not None and not before.refused:  # made anew of other signals
            self._release(before, {*before.rows, *before.left_out} - {*batch.rows, *batch.left_out})
        self.batches[batch.id] = batch
        if batch.refused:
            self._release(batch, (*batch.rows, *batch.left_out))
            return
        for id in (*batch.rows, *batch.left_out):
            self.batch_of[id] = batch.id
            entry = self.entries.get(id)
            if entry is not None and entry.standing not in (Standing.QUEUED, Standing.FORGOTTEN):
                self._count(id, entry, -1)
                entry.before, entry.standing = entry.standing, Standing.QUEUED
                self._count(id, entry, 1)
        self._touch()

    def lose_batch(self, id: str) -> None:
        """Let go of a batch that is no more; its signals stand where they stood before."""
        batch = self.batches.pop(id)
        self._release(batch, (*batch.rows, *batch.left_out))

    def _release(self, batch: Batch, ids: Iterable[str]) -> None:
        """Let signals of a batch stand where they stood before."""
        for id in ids:
            if self.batch_of.get(id) != batch.id:
                continue
            del self.batch_of[id]
            entry = self.entries.get(id)
            if entry is not None and entry.before is not None:
                self._count(id, entry, -1)
                entry.standing, entry.before = entry.before, None
                self._count(id, entry, 1)
        self._touch()

    def settle(self, batch: Batch) -> None:
        """The gate has taken the batch's drop for good: the log needs its signals no more."""
        for id in (*batch.rows, *batch.left_out):
            entry = self.entries.pop(id, None) if self.batch_of.get(id) == batch.id else None
            if entry is not None:
                self._dead[entry.place.file] += 1
                self._count(id, entry, -1)
        self._touch()

    def _is_settled(self, batch: str) -> bool:
        return bool(self.batches[batch].drop or not self.batches[batch].rows)

    def tidy(self) -> bool:
        """Drop the dead lines of one file, where most of it is dead. True where one was rewritten. Raises OSError."""
        for name, dead in self._dead.items():
            if dead * 2 > self._lines[name]:
                self.save(durable=True)  # `arrived` is known from the lines that go
                self._rewrite(name, self._needed)
                return True
        return False

    def _needed(self, place: Place, note: Note) -> Note | None:
        entry = self.entries.get(note.id)
        if entry is None or (note.signal is not None and entry.place != place):
            return None  # its batch holds it now, or a later line does
        if note.signal is None and entry.place.file == place.file:
            return None  # said by the line with the text
        return self._as_it_stands(note, entry)

    def _as_it_stands(self, note: Note, entry: Entry) -> Note:
        standing = entry.before if entry.standing is Standing.QUEUED and entry.before else entry.standing
        return replace(note, standing=standing, code=entry.code, message=entry.message, by=entry.by, arrival=entry.arrival)

    def cut(self, ids: Iterable[str]) -> None:
        """Take the text of these signals out of the log; their ids stay. Raises OSError; a repeat does the rest."""
        wanted = {id for id in ids if id in self.entries}
        for name in self.log.files() if wanted else ():
            raw = (self.log.folder / name).read_bytes()  # also a line that an edit has replaced holds text
            if any(id.encode() in raw for id in wanted):
                self._rewrite(name, lambda place, note: _forgotten(note) if note.id in wanted else self._needed(place, note))
        for id in wanted:
            entry = self.entries[id]
            self._count(id, entry, -1)
            entry.standing, entry.before, entry.place = Standing.FORGOTTEN, None, NOWHERE
            self._count(id, entry, 1)
        self._touch()

    def _rewrite(self, name: str, keep: Callable[[Place, Note], Note | None]) -> None:
        kept = 0

        def counted(place: Place, note: Note) -> Note | None:
            nonlocal kept
            found = keep(place, note)
            kept += found is not None
            return found

        for id, place in self.log.rewrite(name, counted).items():
            self.entries[id].place = place
        self._lines[name], self._dead[name] = kept, 0
        if not kept:
            del self._lines[name], self._dead[name]

    # ---------------------------------------------------------------- what is asked

    def counts(self, demand_consent: bool) -> Counts:
        """How many stand where; worked out anew only after a change."""
        if self._counts is None or self._counts[0] is not demand_consent:
            self._counts = (demand_consent, self._work_out(demand_consent))
        return self._counts[1]

    def _work_out(self, demand_consent: bool) -> Counts:
        stand = self._standings
        return Counts(
            rows=self._rows[True] + (0 if demand_consent else self._rows[False]),
            oldest_at=self._oldest_at(demand_consent),
            arrived=self.manifest.arrived,
            pending=stand[Standing.PENDING],
            mistakes=self._mistakes[True] + (0 if demand_consent else self._mistakes[False]),
            review=stand[Standing.REVIEW],
            rejected=stand[Standing.REJECTED],
            quarantined=stand[Standing.QUARANTINED],
            faulty=stand[Standing.QUARANTINED] - self._num_held,
            capped=stand[Standing.CAPPED],
            queued=len(self.batch_of),
            by_source={source: count for source, count in sorted(self._sources.items()) if count},
            held_sources=dict(self.manifest.held),
        )

    def _oldest_at(self, demand_consent: bool) -> datetime | None:
        """When the oldest pending row was stored."""
        found = []
        for has_consent in (True,) if demand_consent else (True, False):
            heap = self._oldest[has_consent]
            while heap and not self._is_at(*heap[0]):
                heapq.heappop(heap)
            found += [heap[0][0]] if heap else []
        return min(found, default=None)

    def _is_at(self, stored_at: datetime, id: str) -> bool:
        entry = self.entries.get(id)
        return entry is not None and _is_row(entry) and entry.stored_at == stored_at

    def standing(self, *standings: Standing) -> Iterator[tuple[str, Entry]]:
        """The signals that stand there, in the order in which they came."""
        return ((id, entry) for id, entry in list(self.entries.items()) if entry.standing in standings)

    def signal(self, id: str) -> Signal | None:
        """The signal itself, read from where it lies."""
        entry = self.entries.get(id)
        if entry is not None and (found := self.log.signal_at(entry.place)) is not None:
            return found
        batch = self.batch_of.get(id)
        if batch is None:
            return None
        return next((one for one in signals_in(self.folder / "queued" / f"{batch}.jsonl") if one.id == id), None)

    def save(self, *, durable: bool = False) -> None:
        """Write the manifest where something has changed. Raises OSError."""
        if self.is_changed or durable:
            self.manifest.counts = self.counts(True)
            write_manifest(self.folder / "manifest.json", self.manifest, durable=durable)
            self.is_changed = False

    def _touch(self) -> None:
        self.is_changed, self._counts = True, None

    def _count(self, id: str, entry: Entry, by: int) -> None:
        self._standings[entry.standing] += by
        self._num_held += by if entry.standing is Standing.QUARANTINED and entry.code == SOURCE_HELD else 0
        if entry.standing is Standing.PENDING:
            self._sources[entry.source] += by
        if _is_row(entry):
            self._rows[entry.has_consent] += by
            if by > 0:
                heapq.heappush(self._oldest[entry.has_consent], (entry.stored_at, id))
        if is_open_mistake(entry):
            self._mistakes[entry.has_consent] += by


def _is_row(entry: Entry) -> bool:
    return entry.standing is Standing.PENDING and entry.makes_row


def is_open_mistake(entry: Entry) -> bool:
    """Whether it may make an unpaired row: nobody knows the right answer, and it is no mere proposal."""
    if entry.makes_row or not entry.is_mistake:
        return False
    return entry.standing is Standing.PENDING or (entry.standing is Standing.REVIEW and not entry.is_proposal)


def _entry(note: Note, place: Place) -> Entry:
    entry = Entry(note.standing, note.stored_at, "", "", False, False, False, False, NOWHERE, note.arrival, note.by, note.code, note.message)
    if note.signal is not None:
        _describe(entry, note.signal, place)
    return entry


def _describe(entry: Entry, signal: Signal, place: Place) -> None:
    entry.source, entry.user, entry.place = sys.intern(signal.source), sys.intern(signal.user), place
    entry.makes_row, entry.is_proposal, entry.has_consent = signal.is_whole, signal.is_proposal, signal.consent
    entry.is_mistake = signal.kind is SignalKind.MISTAKE


def _forgotten(note: Note) -> Note:
    return replace(note, standing=Standing.FORGOTTEN, signal=None, code="", message="", by="")


def read_batches(folder: Path) -> Iterator[Batch]:
    """The whole batches of a `queued/`, by their ids."""
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".wanted.json") or path.name.startswith("."):
            continue
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Batch)
        except (OSError, *BAD_LINE):
            continue
