"""Signals on the training box: takes them in, lets people decide, has batches made of them, and hears what the gate says.

Once a tick a bounded piece of each: lines of the mirrored spools, signals of imports, what people asked, batches (`daemon.batches`).
Whatever is slow (reading a large file, making rows) is a chore. The daemon may die anywhere: what is under way stands on disk, as a
begun command until it is answered, as an import's file until all of it is stored.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from core.commands import Answer, Command
from core.errors import LoradError, UsageError
from core.learning import FeedbackConfig
from core.names import parse_adapter
from core.signals import Added, Counts, Origin, Signal, signal_id
from daemon import clock
from daemon.batches import Batches
from daemon.index import Incident, Index
from daemon.spools import MOST, Spools
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.commands import begin_command, begun_commands, put_answer
from store.feedback import Decision, Shelf
from store.journal import write_entry
from store.signallog import signal_of, signals_in

log = logging.getLogger(__name__)

SIGNALS = "signals"  # kind of its chores
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


class Feedback:
    """The one owner of the shelf. `turn` once a tick; `tell` is called with (now, action, fields).

    Raises OSError where the disk is full: nothing is lost, and the next tick goes on. Side effects: writes below `feedback/`
    and `targets/<name>/ack.json`; starts chores.
    """

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._index, self._home, self._worker, self._tell = index, index.home, worker, tell
        self.shelf = Shelf(index.home)
        self.shelf.follow(self._limits)
        self.batches = Batches(index, self.shelf, worker, tell)
        self._spools = Spools(index.home, self._take, self._warn)
        self._begun = {command.id: command for command in begun_commands(index.home)}  # answered in a later tick than they were heard
        self._reading: set[str] = set()  # those whose files a chore reads
        self._coming: list[_Coming] | None = None
        self._num_read = 0
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
        for command in list(self._begun.values()):  # before another batch is begun
            self.apply(command, now)
        self.batches.make(now)
        self.batches.hear_gate(now)
        self.shelf.tend(now)

    def begin_batch(self, adapter: str, trigger: str, key: str, now: datetime) -> str:
        """Have all that is pending made into drops; see `Batches.begin`. Raises OSError."""
        return self.batches.begin(adapter, trigger, key, now)

    def is_making(self, adapter: str) -> bool:
        """Whether a batch of the adapter is asked for or being made."""
        return self.batches.is_making(adapter)

    # ---------------------------------------------------------------- signals come

    def _take(self, signals: Sequence[Signal], now: datetime) -> Added:
        limits = self._limits
        added = self.shelf.add([_weighed(signal, limits) for signal in signals], now, limits)
        counted = {standing: list(added.standings.values()).count(standing) for standing in set(added.standings.values())}
        for standing, number in sorted(counted.items()):
            self._tell(now, "signals.stored", standing=standing.value, count=number)
        for why, number in Counter(added.refused.values()).items():
            log.warning("left out %d signals: %s", number, why, extra={"action": "signals_left_out"})
            self._tell(now, "signals.left_out", reason=why, count=number)
        return added

    def _warn(self, what: str) -> None:
        hint = "see targets/<name>/out/spool/: mend or delete the line, and say so to whoever keeps that box"
        self._index.incident = Incident(clock.now(), "SPOOL_DAMAGED", what, hint)

    def _read_coming(self, now: datetime) -> None:
        """Store signals of imports, from the beginning after a restart: their ids decide."""
        if not self._all_coming():
            return
        coming = self._all_coming()[0]
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
        self._all_coming().pop(0)

    def _all_coming(self) -> list[_Coming]:
        """The imports whose signals are being stored; after a start those of before."""
        if self._coming is None:
            folder = self._home.root / "feedback" / ".coming"
            for left in folder.glob(".*.part"):  # of a chore that a restart ended
                left.unlink(missing_ok=True)
            paths = (path for path in sorted(folder.glob("*.jsonl")) if not path.name.startswith("."))
            self._coming = [_Coming(path, signals_in(path), self._begun.get(path.stem)) for path in paths]
        return self._coming

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
                raise UsageError(why, hint="name an adapter as persona/domain; what waits over a cap goes on day by day", code="SIGNAL_REFUSED")
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
        if self.batches.is_at(self.shelf.find_adapter(details.get("id", ""))):
            self._keep(command)  # the batch that is being made may hold it
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
        begun = self.batches.known(adapter, command.id)
        if not begun and not counts.rows and not counts.mistakes:
            what = f"{adapter} has no pending signal that could become a row"
            raise UsageError(what, hint="`lorad feedback status` counts what waits, and for what", code="NOTHING_PENDING")
        batch = begun or self.begin_batch(adapter, "by hand", command.id, now)
        self._answer(command, f"the pending signals of {adapter} become a drop: {batch}", made=batch)

    def _begin_import(self, command: Command, now: datetime) -> None:
        details, adapter = command.details, parse_adapter(command.adapter)
        if command.id in self._reading or any(coming.path.stem == command.id for coming in self._all_coming()):
            return
        files = [line for line in details.get("files", details.get("file", "")).split("\n") if line]
        out = self._home.root / "feedback" / ".coming" / f".{command.id}.part"
        out.parent.mkdir(parents=True, exist_ok=True)
        told = {key: details.get(key, "") for key in ("format", "score")}
        self._keep(command)
        spec = {"files": files, "out": str(out), "adapter": adapter, "consent": details.get("consent") == "yes", "weight": self._limits.human_weight}
        if not self._worker.submit(Chore(kind=SIGNALS, key=command.id, spec={**spec, **told, "at": now.isoformat()})):
            raise LoradError("too many background chores wait", hint="try again in a minute", code="BUSY")
        self._reading.add(command.id)

    def _on_signals(self, done: ChoreDone) -> None:
        self._reading.discard(done.key)
        command = self._begun.get(done.key)
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
        self._coming = [*(one for one in self._all_coming() if one.path != coming.path), coming]

    def _keep(self, command: Command) -> None:
        """Go on with the command in later ticks, whatever dies, until it is answered. Raises OSError."""
        self._begun[command.id] = command  # first: a disk that refuses the sync has moved the file, and the next tick tries again
        begin_command(self._home, command)

    def _answer(self, command: Command, message: str, made: str = "") -> None:
        put_answer(self._home, Answer(command=command.id, ok=True, message=message, made=made))
        self._begun.pop(command.id, None)

    def _refuse(self, command: Command, what: str, hint: str, code: str) -> None:
        put_answer(self._home, Answer(command=command.id, ok=False, message=what, hint=hint, code=code))
        self._begun.pop(command.id, None)


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
