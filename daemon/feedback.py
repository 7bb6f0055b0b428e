"""Signals on the training box: takes them in, lets people decide, has batches made of them, and hears what the gate says.

Once a tick a bounded piece of each: lines of the mirrored spools, signals of imports, wishes for batches, verdicts. Whatever
is slow (reading a large file, making rows) is a chore. The daemon may die anywhere: what is under way stands on disk, as a
`Wanted` until its drops are made, as an import's file until all of it is stored, as a batch without a drop until the gate spoke.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from core.commands import Answer, Command
from core.errors import LoradError, UsageError
from core.learning import FeedbackConfig
from core.names import parse_adapter, stamp
from core.signals import Added, Batch, Counts, Origin, Signal, Wanted, signal_id
from daemon import clock
from daemon.index import Incident, Index
from daemon.spools import MOST, Spools
from daemon.verdicts import Verdict, drop_of, is_coming, verdict_of
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.commands import put_answer
from store.feedback import Decision, Shelf
from store.journal import write_entry
from store.signallog import signal_of, signals_in

log = logging.getLogger(__name__)

BATCH, SIGNALS = "batch", "signals"  # kinds of its chores
REST_S = 30.0  # after a chore that failed
LOOK_S = 1.0  # between two looks at what the gate says
THOROUGH_S = 60.0  # between two looks through all drops, for a batch whose drop is not among the newest
GONE_S = 600.0  # then a file that lies nowhere any more was taken away by somebody: its signals wait again
MOST_COMING = 500  # signals of imports in one tick
DECISIONS = ("accept", "edit", "reject")


@dataclass(slots=True)
class _Coming:
    """An import whose signals are being stored."""

    path: Path
    signals: Iterator[Signal]
    command: Command | None = None
    told: str = ""
    stored: int = 0
    known: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Open:
    """A batch whose drop has no verdict yet."""

    batch: Batch
    since_s: float
    looked_s: float
    drop: str = ""


class Feedback:
    """The one owner of the shelf. `turn` once a tick; `tell` is called with (now, action, fields).

    Raises OSError where the disk is full: nothing is lost, and the next tick goes on. Side effects: writes below `feedback/`
    and `targets/<name>/ack.json`; starts chores.
    """

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._index, self._home, self._worker, self._tell = index, index.home, worker, tell
        self.shelf = Shelf(index.home)
        self.shelf.follow(self._limits)
        self._spools = Spools(index.home, self._take, self._warn)
        self._wanted = {wanted.id: wanted for wanted in self.shelf.wanted()}
        self._rests: dict[str, float] = {}  # wish -> when it is tried again, monotonic
        self._making: dict[str, list[Command]] = {}  # adapter whose batch is being made -> decisions that wait for its end
        self._imports: dict[str, Command] = {}  # by the key of the chore
        self._coming: list[_Coming] | None = None
        self._open: dict[str, _Open] | None = None
        self._looked_s = float("-inf")
        self._num_read = 0
        worker.hear(BATCH, self._on_batch)
        worker.hear(SIGNALS, self._on_signals)

    @property
    def _limits(self) -> FeedbackConfig:
        return self._index.config.feedback

    def counts(self) -> Mapping[str, Counts]:
        """Adapter -> its signals, counted; from memory."""
        return self.shelf.counts()

    @property
    def is_busy(self) -> bool:
        """Whether more signals wait to be stored than one tick takes."""
        return self._num_read >= MOST or bool(self._coming)

    def turn(self, now: datetime) -> None:
        """Go on with everything a little. Raises OSError."""
        self.shelf.follow(self._limits)
        self._num_read = self._spools.turn([target.name for target in self._index.config.deploy.targets], now)
        self._read_coming(now)
        self._make_wanted()
        self._hear_gate(now)
        self.shelf.tend(now)

    # ---------------------------------------------------------------- signals come

    def _take(self, signals: Sequence[Signal], now: datetime) -> Added:
        limits = self._limits
        added = self.shelf.add([_weighed(signal, limits) for signal in signals], now, limits)
        counted = {standing: list(added.standings.values()).count(standing) for standing in set(added.standings.values())}
        for standing, number in sorted(counted.items()):
            self._tell(now, "signals.stored", standing=standing.value, count=number)
        for id, why in added.refused.items():
            log.warning("a signal was left out: %s", why, extra={"action": "signal_refused", "signal": id[:64]})
        return added

    def _warn(self, what: str) -> None:
        hint = "see targets/<name>/out/spool/: mend or delete the line, and say so to whoever keeps that box"
        self._index.incident = Incident(clock.now(), "SPOOL_DAMAGED", what, hint)

    def _read_coming(self, now: datetime) -> None:
        """Store signals of imports, from the beginning after a restart: their ids decide."""
        folder = self._home.root / "feedback" / ".coming"
        if self._coming is None:
            for left in folder.glob(".*.part"):  # of a chore that a restart ended
                left.unlink(missing_ok=True)
            self._coming = [_Coming(path, signals_in(path)) for path in sorted(folder.glob("*.jsonl")) if not path.name.startswith(".")]
        if not self._coming:
            return
        coming = self._coming[0]
        signals = list(islice(coming.signals, MOST_COMING))
        if signals:
            try:
                added = self._take(signals, now)
            except OSError:
                coming.signals = signals_in(coming.path)
                raise
            coming.stored, coming.known, coming.refused = coming.stored + len(added.standings), coming.known + added.known, coming.refused + len(added.refused)
            return
        if coming.command is not None:
            refused = f", {coming.refused} could not be" if coming.refused else ""
            self._answer(coming.command, f"{coming.stored} signals are stored, {coming.known} were known{refused}{coming.told}", made=str(coming.stored))
        coming.path.unlink(missing_ok=True)
        self._coming.pop(0)

    # ---------------------------------------------------------------- people

    def apply(self, command: Command, now: datetime) -> None:
        """Carry out one command, and answer. A repeat changes nothing more. Raises OSError."""
        try:
            self._carry_out(command, command.details.get("what", ""), now)
        except LoradError as error:
            self._refuse(command, error.what, error.hint, error.code)

    def _carry_out(self, command: Command, what: str, now: datetime) -> None:
        details = command.details
        if what == "add":
            signal = _signal_in(details.get("signal", ""))
            added = self._take([signal], now)
            if why := added.refused.get(signal.id):
                raise UsageError(why, hint="name an adapter as persona/domain", code="SIGNAL_REFUSED")
            standing = added.standings.get(signal.id)
            self._answer(command, f"signal {signal.id} is {standing.value}" if standing else f"signal {signal.id} was known", made=signal.id)
        elif what == "import":
            self._begin_import(command, now)
        elif what == "flush":
            self._flush(command, now)
        elif what == "accept" and "source" in details:
            freed = self.shelf.accept_source(command.adapter, details["source"], command.actor, now)
            self._answer(command, f"source {details['source']!r} goes on; {freed} of its signals wait no more")
        elif what in DECISIONS:
            self._decide(command, now)
        else:
            raise UsageError(f"nobody knows how to {what!r} feedback", hint="add, import, accept, edit, reject or flush", code="COMMAND_UNKNOWN")

    def _decide(self, command: Command, now: datetime) -> None:
        details = command.details
        found = self.shelf.find_adapter(details.get("id", ""))
        if found in self._making and command not in self._making[found]:
            self._making[found].append(command)  # the batch that is being made may hold it
            (self._home.commands / f"{command.id}.json").unlink(missing_ok=True)
            return
        what, right = details["what"], details.get("correct_output", "")
        if what == "edit" and not right.strip():
            raise UsageError("the right answer is empty", hint="give what should have been answered", code="ANSWER_EMPTY")
        decision = Decision(id=details.get("id", ""), what=what, actor=command.actor, reason=command.reason, correct_output=right)
        message = self.shelf.decide(decision, now)
        write_entry(self._home.journal, now, f"signal.{what}", signal=decision.id, actor=command.actor)
        self._answer(command, message, made=decision.id)

    def _flush(self, command: Command, now: datetime) -> None:
        adapter = parse_adapter(command.adapter)
        counts = self.counts().get(adapter, Counts())
        begun = self._known_batch(adapter, command.id)
        if not begun and not counts.rows and not counts.mistakes:
            what = f"{adapter} has no pending signal that could become a row"
            raise UsageError(what, hint="`lorad feedback status` counts what waits, and for what", code="NOTHING_PENDING")
        batch = begun or self.begin_batch(adapter, "by hand", command.id, now)
        self._answer(command, f"the pending signals of {adapter} become a drop: {batch}", made=batch)

    def _begin_import(self, command: Command, now: datetime) -> None:
        details, adapter = command.details, parse_adapter(command.adapter)
        files = [line for line in details.get("files", details.get("file", "")).split("\n") if line]
        out = self._home.root / "feedback" / ".coming" / f".{command.id}.part"
        out.parent.mkdir(parents=True, exist_ok=True)
        told = {key: details.get(key, "") for key in ("format", "score")}
        spec = {"files": files, "out": str(out), "adapter": adapter, "consent": details.get("consent") == "yes", "weight": self._limits.human_weight}
        if not self._worker.submit(Chore(kind=SIGNALS, key=command.id, spec={**spec, **told, "at": now.isoformat()})):
            raise LoradError("too many background chores wait", hint="try again in a minute", code="BUSY")
        self._imports[command.id] = command
        (self._home.commands / f"{command.id}.json").unlink(missing_ok=True)

    def _on_signals(self, done: ChoreDone) -> None:
        command = self._imports.pop(done.key, None)
        part = self._home.root / "feedback" / ".coming" / f".{done.key}.part"
        if command is None or not done.ok:
            part.unlink(missing_ok=True)
            if command is not None:
                self._refuse(command, done.message, "nothing was imported", str(done.result.get("code", "")) or "IMPORT_FAILED")
            return
        path = part.with_name(f"{done.key}.jsonl")
        part.rename(path)
        told = "".join(f"; {count} left out: {why}" for why, count in dict(done.result.get("left_out", {})).items())
        self._read_coming_later(_Coming(path, signals_in(path), command, told))

    def take_in(self, path: Path) -> None:
        """Store the signals of a file in `feedback/.coming/` in the next ticks; then it goes."""
        self._read_coming_later(_Coming(path, signals_in(path)))

    def _read_coming_later(self, coming: _Coming) -> None:
        self._coming = [*(one for one in self._coming or () if one.path != coming.path), coming]

    def _answer(self, command: Command, message: str, made: str = "") -> None:
        put_answer(self._home, Answer(command=command.id, ok=True, message=message, made=made))

    def _refuse(self, command: Command, what: str, hint: str, code: str) -> None:
        put_answer(self._home, Answer(command=command.id, ok=False, message=what, hint=hint, code=code))

    # ---------------------------------------------------------------- batches

    def begin_batch(self, adapter: str, trigger: str, key: str, now: datetime) -> str:
        """Have all that is pending made into drops, one of each schema; the id with which their batches begin. The same key gives the same.

        Durable when it returns: it is made whatever dies. Raises OSError.
        """
        if known := self._known_batch(adapter, key):
            return known
        wanted = Wanted(id=f"batch-{stamp(now, _mark(adapter, key))}", adapter=adapter, trigger=trigger, key=key, at=now)
        self.shelf.want(wanted)
        self._wanted[wanted.id] = wanted
        return wanted.id

    def _known_batch(self, adapter: str, key: str) -> str:
        mark = _mark(adapter, key)
        names = [*self._wanted, *(batch.id for batch in self.shelf.batches(adapter))]
        return next((name[: name.index(mark) + len(mark)] for name in names if f"-{mark}" in name), "")

    def is_making(self, adapter: str) -> bool:
        """Whether a batch of the adapter is asked for or being made."""
        return any(wanted.adapter == adapter for wanted in self._wanted.values())

    def _make_wanted(self) -> None:
        for wanted in self._wanted.values():
            if wanted.adapter not in self._making and self._rests.get(wanted.id, 0.0) <= clock.monotonic_s():
                chore = Chore(kind=BATCH, key=wanted.id, spec={"adapter": wanted.adapter, "id": wanted.id})
                if self._worker.submit(chore):
                    self._making[wanted.adapter] = []

    def _on_batch(self, done: ChoreDone) -> None:
        wanted, now = self._wanted.get(done.key), clock.now()
        if wanted is None:
            return
        waiting = self._making.pop(wanted.adapter, [])
        if done.ok:
            taken = [self._take_batch(wanted.adapter, str(id), now) for id in done.result.get("batches", ())]
            self.shelf.unwant(wanted)
            del self._wanted[wanted.id]
            fields = {"batch": wanted.id, "adapter": wanted.adapter, "trigger": wanted.trigger, "drops": sum(taken), "rows": done.result.get("rows", 0)}
            write_entry(self._home.journal, now, "batch.made", **fields)
            self._tell(now, "batch.made", **fields)
        else:
            self._rests[wanted.id] = clock.monotonic_s() + REST_S
            self._tell(now, "batch.failed", batch=wanted.id, adapter=wanted.adapter, reason=done.message)
        for command in waiting:
            self.apply(command, now)

    def _take_batch(self, adapter: str, id: str, now: datetime) -> bool:
        """Take over a batch that was made. Whether a drop was made of it."""
        batch = self.shelf.take(adapter, id)
        if batch is None:
            return False
        if batch.rows and self._open is not None:
            self._open[id] = _Open(batch, clock.monotonic_s(), clock.monotonic_s())
        return bool(batch.rows)

    # ---------------------------------------------------------------- what the gate says

    def _hear_gate(self, now: datetime) -> None:
        """Look whether the gate has spoken of drops that were made of signals."""
        now_s = clock.monotonic_s()
        if self._open is None:
            batches = (batch for batch in self.shelf.batches() if batch.rows and not batch.drop and not batch.refused)
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
                self.shelf.settle(batch, verdict.drop, verdict.faults, now)
                self._told(now, "batch.accepted", batch, drop=verdict.drop, quarantined=len(verdict.faults))
            self._open.pop(batch.id, None)
        elif now_s - one.since_s > GONE_S and self._is_gone(one):
            assert self._open is not None
            self.shelf.give_back(batch, one.drop, "DROP_GONE", {}, now)
            self._told(now, "batch.gone", batch)
            self._open.pop(batch.id, None)

    def _is_gone(self, one: _Open) -> bool:
        """Whether somebody took the batch's file away before the gate saw it."""
        folder = self._home.root / "feedback" / one.batch.adapter / "queued"
        if one.batch.id.startswith(tuple(self._wanted)) or is_coming(self._index, one.batch, folder) or one.drop in self._index.drops:
            return False
        return not any(stone.startswith(one.drop) for stone in _tombs(self._index)) if one.drop else True

    def _go_back(self, batch: Batch, verdict: Verdict, now: datetime) -> None:
        """Quarantine what the report names, let the others wait again; and where some were named, make the next batch of the others at once.

        That wish is durable first: a daemon that dies in between finds the batch open, and hears the same once more.
        """
        if 0 < len(verdict.faults) < len(batch.rows):
            self.begin_batch(batch.adapter, batch.trigger, f"after {batch.id}", now)
        self.shelf.give_back(batch, verdict.drop, verdict.refused, verdict.faults, now)
        self._told(now, "batch.refused", batch, drop=verdict.drop, code=verdict.refused, quarantined=len(verdict.faults))

    def _told(self, now: datetime, action: str, batch: Batch, **fields: object) -> None:
        said = {"batch": batch.id, "adapter": batch.adapter, **fields}
        write_entry(self._home.journal, now, action, **said)
        self._tell(now, action, **said)


def _mark(adapter: str, key: str) -> str:
    return hashlib.sha256(f"{adapter} {key}".encode()).hexdigest()[:12]


def _tombs(index: Index) -> Iterator[str]:
    from store.forgets import tombs

    return (stone.drop for stone in tombs(index.home))


def _weighed(signal: Signal, limits: FeedbackConfig) -> Signal:
    """The signal with no more weight than its origin has by the config."""
    most = {Origin.HUMAN: limits.human_weight, Origin.AI: limits.ai_weight, Origin.AUTOMATED: limits.automated_weight}[signal.origin]
    return signal if signal.weight <= most else replace(signal, weight=most)


def _signal_in(text: str) -> Signal:
    """The signal of a command. Raises UsageError."""
    signal = signal_of(text.encode())
    if signal is None:
        try:
            msgspec.json.decode(text, type=Signal)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise UsageError(f"this is no signal: {error}", hint="`lorad feedback add` writes one", code="SIGNAL_SYNTAX") from None
    assert signal is not None
    return signal if signal.id else replace(signal, id=signal_id(signal))
