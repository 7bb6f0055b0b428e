"""Batches of signals: asked for, made into drops by a chore, judged by the gate.

A wish for a batch is durable before anything is made of it, and its key makes it the same at every repeat. What the gate says
of the drops comes back to their signals. Where a report names some rows, the others go round once more by themselves: once a
cool-down of the trigger, as every report names only a few of many, and not while a person has stopped the loop. Until then they wait.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.learning import DEFAULT_TRIGGERS
from core.names import stamp
from core.signals import Batch, Wanted
from core.triggers import triggers_of
from daemon import clock
from daemon.index import Index
from daemon.verdicts import Verdict, drop_of, is_coming, verdict_of
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.feedback import Shelf
from store.forgets import tombs
from store.journal import write_entry

BATCH = "batch"  # kind of its chores
ROUND = "after "  # begins the key of a wish for the rows that a refused batch leaves
REST_S = 30.0  # after a chore that failed
LOOK_S = 1.0  # between two looks at what the gate says
THOROUGH_S = 60.0  # between two looks through all drops, for a batch whose drop is not among the newest
GONE_S = 600.0  # then a file that lies nowhere any more was taken away by somebody: its signals wait again


@dataclass(slots=True)
class _Open:
    """A batch whose drop has no verdict yet."""

    batch: Batch
    since_s: float
    looked_s: float
    drop: str = ""


class Batches:
    """Those of one home. `make` and `hear_gate` once a tick; `tell` is called with (now, action, fields).

    Raises OSError where the disk is full, and the next tick goes on. Side effects: writes below `feedback/`; starts chores.
    """

    def __init__(self, index: Index, shelf: Shelf, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._index, self._home, self._shelf, self._worker, self._tell = index, index.home, shelf, worker, tell
        self.is_stopped: Callable[[str], bool] = lambda adapter: False  # no person did, until the daemon names its own
        self._wanted = {wanted.id: wanted for wanted in shelf.wanted()}
        self._rests: dict[str, float] = {}  # wish -> when it is tried again, monotonic
        self._making: dict[str, str] = {}  # adapter -> the wish that a chore is at
        self._open: dict[str, _Open] | None = None
        self._looked_s = float("-inf")
        worker.hear(BATCH, self._on_batch)

    # ---------------------------------------------------------------- making

    def begin(self, adapter: str, trigger: str, key: str, now: datetime) -> str:
        """Have all that is pending made into drops, one of each schema; the id with which their batches begin. The same key gives the same.

        Durable when it returns: it is made whatever dies. Raises OSError.
        """
        if known := self.known(adapter, key):
            return known
        wanted = Wanted(id=f"batch-{stamp(now, _mark(adapter, key))}", adapter=adapter, trigger=trigger, key=key, at=now)
        self._shelf.want(wanted)
        self._wanted[wanted.id] = wanted
        return wanted.id

    def known(self, adapter: str, key: str) -> str:
        """The id of the batch that this key gave; empty: none yet."""
        mark = _mark(adapter, key)
        names = [*self._wanted, *(batch.id for batch in self._shelf.batches(adapter))]
        return next((name[: name.index(mark) + len(mark)] for name in names if f"-{mark}" in name), "")

    def is_making(self, adapter: str) -> bool:
        """Whether a batch of the adapter is asked for or being made."""
        return any(wanted.adapter == adapter for wanted in self._wanted.values())

    def is_at(self, adapter: str) -> bool:
        """Whether a chore is making one of the adapter's batches: which of its signals are in it is open."""
        return adapter in self._making

    def make(self, now: datetime) -> None:
        """Have made what is asked for, one batch of an adapter at a time."""
        for wanted in self._wanted.values():
            is_free = wanted.adapter not in self._making and self._rests.get(wanted.id, 0.0) <= clock.monotonic_s()
            if is_free and self._may_go(wanted, now):
                chore = Chore(kind=BATCH, key=wanted.id, spec={"adapter": wanted.adapter, "id": wanted.id})
                if self._worker.submit(chore):
                    self._making[wanted.adapter] = wanted.id

    def _may_go(self, wanted: Wanted, now: datetime) -> bool:
        """Whether it is time for it; a person's wish, and that of a trigger, waits for nothing here."""
        if not wanted.key.startswith(ROUND):
            return True
        is_far = wanted.at - now > self._cooldown(wanted.trigger)  # somebody set the clock back
        return not self.is_stopped(wanted.adapter) and (wanted.at <= now or is_far)

    def _cooldown(self, trigger: str) -> timedelta:
        """Of the trigger; of one that there is not, such as a person, the usual one."""
        return timedelta(seconds=triggers_of(self._index.config).get(trigger, DEFAULT_TRIGGERS["enough"]).cooldown_s)

    def _on_batch(self, done: ChoreDone) -> None:
        wanted, now = self._wanted.get(done.key), clock.now()
        if wanted is None:
            return
        self._making.pop(wanted.adapter, None)
        if done.ok:
            taken = [self._take_batch(wanted.adapter, str(id), now) for id in done.result.get("batches", ())]
            self._shelf.unwant(wanted)
            del self._wanted[wanted.id]
            fields = {"batch": wanted.id, "adapter": wanted.adapter, "trigger": wanted.trigger, "drops": sum(taken), "rows": done.result.get("rows", 0)}
            write_entry(self._home.journal, now, "batch.made", **fields)
            self._tell(now, "batch.made", **fields)
        else:
            self._shelf.take_begun(wanted)
            self._rests[wanted.id] = clock.monotonic_s() + REST_S
            self._tell(now, "batch.failed", batch=wanted.id, adapter=wanted.adapter, reason=done.message)

    def _take_batch(self, adapter: str, id: str, now: datetime) -> bool:
        """Take over a batch that was made. Whether a drop was made of it."""
        batch = self._shelf.take(adapter, id)
        if batch is None:
            return False
        if batch.rows and self._open is not None:
            self._open[id] = _Open(batch, clock.monotonic_s(), clock.monotonic_s())
        return bool(batch.rows)

    # ---------------------------------------------------------------- what the gate says

    def hear_gate(self, now: datetime) -> None:
        """Look whether the gate has spoken of drops that were made of signals."""
        now_s = clock.monotonic_s()
        if self._open is None:
            batches = (batch for batch in self._shelf.batches() if batch.rows and not batch.drop and not batch.refused)
            self._open = {batch.id: _Open(batch, now_s, float("-inf")) for batch in batches}
        if not self._open or now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for open_batch in list(self._open.values()):
            self._look_at(open_batch, now, now_s)

    def _look_at(self, one: _Open, now: datetime, now_s: float) -> None:
        batch = one.batch
        if not one.drop:
            thorough = now_s - one.looked_s >= THOROUGH_S
            one.looked_s = now_s if thorough else one.looked_s
            one.drop = drop_of(self._index, batch, thorough=thorough)
        verdict = verdict_of(self._index, batch, one.drop) if one.drop else None
        if verdict is not None:
            assert self._open is not None
            if verdict.refused:
                self._go_back(batch, verdict, now)
            else:
                self._shelf.settle(batch, verdict.drop, verdict.faults, now)
                self._told(now, "batch.accepted", batch, drop=verdict.drop, quarantined=len(verdict.faults))
            self._open.pop(batch.id, None)
        elif now_s - one.since_s > GONE_S and self._is_gone(one):
            assert self._open is not None
            self._shelf.give_back(batch, one.drop, "DROP_GONE", {}, now)
            self._told(now, "batch.gone", batch)
            self._open.pop(batch.id, None)

    def _is_gone(self, one: _Open) -> bool:
        """Whether somebody took the batch's file away before the gate saw it."""
        folder = self._home.root / "feedback" / one.batch.adapter / "queued"
        if one.batch.id.startswith(tuple(self._wanted)) or is_coming(self._index, one.batch, folder) or one.drop in self._index.drops:
            return False
        return not any(stone.drop.startswith(one.drop) for stone in tombs(self._home)) if one.drop else True

    def _go_back(self, batch: Batch, verdict: Verdict, now: datetime) -> None:
        """Quarantine what the report names, let the others wait again; and where some were named, have the others go round once more.

        That wish is durable first: a daemon that dies in between finds the batch open, and hears the same once more.
        """
        if 0 < len(verdict.faults) < len(batch.rows):
            self._begin_round(batch, now)
        self._shelf.give_back(batch, verdict.drop, verdict.refused, verdict.faults, now)
        self._told(now, "batch.refused", batch, drop=verdict.drop, code=verdict.refused, quarantined=len(verdict.faults))

    def _begin_round(self, batch: Batch, now: datetime) -> None:
        """Wish for a batch of the rows that are left, a cool-down after the adapter's last such one; they go along with one that waits already."""
        adapter = batch.adapter
        waiting = [one for one in self._wanted.values() if one.adapter == adapter and one.key.startswith(ROUND)]
        if any(self._making.get(adapter) != one.id for one in waiting):
            return
        past = [one.at for one in waiting] + list(self._rounds(adapter))
        due = max([now, *(at + self._cooldown(batch.trigger) for at in past)])
        self.begin(adapter, batch.trigger, f"{ROUND}{batch.id}", due)

    def _rounds(self, adapter: str) -> Iterator[datetime]:
        """When the adapter's batches of rows that others had left were made."""
        batches = self._shelf.batches(adapter)
        marks = {_mark(adapter, f"{ROUND}{one.id}") for one in batches if one.refused}
        return (one.made_at for one in batches if marks.intersection(one.id.split("-")))

    def _told(self, now: datetime, action: str, batch: Batch, **fields: object) -> None:
        said = {"batch": batch.id, "adapter": batch.adapter, **fields}
        write_entry(self._home.journal, now, action, **said)
        self._tell(now, action, **said)


def _mark(adapter: str, key: str) -> str:
    return hashlib.sha256(f"{adapter} {key}".encode()).hexdigest()[:12]
