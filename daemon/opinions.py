"""Counts what the signals on the shelf say of releases: in memory, since the last two weeks, so that a tick reads no file for it.

Every signal is kept by its id with how it stands, so hearing of one again changes nothing; a start hears of all of them once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from core.opinions import LATEST, Book, Opinion, is_heard, opinion_of
from core.signals import Signal, Standing
from core.trends import Tally
from store.feedback import Shelf
from store.signallog import Note, signals_in


class Opinions:
    """What was said of the answers of every adapter. `shelf` tells of each signal that comes, and of each that stands elsewhere."""

    def __init__(self, shelf: Shelf, now: datetime) -> None:
        self.is_changed = False  # since somebody last wrote the tallies down
        self._books: dict[str, Book] = defaultdict(Book)
        self._known: dict[tuple[str, str], tuple[Opinion, bool]] = {}  # (adapter, signal) -> what it says, and whether as a proposal
        self._least = now - LATEST
        for adapter, notes in _stored(shelf, now):
            self.hear(adapter, notes)
        shelf.heard = self.hear

    def hear(self, adapter: str, notes: Iterable[Note]) -> None:
        """Take over signals and how they stand."""
        book = self._books[adapter]
        for note in notes:
            key = (adapter, note.id)
            if note.signal is not None:
                opinion = opinion_of(note.signal)
                if opinion is None or opinion.at < self._least:
                    continue
                self._known[key] = (opinion, note.signal.is_proposal)
            if key in self._known:
                opinion, is_proposal = self._known[key]
                self.is_changed |= book.hear(note.id, opinion if is_heard(note.standing, is_proposal) else None)

    @property
    def adapters(self) -> frozenset[str]:
        """Those of which anything was said."""
        return frozenset(adapter for adapter, book in self._books.items() if len(book))

    def tallies(self, adapter: str, releases: Mapping[str, tuple[str, int]]) -> tuple[Tally, ...]:
        """The tallies since the last two weeks. `releases`: id or mark -> (id, version)."""
        return self._books[adapter].tallies(releases)

    def forget(self, now: datetime) -> None:
        """Leave out, once a day, what is older than two weeks. A home with 100,000 signals takes some 0.1 s."""
        least = now - LATEST
        if least.date() <= self._least.date():
            return
        self._least = least
        for book in self._books.values():
            book.forget(least)
        self._known = {key: known for key, known in self._known.items() if known[0].at >= least}


def _stored(shelf: Shelf, now: datetime) -> Iterator[tuple[str, Iterable[Note]]]:
    """Every signal on disk by adapter, also those of the batches of the last two weeks, whose lines have left the log."""
    for adapter in shelf.counts():
        yield adapter, shelf.notes(adapter, *(standing for standing in Standing if standing is not Standing.QUEUED))
        for batch in shelf.batches(adapter):
            if not batch.refused and batch.made_at > now - LATEST:
                signals = signals_in(shelf.home.root / "feedback" / adapter / "queued" / f"{batch.id}.jsonl")
                yield adapter, (_queued(signal) for signal in signals)


def _queued(signal: Signal) -> Note:
    return Note(id=signal.id, standing=Standing.QUEUED, since=signal.at, stored_at=signal.at, signal=signal)
