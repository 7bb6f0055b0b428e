"""The daemon's main loop: observe, decide, apply. One thread; every child is started from here."""

import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

from core.batches import in_runs
from core.errors import LockHeldError
from core.loopsteps import FireTrigger, HearFeedback, RecordIteration, SetContinuous, SetLevel, WorkIteration
from core.reconcile import decide
from core.records import ENDED
from core.steps import (
    BeginChore,
    BeginForget,
    ImportAdapter,
    MarkRelease,
    PinRelease,
    RecordForget,
    ReloadConfig,
    Reply,
    Step,
    StopChild,
    WorkForget,
)
from daemon import clock
from daemon.apply import Applier, describe
from daemon.bounds import LogBounds
from daemon.children import Children
from daemon.curriculum import Curriculum
from daemon.disk import Disk, check_space, raise_if_broken
from daemon.feedback import Feedback
from daemon.forgetting import Forgets
from daemon.gatekeeper import BACKGROUND, Gatekeeper
from daemon.gatespec import warming_spec
from daemon.housekeeping import Housekeeping
from daemon.importing import Imports
from daemon.index import Incident, Index
from daemon.intake import Gates
from daemon.iterations import Iterations
from daemon.links import Links
from daemon.notify import Notifier
from daemon.observe import Observer
from daemon.opinions import Opinions
from daemon.peers import Peers
from daemon.pids import PIDManager, end_orphans
from daemon.prerequisites import note_prerequisites
from daemon.reload import Reloader, write_in_force
from daemon.snapshots import SnapshotService
from daemon.status import Status
from daemon.triggers import Triggers
from daemon.warming import wanted
from daemon.watcher import FileWatcher
from daemon.weaknesses import WeaknessWatch
from daemon.worker import BackgroundWorker, Chore
from store.commands import sweep_answers
from store.config import ConfigLoader
from store.drops import finish_discards, finish_rejections
from store.inbox import sweep_lent
from store.jobs import sweep_parts, sweep_tmp
from store.keys import ensure_keys
from store.migration import migrate
from store.paths import Home
from store.targets import merge_live, merged_up_to

log = logging.getLogger(__name__)

VERSION = "0.1.0"
BUSY_TICK_S = 0.05  # while the gate is at work
WORK_TICK_S = 0.25  # while a job or a drop is on its way
IDLE_TICK_S = 1.0
ANSWERS_KEPT_S = 600.0
LENT_S = 3600.0  # longer than any command waits
APPLY_S = 2.0  # so long a tick applies steps; the rest is decided again by the next, so that a stop or a reload is heard
STOP_STEP_S = 30.0  # asked of the service manager again and again while a child writes its checkpoint at the stop
STOP_MOST_S = 900.0  # after that the manager's own bound counts


class Daemon:
    """Owns one home. `run` returns when a TERM or INT was obeyed."""

    def __init__(self, loader: ConfigLoader, notifier: Notifier | None = None) -> None:
        config = loader.load().config
        self._loader = loader
        self._notifier = notifier or Notifier()
        self._home = Home(Path(config.home))
        self._instance = secrets.token_hex(8)
        self._wake = threading.Event()
        self._signals = 0
        self._reload = False
        self._stopping_since_s: float | None = None

    def run(self, ready: Callable[[str], None]) -> None:
        """Take the lock, go on where the home stands, serve until told to stop. Raises StateError, LockHeldError."""
        check_space(self._home)
        self._home.prepare()
        with PIDManager(self._home, self._instance, VERSION) as lock:
            try:
                self._run_locked(ready, lock)
            except OSError as error:
                raise_if_broken(error)
                raise

    def _run_locked(self, ready: Callable[[str], None], lock: PIDManager) -> None:
        end_orphans(self._home)  # first: nothing else may write here while the home is read, migrated and swept
        migrate(self._home, clock.now())
        ensure_keys(self._home.keys)
        index = Index.load(self._home, self._loader)
        sweep_tmp(self._home)
        sweep_parts(self._home, clock.wall_s())
        finish_rejections(self._home)
        finish_discards(self._home)
        write_in_force(self._home, index.config)
        watcher = FileWatcher(self._home.inbox, self._home.commands, self._wake, index.config.inbox.watch)
        loop = self._assemble(index, watcher)
        self._obey_signals()
        watcher.start()
        backend = index.backend
        loop.status.tell(clock.now(), "daemon.started", pid=os.getpid(), instance=self._instance, backend=backend.name, reason=backend.why)
        try:
            loop.gates.new.warm(warming_spec(index))
            loop.links.ensure()
            ready(f"lorad watches {self._home.inbox} (pid {os.getpid()}, backend {backend.name}: {backend.why})")
            loop.merged = merged_up_to(self._home)
            self._notifier.ready(loop.in_words())
            self._loop(loop, lock)
        finally:
            self._notifier.stopping("ends")
            watcher.stop()
            loop.close()
            with contextlib.suppress(OSError):  # a disk that broke is told by what ends this daemon
                if lock.still_mine():  # else the home may be another daemon's by now
                    loop.status.tell(clock.now(), "daemon.stopped", pid=os.getpid(), instance=self._instance)
                    loop.status.write(loop.observer.look(), clock.now(), "stopped")

    def _assemble(self, index: Index, watcher: FileWatcher) -> "Loop":
        """All parts, each with what it needs of the others. Starts nothing."""
        children = Children(self._home, index.config.slots)
        gates = Gates(Gatekeeper(self._home), Gatekeeper(self._home, BACKGROUND))
        status = Status(index, self._instance, clock.now())
        links = Links(self._home, self._home.config_in_force)
        links.follow(index.config.deploy.targets)
        worker = BackgroundWorker(self._home)
        status.alert_by(worker, clock.now())
        disk = Disk(index, worker, status.tell)
        observer = Observer(index, self._instance, children, gates, watcher)
        observer.look_at_disk = disk.look
        observer.look_at_performance = lambda: status.performance.look(clock.now())
        applier = Applier(index, self._instance, children, gates, status.tell)
        forgets = Forgets(index, worker, applier.train_again, status.tell)
        observer.look_at_forgets = forgets.look
        feedback = Feedback(index, worker, status.tell)
        status.count_signals, forgets.cut_signals = feedback.counts, feedback.shelf.cut
        status.performance.opinions = Opinions(feedback.shelf, clock.now())
        iterations = Iterations(index, worker, status.tell, status.critical_alerts)
        observer.look_at_iterations, feedback.batches.is_stopped = iterations.look, iterations.is_stopped
        triggers = Triggers(index, feedback, iterations.is_stopped, status.tell)
        triggers.readings.series_of = status.performance.series_of
        curriculum = Curriculum(index, self._instance, worker, children, status.tell)
        curriculum.is_stopped, status.measure_skills = iterations.is_stopped, curriculum.measures
        return Loop(
            index=index,
            observer=observer,
            applier=applier,
            forgets=forgets,
            feedback=feedback,
            peers=Peers(index, worker, feedback, status.tell),
            iterations=iterations,
            triggers=triggers,
            curriculum=curriculum,
            weaknesses=WeaknessWatch(index, worker, status.tell, feedback.counts),
            status=status,
            children=children,
            gates=gates,
            links=links,
            reloader=Reloader(index=index, links=links, notifier=self._notifier, tell=status.tell),
            worker=worker,
            disk=disk,
            logs=LogBounds(index),
            housekeeping=Housekeeping(Imports(index, worker, status.tell), disk, SnapshotService(self._home, worker, status.tell), status.tell),
        )

    def _obey_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see daemon.inbox.has_writer

    def _loop(self, loop: "Loop", lock: PIDManager) -> None:
        while True:
            if not lock.still_mine():
                what = f"{str(self._home.lock)!r} was deleted or replaced while this daemon ran"
                raise LockHeldError(what, hint="leave lorad.lock alone; start the daemon again", code="LOCK_LOST")
            self._wake.clear()
            if self._signals:
                loop.observer.stopping.set()
            if self._signals > 1:
                loop.children.kill_all()
            if self._reload:
                self._reload = False
                loop.reload()
            num_steps = loop.tick()
            self._tell_manager(loop)
            if self._signals and not loop.children.any_alive() and num_steps == 0:
                return
            self._wake.wait(0 if num_steps else loop.pause_s())

    def _tell_manager(self, loop: "Loop") -> None:
        """A tick is done: the service manager hears that, and where a stop takes its time, that it may."""
        self._notifier.alive()
        if not self._signals:
            self._notifier.status(loop.in_words())
            return
        if self._stopping_since_s is None:
            self._stopping_since_s = clock.monotonic_s()
            self._notifier.stopping("stops; a training writes its checkpoint")
        if loop.children.any_alive() and clock.monotonic_s() - self._stopping_since_s < STOP_MOST_S:
            self._notifier.extend(STOP_STEP_S)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._reload = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1  # not `_wake.set()`: the handler may interrupt this very thread while it holds the event's lock


@dataclass(slots=True, kw_only=True)
class Loop:
    """Where all parts meet: one tick, and how long to wait for the next."""

    index: Index
    observer: Observer
    applier: Applier
    status: Status
    children: Children
    gates: Gates
    links: Links
    reloader: Reloader
    worker: BackgroundWorker
    disk: Disk
    logs: LogBounds
    housekeeping: Housekeeping
    forgets: Forgets
    feedback: Feedback
    peers: Peers
    iterations: Iterations
    triggers: Triggers
    curriculum: Curriculum
    weaknesses: WeaknessWatch
    merged: dict[str, int] = field(default_factory=dict)  # target -> ledger sequence that is in live.jsonl

    def close(self) -> None:
        """End every child."""
        self.gates.new.close()
        self.gates.background.close()
        self.links.close()
        self.worker.close()
        self.children.kill_all()
        self.children.warm.close()

    def tick(self) -> int:
        """Observe, decide, apply. Returns how many steps were applied; a failed step is told and decided again."""
        now = clock.now()
        self._guarded("starting the gate and the links", self._keep_children)
        facts = self.observer.look()
        note_prerequisites(self.index)
        self._guarded("merging the ledgers", self._merge_ledgers)
        self._guarded("background chores", self.worker.turn)
        if self.index.wants_recall():
            self.worker.submit(Chore(kind="recall", key="recall", spec={"now_s": clock.wall_s()}))
        self._guarded("taking in signals", lambda: self.feedback.turn(now))
        self._guarded("asking a peer", lambda: self.peers.look(now))
        self._guarded("bounding the logs", self.logs.look)
        self._guarded("keeping the disk", lambda: self.disk.tend(facts.disk, now))
        applied = self._apply(decide(facts, now).steps, now)
        self._guarded("looking at the triggers", lambda: self.triggers.turn(facts))
        self._guarded("teaching skills", lambda: self.curriculum.turn(facts, now))
        self._guarded("looking for weaknesses", lambda: self.weaknesses.look(now))
        self._guarded("writing status", lambda: self.status.write(facts, now))
        self._guarded("sweeping old answers", lambda: sweep_answers(self.index.home, ANSWERS_KEPT_S, clock.wall_s()))
        self._guarded("sweeping what was lent", lambda: sweep_lent(self.index.home, LENT_S, clock.wall_s()))
        return applied

    def reload(self) -> None:
        """Read the config again, as SIGHUP asks. Where the disk is full it is told, and the next reload does the rest."""
        self._guarded("reloading the config", lambda: self.reloader.reload(clock.now()))

    def _keep_children(self) -> None:
        """Let the gate, the links and the warm trainer live. Raises OSError where no process or file is to be had: the next tick tries again."""
        if not self.gates.new.is_busy():
            self.gates.new.ensure()
        if not self.gates.background.is_busy() and not self.index.unproven:
            self.gates.background.close()
        self.links.ensure()
        self.children.warm.keep(wanted(self.index))

    def _apply(self, steps: tuple[Step, ...], now: datetime) -> int:
        """Apply the steps in order. After a failure, later steps about the same job or drop wait for the next tick; so does
        the answer to a command one of whose steps failed: the command stays and is decided again."""
        applied = 0
        failed: set[str] = set()
        unanswerable = False
        last_reply = max((number for number, step in enumerate(steps) if isinstance(step, Reply)), default=-1)
        until_s = clock.monotonic_s() + APPLY_S
        number = -1
        for run in in_runs(steps):
            number += len(run)
            if number > last_reply and clock.monotonic_s() > until_s:
                break  # never between what a command asks for and its answer
            step = run[0]
            if len(run) > 1:
                applied += self._apply_together([one for one in run if str(getattr(one, "drop", "")) not in failed], failed, now)
                continue
            about = str(getattr(step, "job", "") or getattr(step, "drop", ""))
            if isinstance(step, Reply) and unanswerable:
                unanswerable = False
                continue
            if about and about in failed:
                continue
            try:
                self._carry_out(step, now)
                self.reloader.notifier.alive()
                applied += not isinstance(step, StopChild)  # asking again is no progress
            except Exception as error:  # the tick is a border: one step that fails must not stop the others
                failed.add(about)
                unanswerable = True
                self._tell_failure(type(step).__name__, about, error)
        return applied

    def _apply_together(self, run: list[Step], failed: set[str], now: datetime) -> int:
        """Steps of one kind, with their syncs shared. Returns how many were applied, and adds what failed to `failed`."""
        failures = self.applier.apply_together(run, now)
        self.reloader.notifier.alive()
        for step, error in failures:
            about = str(getattr(step, "drop", ""))
            failed.add(about)
            self._tell_failure(type(step).__name__, about, error)
        return len(run) - len(failures)

    def _carry_out(self, step: Step, now: datetime) -> None:
        if isinstance(step, ReloadConfig):
            self.reloader.answer(step.command, now)
        elif isinstance(step, BeginChore | PinRelease | MarkRelease | ImportAdapter):
            self.housekeeping.apply(step, now)
        elif isinstance(step, BeginForget | RecordForget | WorkForget):
            self.forgets.apply(step, now)
        elif isinstance(step, RecordIteration | WorkIteration | SetContinuous):
            self.iterations.apply(step, now)
        elif isinstance(step, HearFeedback):
            self.feedback.apply(step.command, now)
        elif isinstance(step, FireTrigger):
            self.triggers.fire(step.command, now)
        elif isinstance(step, SetLevel):
            self.curriculum.set_level(step.command, now)
        else:
            self.applier.apply(step, now)

    def _guarded(self, what: str, do: Callable[[], object]) -> None:
        """A full disk must not end the daemon and its trainer: tell it and go on."""
        try:
            do()
        except OSError as error:
            self._tell_failure(what, "", error)

    def pause_s(self) -> float:
        """How long to wait unless woken."""
        if self.gates.new.is_busy() or self.disk.is_busy or self.feedback.is_busy:
            return BUSY_TICK_S
        return WORK_TICK_S if self.index.jobs or self.index.has_drops_on_their_way() else IDLE_TICK_S

    def in_words(self) -> str:
        """How things stand, in one line for the service manager."""
        states = {state.value: count for state, count in self.index.views.counts.items() if state not in ENDED and count}
        return f"backend {self.index.backend.name}; " + (", ".join(f"{count:,} {state}" for state, count in sorted(states.items())) or "no jobs")

    def _merge_ledgers(self) -> None:
        for target in self.index.config.deploy.targets:
            ledger = self.observer.ledger(target.name)
            self.merged[target.name] = merge_live(self.index.home, target.name, ledger, self.merged.get(target.name, 0))

    def _tell_failure(self, step: str, about: str, error: Exception) -> None:
        self.disk.failed(error)
        code, what, hint = describe(error)
        known = self.index.incident
        if known is None or (known.code, known.what) != (code, what):
            log.error("%s failed: %s", step, what, exc_info=error, extra={"action": "step_failed", "about": about})
            self.index.incident = Incident(clock.now(), code, what, hint, about)
