"""The drops by what is asked of them, kept in step one drop at a time, so that a tick never walks all that were accepted.

A job names what it trains on by a `DropList`. Its digest is a chain over the list, drop by drop; the newest digest of each
adapter is kept, so that the card of one job more costs the same whether ten drops were accepted or a hundred thousand.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime

from core.errors import IntegrityError
from core.records import Accepted, DeepState, Drop, DropList, DropRef, JobCard
from core.sortedids import SortedIds


@dataclass(slots=True)
class _Chain:
    """The digest of an adapter's list as it stands for a new job, as far as it was asked for."""

    without: frozenset[str]
    upto: str = ""
    count: int = 0
    digest: bytes = b""


@dataclass(slots=True)
class _Adapter:
    """The drops of one adapter, ids in order."""

    accepted: SortedIds = field(default_factory=SortedIds)  # without those that are about to leave
    coming: set[str] = field(default_factory=set)  # not accepted yet
    set_aside: set[str] = field(default_factory=set)
    unproven: list[str] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)  # others stand in their place
    chain: _Chain | None = None


@dataclass(slots=True)
class _Marks:
    """Ids, and their frozen copy for the facts of a tick, made anew only after a change."""

    ids: set[str] = field(default_factory=set)
    copy: frozenset[str] | None = frozenset()

    def mark(self, drop: str, is_marked: bool) -> None:
        if (drop in self.ids) is not is_marked:
            _mark(self.ids, drop, is_marked)
            self.copy = None

    def frozen(self) -> frozenset[str]:
        if self.copy is None:
            self.copy = frozenset(self.ids)
        return self.copy


@dataclass(slots=True)
class _Taken:
    """The newest drops of a persona, and what they hold together."""

    drops: dict[str, tuple[datetime, int]] = field(default_factory=dict)  # in the order of their claims
    total_bytes: int = 0

    def put(self, drop: Drop) -> None:
        self.lose(drop.id)
        self.drops[drop.id] = (drop.claim.claimed_at, max(drop.claim.size_bytes, drop.claim.total_bytes))
        self.total_bytes += self.drops[drop.id][1]

    def lose(self, drop: str) -> None:
        self.total_bytes -= self.drops.pop(drop, (None, 0))[1]

    def after(self, since: datetime, kept: Set[str]) -> int:
        old = []
        for drop, (at, _) in self.drops.items():
            if at >= since:
                break
            if drop not in kept:
                old.append(drop)
        for drop in old:
            self.lose(drop)
        return self.total_bytes


@dataclass(slots=True)
class Shelf:
    """Written by `put` and `take` alone. `drops` is the index's own mapping, which already holds what is put."""

    drops: Mapping[str, Drop]
    jobless: set[str] = field(default_factory=set)  # without a job yet
    newest: str = ""  # the highest id that was ever put
    _unproven: _Marks = field(default_factory=_Marks)
    _set_aside: _Marks = field(default_factory=_Marks)
    _adapters: dict[str, _Adapter] = field(default_factory=dict)
    _taken: dict[str, "_Taken"] | None = None  # by persona; kept once a quota asks for it

    def put(self, drop: Drop) -> None:
        """Take over how the drop stands now."""
        adapter, facts = self._adapters.setdefault(drop.claim.adapter, _Adapter()), drop.facts
        self.newest = max(self.newest, drop.id)
        is_accepted = isinstance(facts, Accepted)
        is_proven = not isinstance(facts, Accepted) or facts.is_proven
        is_aside = isinstance(facts, Accepted) and facts.set_aside is not None
        leaves = isinstance(facts, Accepted) and facts.deep is not None and facts.deep.state is DeepState.REFUSED
        has_job = isinstance(facts, Accepted) and facts.job_made
        _mark(adapter.coming, drop.id, not is_accepted)
        _mark(self.jobless, drop.id, not has_job)
        _mark(adapter.set_aside, drop.id, is_aside)
        self._set_aside.mark(drop.id, is_aside)
        self._unproven.mark(drop.id, not is_proven)
        _put_in_order(adapter.unproven, drop.id, not is_proven)
        self._place(adapter, drop.id, is_accepted and not leaves)
        if self._taken is not None:
            self._taken.setdefault(_persona(drop), _Taken()).put(drop)

    def take(self, drop: Drop) -> None:
        """Forget a drop that has left."""
        adapter = self._adapters.setdefault(drop.claim.adapter, _Adapter())
        for marks in (adapter.coming, adapter.set_aside, self.jobless):
            marks.discard(drop.id)
        self._set_aside.mark(drop.id, False)
        self._unproven.mark(drop.id, False)
        _put_in_order(adapter.unproven, drop.id, False)
        self._place(adapter, drop.id, False)
        if self._taken is not None:
            self._taken.setdefault(_persona(drop), _Taken()).lose(drop.id)

    def bury(self, adapter: str, drop: str) -> None:
        """Remember a drop that was forgotten: the card of every later job says that it is not among its rows."""
        self._adapters.setdefault(adapter, _Adapter()).forgotten.add(drop)

    def bytes_since(self, since: datetime) -> dict[str, int]:
        """Persona -> bytes of its drops that were claimed after `since` or have no job yet."""
        if self._taken is None:
            self._taken = {}
            for drop in sorted(self.drops.values(), key=lambda drop: drop.id):
                self._taken.setdefault(_persona(drop), _Taken()).put(drop)
        return {persona: taken.after(since, self.jobless) for persona, taken in self._taken.items()}

    @property
    def unproven(self) -> frozenset[str]:
        """Accepted drops with a check open."""
        return self._unproven.frozen()

    @property
    def set_aside(self) -> frozenset[str]:
        """Accepted drops that later jobs do not train on."""
        return self._set_aside.frozen()

    def accepted_of(self, adapter: str) -> Sequence[str]:
        """Ids of the adapter's accepted drops in order, without those that are about to leave."""
        return self._adapters[adapter].accepted if adapter in self._adapters else ()

    def unproven_of(self) -> dict[str, tuple[str, ...]]:
        """Adapter -> ids of its accepted drops with a check open, oldest first."""
        return {name: tuple(adapter.unproven) for name, adapter in self._adapters.items() if adapter.unproven}

    # ---------------------------------------------------------------- what a job trains on

    def list_for(self, own: Drop, released: Set[str]) -> DropList:
        """The list of a new job on `own`: all accepted drops of the adapter up to its own that are not set aside; its own always.

        Args: released: drops whose job was released; one that was set aside counts again once a retry of it was.
        """
        adapter = self._adapters[own.claim.adapter]
        aside = frozenset(adapter.set_aside - released)
        without = tuple(sorted(drop for drop in aside | adapter.coming | adapter.forgotten if drop < own.id))
        is_behind = adapter.chain is not None and own.id < adapter.chain.upto
        if own.id in aside or is_behind:  # a retry, rare enough to be counted anew
            ids = self._up_to(adapter, own.id, without)
            return DropList(upto=own.id, without=without, count=len(ids), sha256=self._digest(ids, b"").hex())
        chain = self._chain_to(adapter, own.id, aside)
        assert chain.upto == own.id, "a job is made on an accepted drop"
        return DropList(upto=own.id, without=without, count=chain.count, sha256=chain.digest.hex())

    def without(self, card: JobCard, drop: str) -> JobCard:
        """The card of a queued job without a drop that was refused after all."""
        if card.rows_of is None:
            return replace(card, drops=tuple(ref for ref in card.drops if ref.id != drop))
        left_out = tuple(sorted({*card.rows_of.without, drop}))
        ids = self._up_to(self._adapters[card.adapter], card.rows_of.upto, left_out)
        return replace(card, rows_of=replace(card.rows_of, without=left_out, count=len(ids), sha256=self._digest(ids, b"").hex()))

    def refs_of(self, card: JobCard) -> tuple[DropRef, ...]:
        """Each drop that the job trains on, in order. Raises IntegrityError where the drops are not those that the card names."""
        named = card.rows_of
        if named is None:
            return card.drops
        ids = self._up_to(self._adapters.get(card.adapter, _Adapter()), named.upto, named.without)
        refs = tuple(DropRef(id=id, sha256=self._sha256(id)) for id in ids)
        digest = b""
        for ref in refs:
            digest = _linked(digest, ref.id, ref.sha256)
        if digest.hex() != named.sha256:
            raise IntegrityError(
                f"job {card.id} names {named.count:,} drops of {card.adapter} by hash; the {len(ids):,} in drops/accepted are not those",
                hint="restore drops/accepted from a backup, or drop the file again",
                code="ROWS_MISSING",
            )
        return refs

    def _up_to(self, adapter: _Adapter, upto: str, without: Iterable[str]) -> list[str]:
        left_out = set(without)
        return [drop for drop in adapter.accepted[: bisect_right(adapter.accepted, upto)] if drop not in left_out]

    def _place(self, adapter: _Adapter, drop: str, is_there: bool) -> None:
        changed = adapter.accepted.add(drop) if is_there else adapter.accepted.discard(drop)
        if changed and adapter.chain is not None and drop <= adapter.chain.upto:
            adapter.chain = None

    def _chain_to(self, adapter: _Adapter, own: str, aside: frozenset[str]) -> _Chain:
        """The chain, lengthened as far as `own`."""
        if adapter.chain is None or adapter.chain.without != aside:
            adapter.chain = _Chain(without=aside)
        chain = adapter.chain
        begin = bisect_right(adapter.accepted, chain.upto) if chain.upto else 0
        added = [drop for drop in adapter.accepted[begin : bisect_right(adapter.accepted, own)] if drop not in aside]
        if added:
            chain.upto, chain.count, chain.digest = added[-1], chain.count + len(added), self._digest(added, chain.digest)
        return chain

    def _digest(self, ids: Iterable[str], before: bytes) -> bytes:
        for id in ids:
            before = _linked(before, id, self._sha256(id))
        return before

    def _sha256(self, drop: str) -> str:
        facts = self.drops[drop].facts
        assert isinstance(facts, Accepted)
        return facts.sha256


def _linked(before: bytes, id: str, sha256: str) -> bytes:
    """The digest of a list that is longer by one drop."""
    return hashlib.sha256(before + f"{id} {sha256}".encode()).digest()


def _persona(drop: Drop) -> str:
    return drop.claim.adapter.split("/")[0]


def _mark(marks: set[str], drop: str, is_marked: bool) -> None:
    (marks.add if is_marked else marks.discard)(drop)


def _put_in_order(ids: list[str], drop: str, is_there: bool) -> bool:
    """Put an id into an ordered list, or take it out. Returns whether that changed anything."""
    place = bisect_left(ids, drop)
    if (place < len(ids) and ids[place] == drop) is is_there:
        return False
    if is_there:
        ids.insert(place, drop)
    else:
        del ids[place]
    return True
