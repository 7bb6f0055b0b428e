"""The daemon's main loop: observe, decide, apply. One thread; every child is started from here."""

import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

from core.errors import LockHeldError, StateError
from core.reconcile import decide
from core.steps import Reply, Step, StopChild
from daemon import clock
from daemon.apply import Applier, describe
from daemon.children import Children, end_orphans, take_daemon_lock
from daemon.gatekeeper import BACKGROUND, Gatekeeper
from daemon.gatespec import warming_spec
from daemon.index import Incident, Index
from daemon.intake import Gates
from daemon.links import Links
from daemon.observe import Observer
from daemon.status import Status
from daemon.watcher import Watcher
from store.commands import sweep_answers
from store.config import ConfigLoader
from store.drops import finish_rejections
from store.jobs import sweep_tmp
from store.keys import ensure_keys
from store.locks import owns
from store.paths import Home
from store.targets import merge_live, merged_up_to

log = logging.getLogger(__name__)

VERSION = "0.1.0"
MIN_FREE_BYTES = 64 << 20  # below this the state itself could not be written safely
BUSY_TICK_S = 0.05  # while the gate is at work
WORK_TICK_S = 0.25  # while a job or a drop is on its way
IDLE_TICK_S = 1.0
ANSWERS_KEPT_S = 600.0
PREREQUISITES = ("BASE_MISSING", "RSYNC_MISSING")


class Daemon:
    """Owns one home. `run` returns when a TERM or INT was obeyed."""

    def __init__(self, loader: ConfigLoader) -> None:
        config = loader.load().config
        self._loader = loader
        self._home = Home(Path(config.home))
        self._instance = secrets.token_hex(8)
        self._wake = threading.Event()
        self._signals = 0

    def run(self, ready: Callable[[str], None]) -> None:
        """Take the lock, go on where the home stands, serve until told to stop. Raises StateError, LockHeldError."""
        check_space(self._home)
        self._home.prepare()
        lock = take_daemon_lock(self._home, self._instance, VERSION)
        try:
            self._run_locked(ready, lock)
        finally:
            os.close(lock)

    def _run_locked(self, ready: Callable[[str], None], lock: int) -> None:
        ensure_keys(self._home.keys)
        index = Index.load(self._home, self._loader)
        end_orphans(self._home, index.config.slots)
        sweep_tmp(self._home)
        finish_rejections(self._home)
        children = Children(self._home, index.config.slots)
        gates = Gates(Gatekeeper(self._home), Gatekeeper(self._home, BACKGROUND))
        status = Status(index, self._instance, clock.now())
        watcher = Watcher(self._home.inbox, self._home.commands, self._wake)
        links = Links(self._home, self._loader.path, [target.name for target in index.config.deploy.targets])
        observer = Observer(index, self._instance, children, gates, watcher)
        applier = Applier(index, self._instance, children, gates, status.tell)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see daemon.inbox.has_writer
        watcher.start()
        status.tell(clock.now(), "daemon.started", pid=os.getpid(), instance=self._instance, backend=index.backend.name, reason=index.backend.why)
        try:
            gates.new.warm(warming_spec(index))
            links.ensure()
            ready(f"lorad watches {self._home.inbox} (pid {os.getpid()}, backend {index.backend.name}: {index.backend.why})")
            parts = Loop(index=index, observer=observer, applier=applier, status=status, children=children, gates=gates, links=links)
            parts.merged = merged_up_to(self._home)
            self._loop(parts, lock)
        finally:
            watcher.stop()
            gates.new.close()
            gates.background.close()
            links.close()
            children.kill_all()
            status.tell(clock.now(), "daemon.stopped", pid=os.getpid(), instance=self._instance)
            status.write(observer.look(), clock.now(), "stopped")

    def _loop(self, loop: "Loop", lock: int) -> None:
        while True:
            if not owns(lock, self._home.lock):
                what = f"{str(self._home.lock)!r} was deleted or replaced while this daemon ran"
                raise LockHeldError(what, hint="leave lorad.lock alone; start the daemon again", code="LOCK_LOST")
            self._wake.clear()
            if self._signals:
                loop.observer.stopping.set()
            if self._signals > 1:
                loop.children.kill_all()
            num_steps = loop.tick()
            if self._signals and not loop.children.any_alive() and num_steps == 0:
                return
            self._wake.wait(0 if num_steps else loop.pause_s())

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
    merged: dict[str, int] = field(default_factory=dict)  # target -> ledger sequence that is in live.jsonl

    def tick(self) -> int:
        """Observe, decide, apply. Returns how many steps were applied; a failed step is told and decided again."""
        now = clock.now()
        if not self.gates.new.is_busy():
            self.gates.new.ensure()
        if not self.gates.background.is_busy() and not self.index.unproven:
            self.gates.background.close()
        self.links.ensure()
        facts = self.observer.look()
        self._note_prerequisites()
        self._guarded("merging the ledgers", self._merge_ledgers)
        applied = self._apply(decide(facts, now).steps, now)
        self._guarded("writing status", lambda: self.status.write(facts, now))
        sweep_answers(self.index.home, ANSWERS_KEPT_S, clock.wall_s())
        return applied

    def _apply(self, steps: tuple[Step, ...], now: datetime) -> int:
        """Apply the steps in order. After a failure, later steps about the same job or drop wait for the next tick; so does
        the answer to a command one of whose steps failed: the command stays and is decided again."""
        applied = 0
        failed: set[str] = set()
        unanswerable = False
        for step in steps:
            about = str(getattr(step, "job", "") or getattr(step, "drop", ""))
            if isinstance(step, Reply) and unanswerable:
                unanswerable = False
                continue
            if about and about in failed:
                continue
            try:
                self.applier.apply(step, now)
                applied += not isinstance(step, StopChild)  # asking again is no progress
            except Exception as error:  # the tick is a border: one step that fails must not stop the others
                failed.add(about)
                unanswerable = True
                self._tell_failure(type(step).__name__, about, error)
        return applied

    def _guarded(self, what: str, do: Callable[[], None]) -> None:
        """A full disk must not end the daemon and its trainer: tell it and go on."""
        try:
            do()
        except OSError as error:
            self._tell_failure(what, "", error)

    def _note_prerequisites(self) -> None:
        """Say what the first job will need, and take it back once it is there."""
        index = self.index
        missing: dict[str, tuple[str, str]] = {}
        if shutil.which("rsync") is None:
            hint = "install rsync (apt-get install rsync); jobs train meanwhile and wait before shipping"
            missing["RSYNC_MISSING"] = ("rsync is not on PATH: no release can be shipped", hint)
        if index.base_sha256 is None:
            hint = "run `lorad models pull`; files stay safe in drops/settling until then"
            missing["BASE_MISSING"] = (f"no base model {index.config.model_path or index.config.model_name!r}", hint)
        told = index.incident.code if index.incident else ""
        if told in PREREQUISITES and told not in missing:
            index.incident = None
        for code, (what, hint) in missing.items():
            if index.incident is None:
                index.incident = Incident(clock.now(), code, what, hint)

    def pause_s(self) -> float:
        """How long to wait unless woken."""
        if self.gates.new.is_busy():
            return BUSY_TICK_S
        return WORK_TICK_S if self.index.jobs or self.index.has_drops_on_their_way() else IDLE_TICK_S

    def _merge_ledgers(self) -> None:
        for target in self.index.config.deploy.targets:
            ledger = self.observer.ledger(target.name)
            self.merged[target.name] = merge_live(self.index.home, target.name, ledger, self.merged.get(target.name, 0))

    def _tell_failure(self, step: str, about: str, error: Exception) -> None:
        code, what, hint = describe(error)
        known = self.index.incident
        if known is None or (known.code, known.what) != (code, what):
            log.error("%s failed: %s", step, what, exc_info=error, extra={"action": "step_failed", "about": about})
            self.index.incident = Incident(clock.now(), code, what, hint, about)


def check_space(home: Home) -> None:
    """Raises StateError where the home's disk has no room for state."""
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise StateError(
            f"{str(home.root)!r} has {free >> 20} MiB free; lorad needs {MIN_FREE_BYTES >> 20} MiB to keep its state",
            hint="free some space or name another home in the config",
            code="DISK_FULL",
        )
