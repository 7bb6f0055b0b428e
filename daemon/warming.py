"""The warm trainer as the daemon holds it: kept while it is wanted, given orders, heard. See `trainer.warm`.

A child that it forks is a process of its own with the same guarantees as one that the daemon starts: the lock of its slot
is free exactly when it has ended, it dies with the daemon (by way of the warm trainer), and its number belongs to nobody
else until the daemon has heard how it ended. Where no warm trainer is ready, nothing waits for it: children start cold.
"""

import contextlib
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import LoradError
from daemon import machine
from daemon.clock import monotonic_s
from store import orders
from store.bases import base_folder
from store.orders import Gone, Order, Ready, Release, Started
from store.paths import Home
from store.runs import SPEC

if TYPE_CHECKING:
    from daemon.index import Index

log = logging.getLogger(__name__)

CHILD = "trainer.warm"
LOG = "warm.log"
BACKENDS = frozenset({"peft"})  # those whose libraries may be imported before a fork
ANSWER_S = 5.0  # a fork takes milliseconds; one that is held still answers never
RETRY_S = 60.0  # after one that ended unasked
AT_ONE_THREAD = {"MKL_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # no pool, and no CUDA, before the fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which warm trainer is wanted: another one where any of this changes."""

    backend: str
    base: str  # folder of the sealed base; empty: none
    sha256: str


def wanted(index: "Index") -> Wanted | None:
    """The warm trainer that config, backend and base ask for; None where trainers are to start cold."""
    config = index.config
    if not config.training.warm or index.backend.name not in BACKENDS or not index.base_sha256 or not machine.LINUX:
        return None
    try:
        return Wanted(backend=index.backend.name, base=str(base_folder(config)), sha256=index.base_sha256)
    except LoradError:
        return None


@dataclass(slots=True, eq=False)
class WarmChild:
    """A child that the warm trainer forked, to be held as a `subprocess.Popen` is."""

    pid: int
    zygote: "_Zygote"
    identity: machine.Identity | None
    returncode: int | None = None
    parent_lost: bool = False
    """Whether it ended with the warm trainer, so that nobody could say how."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it lives. Lets its number go."""
        if self.returncode is None:
            self.zygote.hear()
            self.returncode = self.zygote.release(self.pid)
        if self.returncode is None and self.zygote.is_lost and not (self.identity is not None and self.identity.lives()):
            for member in machine.session_members(self.pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(member, signal.SIGKILL)
            self.returncode, self.parent_lost = -signal.SIGKILL, True
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it, unless the child has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)


@dataclass(slots=True, eq=False)
class _Zygote:
    """One warm trainer: its process, our end of the socket, what it said."""

    key: Wanted
    process: "subprocess.Popen[bytes]"
    channel: socket.socket
    ready: Ready | None = None
    lost_at_s: float = math.inf
    """When the socket ended (monotonic)."""
    _started: list[int] = field(default_factory=list)
    _living: set[int] = field(default_factory=set)
    _ends: dict[int, int] = field(default_factory=dict)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be heard of it any more."""
        return self.lost_at_s < math.inf

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone, or has had time to end since it let go of the socket."""
        return self.process.poll() is not None or monotonic_s() - self.lost_at_s > ANSWER_S

    @property
    def is_busy(self) -> bool:
        """Whether a child lives, or its end was not taken."""
        return bool(self._living)

    def hear(self) -> None:
        """Take in what it has said since. Never blocks."""
        while not self.is_lost:
            try:
                message, _ = orders.receive(self.channel)
            except BlockingIOError:
                return
            if isinstance(message, Ready):
                self.ready = message
            elif isinstance(message, Started):
                self._started.append(message.pid)
            elif isinstance(message, Gone):
                self._ends[message.pid] = message.status
            else:
                self.lost_at_s = monotonic_s()

    def order(self, order: Order, files: tuple[int, ...]) -> int | None:
        """The number of the child that it forked; None where it does not answer: it is ended then, with whatever it has forked.

        Raises OSError where the machine has no process to give.
        """
        deadline = monotonic_s() + ANSWER_S
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        with contextlib.suppress(OSError):
            orders.send(self.channel, order, files)
        self.hear()
        while not self._started and not self.is_lost and (left_s := deadline - monotonic_s()) > 0:
            poll.poll(left_s * 1000)
            self.hear()
        if not self._started:
            self.end()
            return None
        pid = self._started.pop()
        if pid == orders.NO_PROCESS:
            raise OSError("the warm trainer was given no process")
        self._living.add(pid)
        return pid

    def release(self, pid: int) -> int | None:
        """How this child ended, once that is known; its number may be given away afterwards."""
        status = self._ends.pop(pid, None)
        if status is not None:
            self._living.discard(pid)
            with contextlib.suppress(OSError):
                orders.send(self.channel, Release(pid=pid))
        return status

    def end(self) -> None:
        """End it at once, and its children with it. Returns when it is gone."""
        self.lost_at_s = min(self.lost_at_s, monotonic_s())
        self.process.kill()
        self.process.wait()
        self.channel.close()


Spawn = Callable[..., "subprocess.Popen[bytes]"]


class WarmTrainer:
    """Keeps the warm trainer that is wanted, and starts children through it.

    Args: home: its log is `warm.log` there. spawn: `daemon.children.spawn`.
    Returns: of `start`, the child, or None where it is to start cold.
    Raises: OSError where the machine refuses a process.
    Side effects: starts and ends processes; writes `warm.log`.
    """

    def __init__(self, home: Home, spawn: Spawn) -> None:
        self._home = home
        self._spawn = spawn
        self._zygote: _Zygote | None = None
        self._unfit: Wanted | None = None  # it ended before it was ready: the next one would as well
        self._not_before_s = float("-inf")

    @property
    def pid(self) -> int | None:
        """Of the warm trainer that runs."""
        return self._zygote.process.pid if self._zygote is not None else None

    @property
    def is_ready(self) -> bool:
        """Whether it takes orders."""
        if self._zygote is None:
            return False
        self._zygote.hear()
        return self._zygote.ready is not None and not self._zygote.is_lost

    def keep(self, key: Wanted | None) -> None:
        """Start or end it as wanted; to be called every tick. One whose children live is ended after them."""
        zygote = self._zygote
        if zygote is not None:
            zygote.hear()
            if zygote.has_ended:
                self._bury(zygote)
            elif zygote.key != key and not zygote.is_busy:
                self.close()
        if self._zygote is None and key is not None and key != self._unfit and monotonic_s() >= self._not_before_s:
            self._begin(key)

    def start(self, order: Order, files: tuple[int, ...]) -> WarmChild | None:
        """Let it fork a child that holds these files: the log, then the lock of the slot. None: start it cold."""
        zygote = self._zygote
        if zygote is None or not self.is_ready or _backend_of(Path(order.run)) != zygote.key.backend:
            return None
        pid = zygote.order(order, files)
        if pid is None:
            log.warning("the warm trainer (pid %d) does not answer and was ended", zygote.process.pid, extra={"action": "warm_trainer_mute"})
            return None
        return WarmChild(pid=pid, zygote=zygote, identity=machine.identify(pid))

    def close(self) -> None:
        """End it, and its children with it."""
        if self._zygote is not None:
            self._zygote.end()
            self._zygote = None

    def _begin(self, key: Wanted) -> None:
        ours, theirs = orders.pair()
        try:
            with open(self._home.root / LOG, "ab") as logfile:  # to append: it may be cut while the child lives (daemon.bounds)
                words = [CHILD, str(theirs.fileno()), key.backend, *([key.base] if key.base else [])]
                process = self._spawn(words, stdout=logfile, pass_fds=(theirs.fileno(),), threads=1, environment=AT_ONE_THREAD)
        except OSError:
            ours.close()
            self._not_before_s = monotonic_s() + RETRY_S
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._zygote = _Zygote(key=key, process=process, channel=ours)

    def _bury(self, zygote: _Zygote) -> None:
        """It ended unasked: say so, and wait before the next."""
        zygote.end()
        how, was_ready = zygote.process.returncode, zygote.ready is not None
        told = signal.Signals(-how).name if how < 0 else f"status {how}"
        what = "ended" if was_ready else "could not be made ready and ended"
        log.warning("the warm trainer %s with %s; trainers start cold meanwhile; see %s", what, told, LOG, extra={"action": "warm_trainer_lost"})
        self._unfit = None if was_ready else zygote.key
        self._not_before_s = monotonic_s() + RETRY_S
        self._zygote = None


def _backend_of(run: Path) -> str:
    """The backend that the spec of a run names; empty where it cannot be read."""
    try:
        return str(json.loads((run / SPEC).read_bytes())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
