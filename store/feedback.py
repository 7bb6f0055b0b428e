"""The shelf of signals: what people and programs said of answers, stored once each, durably, until it became rows.

    feedback/<persona>/<domain>/{manifest.json,pending/,queued/}   see `store.tray` and `store.signallog`
    feedback/cursors.json                                          target -> number of the last line of its spool that is stored
    feedback/.coming/<command>.jsonl                               signals of an import, one a line, until all of them are stored

The daemon is the only writer and holds one `Shelf`; whoever else reads uses `read_shelf`, which sees what is on disk now.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.errors import StateError
from core.learning import FeedbackConfig
from core.names import is_part
from core.signals import Added, Batch, Counts, Signal, Standing, Wanted, signal_id
from store.arrivals import SOURCE_HELD, arrived, corrected, first_note, objection, standing_of
from store.codec import read_if_whole, write
from store.paths import Home
from store.signallog import Note, signals_in
from store.together import sync_together
from store.tray import Entry, Tray, read_batches

HELD = "its source waits for a person: `lorad feedback accept --source` lets it go on"
OPEN = (Standing.PENDING, Standing.REVIEW, Standing.QUARANTINED, Standing.CAPPED, Standing.REJECTED)  # a person may decide about these
SAVE_EVERY = timedelta(seconds=5)  # a manifest is large where many users came on one day; what it lacks is made good at a start
MOST_FREED = 1000  # capped signals that are let go in one go


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person says of one signal: accept, edit (with the right answer) or reject."""

    id: str
    what: str
    actor: str = ""
    reason: str = ""
    correct_output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why the gate refused a signal's row: id and message of the finding."""

    code: str
    message: str = ""
    share: float = 1.0  # for how many failed rows it stands, where the report names only some of them


class Shelf:
    """All signals of a home. Each method that changes something is durable when it returns, and raises OSError where it is not."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.limits = FeedbackConfig()
        self.heard: Callable[[str, Sequence[Note]], None] = lambda adapter, notes: None
        """Told of every line that was written."""
        self._trays: dict[str, Tray] = {}
        self._saved_at = datetime.min.replace(tzinfo=UTC)
        for folder in adapter_folders(home):
            tray = self._tray(f"{folder.parent.name}/{folder.name}")
            tray.load()

    def follow(self, limits: FeedbackConfig) -> None:
        """Go by this section of the config from now on."""
        self.limits = limits

    # ---------------------------------------------------------------- signals come

    def add(self, signals: Sequence[Signal], now: datetime, limits: FeedbackConfig) -> Added:
        """Store each signal once. What is over a cap, or of a source that is held, is stored too and waits; over a cap at most so many."""
        self.limits = limits
        standings: dict[str, Standing] = {}
        refused: dict[str, str] = {}
        known, notes, taken = 0, dict[str, list[Note]](), list[tuple[Tray, Signal]]()
        numbers: dict[str, Iterator[int]] = {}
        for signal in signals:
            if why := objection(signal):
                refused[signal.id] = why
                continue
            tray = self._tray(signal.adapter)
            if tray.knows(signal.id) or signal.id in standings:
                known += 1
                continue
            tray.manifest.day.turn(now)
            lines = notes.setdefault(signal.adapter, [])
            numbers.setdefault(signal.adapter, tray.free_numbers())
            note = arrived(numbers[signal.adapter], first_note(tray.manifest, signal, now, limits), signal.is_whole)
            if note.standing is Standing.CAPPED and _is_full(tray, lines, limits):
                refused[signal.id] = f"{limits.waiting_cap:,} signals of {signal.adapter} wait over a cap, as many as feedback.waiting_cap lets wait"
                continue
            standings[signal.id] = note.standing
            lines.append(note)
            if note.standing is not Standing.CAPPED:
                tray.manifest.day.count(signal.source, signal.user)
                taken.append((tray, signal))
        try:
            self._write(notes, now)
        except OSError:
            for tray, signal in taken:
                tray.manifest.day.count(signal.source, signal.user, -1)
            raise
        return Added(standings=standings, known=known, refused=refused)

    def tend(self, now: datetime) -> bool:
        """Once a tick: let go what was capped on an earlier day, tidy one file, now and then write manifests. True where anything moved."""
        moved, saves = False, abs(now - self._saved_at) >= SAVE_EVERY
        for tray in self._trays.values():
            if tray.manifest.day.turn(now):
                tray.is_changed = True
            if tray.freed_on != tray.manifest.day.day:
                moved |= self._free(tray, now)
            moved |= tray.tidy()
            if saves:
                tray.save()
        if saves:
            self._saved_at = now
        return moved

    def _free(self, tray: Tray, now: datetime) -> bool:
        """Let capped signals go on as far as today's caps allow; half of a source's stays free for what comes today."""
        notes, numbers, day = list[Note](), tray.free_numbers(), tray.manifest.day
        limits = self.limits.model_copy(update={"source_cap": -(-self.limits.source_cap // 2)})
        for id, entry in tray.standing(Standing.CAPPED):
            if len(notes) >= MOST_FREED:
                break
            if f"{entry.stored_at:%Y-%m-%d}" >= day.day or day.over(entry.source, entry.user, limits):
                continue
            standing = standing_of(tray.manifest.held, entry.source, is_proposal=entry.is_proposal, is_whole=entry.makes_row)
            note = Note(id=id, standing=standing, since=now, stored_at=entry.stored_at, code=SOURCE_HELD if standing is Standing.QUARANTINED else "")
            notes.append(arrived(numbers, note, entry.makes_row, entry.arrival))
            day.count(entry.source, entry.user)
        try:
            self._write({tray.adapter: notes}, now)
        except OSError:
            for note in notes:
                entry = tray.entries[note.id]
                day.count(entry.source, entry.user, -1)
            raise
        if len(notes) < MOST_FREED:
            tray.freed_on = day.day
        return bool(notes)

    # ---------------------------------------------------------------- people decide

    def decide(self, decision: Decision, now: datetime) -> str:
        """Carry out a person's word about one signal; what was done, in words. A repeat changes nothing. Raises StateError."""
        tray, entry = self._find(decision.id)
        if entry is None or entry.standing is Standing.QUEUED:
            return self._decide_queued(tray, decision, now)
        if entry.standing not in OPEN:
            raise StateError(f"signal {decision.id} is {entry.standing.value}", hint="`lorad feedback list` names the others", code="SIGNAL_GONE")
        if decision.what == "edit":
            return self._edit(tray, entry, decision, now)
        wanted = Standing.PENDING if decision.what == "accept" else Standing.REJECTED
        if entry.standing is not wanted or not entry.by:
            note = Note(id=decision.id, standing=wanted, since=now, stored_at=entry.stored_at, message=decision.reason, by=decision.actor or "a person")
            self._write({tray.adapter: [arrived(tray.free_numbers(), note, entry.makes_row, entry.arrival)]}, now)
        return f"signal {decision.id} is {wanted.value}"

    def _edit(self, tray: Tray, entry: Entry, decision: Decision, now: datetime) -> str:
        signal = tray.signal(decision.id)
        if signal is None:
            raise StateError(f"signal {decision.id} cannot be read", hint="give the right answer with `lorad feedback add`", code="SIGNAL_GONE")
        edited = corrected(signal, decision.correct_output, self.limits)
        if edited != signal or entry.standing is not Standing.PENDING:
            note = Note(id=signal.id, standing=Standing.PENDING, since=now, stored_at=entry.stored_at, by=decision.actor or "a person", signal=edited)
            self._write({tray.adapter: [arrived(tray.free_numbers(), note, True, entry.arrival)]}, now)
        return f"signal {decision.id} is pending with the right answer"

    def _decide_queued(self, tray: Tray, decision: Decision, now: datetime) -> str:
        """A signal that is in a batch stays there; its right answer becomes a signal of its own, which supersedes it."""
        signal = tray.signal(decision.id) if decision.what == "edit" else None
        if signal is None:
            what = f"signal {decision.id} is in batch {tray.batch_of.get(decision.id, '')} already"
            raise StateError(what, hint="`lorad feedback show` tells its fate; `lorad forget` takes its row out of everything", code="SIGNAL_QUEUED")
        edited = corrected(signal, decision.correct_output, self.limits)
        new = replace(edited, id=signal_id(edited), at=now)
        self.add([new], now, self.limits)
        return f"signal {decision.id} is in a batch already; its right answer is signal {new.id}"

    def accept_source(self, adapter: str, source: str, actor: str, now: datetime) -> int:
        """Let a whole source go on that was quarantined; how many signals that freed. Raises StateError where it is not held."""
        tray = self._trays.get(adapter)
        if tray is None or (source not in tray.manifest.held and not any(entry.source == source for _, entry in tray.standing(Standing.QUARANTINED))):
            raise StateError(f"source {source!r} of {adapter} is not quarantined", hint="`lorad feedback status` names those that are", code="SOURCE_UNKNOWN")
        notes, numbers = list[Note](), tray.free_numbers()
        for id, entry in tray.standing(Standing.QUARANTINED):
            if entry.source == source and entry.code == SOURCE_HELD:
                standing = standing_of({}, source, is_proposal=entry.is_proposal, is_whole=entry.makes_row)
                note = Note(id=id, standing=standing, since=now, stored_at=entry.stored_at, by=actor or "a person")
                notes.append(arrived(numbers, note, entry.makes_row, entry.arrival))
        self._write({adapter: notes}, now)
        tray.manifest.held.pop(source, None)
        tray.manifest.judged.pop(source, None)
        tray.save(durable=True)
        return len(notes)

    # ---------------------------------------------------------------- batches, and the gate's word on them

    def want(self, wanted: Wanted) -> None:
        """Make the wish for a batch durable. A repeat changes nothing."""
        folder = self._tray(wanted.adapter).folder / "queued"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{wanted.id}.wanted.json", wanted)

    def wanted(self) -> list[Wanted]:
        """The wishes whose drops are not all made, oldest first."""
        paths = [path for tray in self._trays.values() for path in (tray.folder / "queued").glob("*.wanted.json")]
        return sorted((found for path in paths if (found := read_if_whole(Wanted, path)) is not None), key=lambda wanted: wanted.id)

    def unwant(self, wanted: Wanted) -> None:
        """The drops of this wish are made. What a chore that failed had made, and the one that did not fail has not, is no batch."""
        tray = self._tray(wanted.adapter)
        (tray.folder / "queued" / f"{wanted.id}.wanted.json").unlink(missing_ok=True)
        for id in [id for id in tray.batches if id.startswith(wanted.id) and not (tray.folder / "queued" / f"{id}.json").exists()]:
            tray.lose_batch(id)

    def take(self, adapter: str, batch: str) -> Batch | None:
        """Take over a batch that a chore has made: its signals are queued. None where there is none of this id."""
        tray = self._tray(adapter)
        found = read_if_whole(Batch, tray.folder / "queued" / f"{batch}.json")
        if found is not None:
            tray.keep_batch(found)
        return found

    def take_begun(self, wanted: Wanted) -> None:
        """Take over what a chore that failed has made of a wish: it may lie in the inbox, and its signals are queued as after a start."""
        tray = self._tray(wanted.adapter)
        for batch in read_batches(tray.folder / "queued"):
            if batch.id.startswith(wanted.id):
                tray.keep_batch(batch)

    def batches(self, adapter: str = "") -> list[Batch]:
        """Every batch of an adapter, or of all, oldest first; refused ones too."""
        trays = [self._trays[adapter]] if adapter in self._trays else [] if adapter else self._trays.values()
        return sorted((batch for tray in trays for batch in tray.batches.values()), key=lambda batch: batch.id)

    def settle(self, batch: Batch, drop: str, faults: Mapping[str, Fault], now: datetime) -> None:
        """The gate has accepted the batch's drop for good. `faults`: signals of rows that it put aside; they are quarantined."""
        tray = self._tray(batch.adapter)
        self._judge(tray, batch, dict.fromkeys(faults, 1.0))
        self._write({batch.adapter: [self._fault_note(tray, id, fault, now) for id, fault in faults.items()]}, now)
        after = replace(batch, drop=drop, rows={id: line for id, line in batch.rows.items() if id not in faults})
        tray.keep_batch(after)
        self._hold_failing(tray, now)
        write(tray.folder / "queued" / f"{batch.id}.json", after)
        tray.settle(after)

    def give_back(self, batch: Batch, drop: str, refused: str, faults: Mapping[str, Fault], now: datetime) -> None:
        """The gate has refused the batch's drop. The signals in `faults` are quarantined, the others are where they were before."""
        tray = self._tray(batch.adapter)
        self._judge(tray, batch, {id: fault.share for id, fault in faults.items()})
        self._write({batch.adapter: [self._fault_note(tray, id, fault, now) for id, fault in faults.items()]}, now)
        after = replace(batch, drop=drop, refused=refused or "REFUSED")
        tray.keep_batch(after)
        self._hold_failing(tray, now)
        write(tray.folder / "queued" / f"{batch.id}.json", after)

    def _fault_note(self, tray: Tray, id: str, fault: Fault, now: datetime) -> Note:
        stored_at = tray.entries[id].stored_at if id in tray.entries else now
        return Note(id=id, standing=Standing.QUARANTINED, since=now, stored_at=stored_at, code=fault.code, message=fault.message)

    def _judge(self, tray: Tray, batch: Batch, failed: Mapping[str, float]) -> None:
        sources = {id: tray.entries[id].source for id in batch.rows if id in tray.entries}
        bad: dict[str, float] = {}
        for id, share in failed.items():
            if id in sources:
                bad[sources[id]] = bad.get(sources[id], 0.0) + share
        tray.manifest.judge(Counter(sources.values()), bad)

    def _hold_failing(self, tray: Tray, now: datetime) -> None:
        """Quarantine the sources whose rows fail too often, with all that is pending of them."""
        tray.manifest.held |= tray.manifest.failing(self.limits.quarantine_share)
        held, notes = tray.manifest.held, list[Note]()
        for id, entry in tray.standing(Standing.PENDING, Standing.REVIEW) if held else ():
            if entry.source in held and not entry.by:
                why = f"{held[entry.source]}; {HELD}"
                notes.append(Note(id=id, standing=Standing.QUARANTINED, since=now, stored_at=entry.stored_at, code=SOURCE_HELD, message=why))
        self._write({tray.adapter: notes}, now)
        tray.save(durable=True)

    # ---------------------------------------------------------------- forgetting

    def cut(self, ids: Iterable[str]) -> None:
        """Take the text of these signals out of the log; their ids stay known. Batches are cut by the chore that forgets."""
        wanted = set(ids)
        for tray in self._trays.values():
            tray.cut(wanted)

    # ---------------------------------------------------------------- what is asked

    def counts(self) -> Mapping[str, Counts]:
        """Adapter -> its signals, counted. Cheap: from memory."""
        return {adapter: tray.counts(self.limits.require_consent) for adapter, tray in self._trays.items()}

    def signals(self, adapter: str, *standings: Standing) -> Iterator[Signal]:
        """The signals of an adapter that stand there, in the order in which they came; read from disk one by one."""
        for note in self.notes(adapter, *standings):
            if note.signal is not None:
                yield note.signal

    def notes(self, adapter: str, *standings: Standing) -> Iterator[Note]:
        """The same with how each stands, since when and why. Of those in batches that the gate has taken for good, only what the batches hold."""
        tray = self._trays.get(adapter)
        if tray is None:
            return
        wanted = frozenset(standings or Standing)
        for name in tray.log.files():
            for place, note in tray.log.read(name):
                entry = tray.entries.get(note.id)
                if entry is not None and note.signal is not None and entry.place == place and entry.standing in wanted:
                    yield replace(note, standing=entry.standing, code=entry.code, message=entry.message, by=entry.by, arrival=entry.arrival)
        if Standing.QUEUED in wanted:
            yield from self._settled(tray)

    def _settled(self, tray: Tray) -> Iterator[Note]:
        for batch in tray.batches.values():
            if not batch.refused and any(id not in tray.entries for id in (*batch.rows, *batch.left_out)):
                for signal in signals_in(tray.folder / "queued" / f"{batch.id}.jsonl"):
                    if signal.id not in tray.entries and tray.batch_of.get(signal.id) == batch.id:
                        yield Note(id=signal.id, standing=Standing.QUEUED, since=batch.made_at, stored_at=signal.at, signal=signal)

    def find(self, id: str) -> Note | None:
        """One signal with how it stands; None where nobody knows it. Its text is missing where it was forgotten."""
        try:
            tray, entry = self._find(id)
        except StateError:
            return None
        signal = tray.signal(id)
        if entry is None:
            batch = tray.batches[tray.batch_of[id]]
            return Note(id=id, standing=Standing.QUEUED, since=batch.made_at, stored_at=signal.at if signal else batch.made_at, signal=signal)
        told = {"code": entry.code, "message": entry.message, "by": entry.by, "arrival": entry.arrival}
        return Note(id=id, standing=entry.standing, since=entry.stored_at, stored_at=entry.stored_at, signal=signal, **told)  # type: ignore[arg-type]

    def find_adapter(self, id: str) -> str:
        """The adapter that a signal is about; empty where nobody knows it."""
        return next((tray.adapter for tray in self._trays.values() if tray.knows(id)), "")

    def batch_of(self, id: str) -> Batch | None:
        """The batch that holds a signal; None: none does."""
        return next((tray.batches[tray.batch_of[id]] for tray in self._trays.values() if id in tray.batch_of), None)

    def ids(self, beginning: str) -> list[str]:
        """The ids that begin so."""
        return sorted({id for tray in self._trays.values() for id in (*tray.entries, *tray.batch_of) if id.startswith(beginning)})

    def _find(self, id: str) -> tuple[Tray, Entry | None]:
        tray = next((tray for tray in self._trays.values() if tray.knows(id)), None)
        if tray is None:
            raise StateError(f"no signal {id!r}", hint="`lorad feedback list` names them", code="SIGNAL_UNKNOWN")
        return tray, tray.entries.get(id)

    def _tray(self, adapter: str) -> Tray:
        if adapter not in self._trays:
            self._trays[adapter] = Tray(self.home.root / "feedback" / adapter, adapter)
        return self._trays[adapter]

    def _write(self, notes: Mapping[str, Sequence[Note]], now: datetime) -> None:
        """Add lines for several adapters, with their syncs shared, then stand by them."""
        put = [(self._tray(adapter), lines) for adapter, lines in notes.items() if lines]
        written = [(tray, lines, *tray.log.append(lines, now)) for tray, lines in put]
        new = [path for _, _, _, path, is_new in written if is_new]
        sync_together((path for _, _, _, path, _ in written), (folder for path in new for folder in _above(path, self.home.root)))
        for tray, lines, places, _, _ in written:
            tray.stand_by(places, lines)
            self.heard(tray.adapter, lines)


def read_shelf(home: Home) -> Shelf:
    """The shelf as it is on disk now, for who only reads."""
    return Shelf(home)


def adapter_folders(home: Home) -> Iterator[Path]:
    """The folders of the adapters that have signals."""
    for folder in sorted((home.root / "feedback").glob("*/*")):
        if folder.is_dir() and is_part(folder.name) and is_part(folder.parent.name):
            yield folder


def _is_full(tray: Tray, coming: Sequence[Note], limits: FeedbackConfig) -> bool:
    """Whether no more of an adapter may wait over a cap, with those that are about to be written."""
    if not limits.waiting_cap or tray.num_standing(Standing.CAPPED) + len(coming) < limits.waiting_cap:
        return False
    return tray.num_standing(Standing.CAPPED) + sum(note.standing is Standing.CAPPED for note in coming) >= limits.waiting_cap


def _above(path: Path, root: Path) -> Iterator[Path]:
    """The folders from that of `path` up to `root`."""
    return (folder for folder in path.parents if folder == root or root in folder.parents)
