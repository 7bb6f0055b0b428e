"""Starts every child process of the daemon, from the main thread, and knows which of them live and how they ended.

A child has a session of its own and dies with the daemon (see `daemon.machine`). A child that needs a slot inherits the
slot's flock: the daemon closes its own copy, so the lock is free exactly when no child lives. Its environment names the
slot's device and its hold file; its signs of life are watched by `daemon.vigil`. Trainers are forked by the warm trainer
where one is ready (`daemon.warming`), under the same guarantees.

How a child ends: by itself; by TERM, when it is asked to stop; by KILL of its whole session after a hang (10 s after the
TERM) or when a person insists (the second TERM of the daemon). Whatever it has started ends with it.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from core.config import Config
from core.exits import ChildExit
from core.facts import DeviceSeen
from core.records import ChildRef
from core.tasks import ChildSeen
from daemon import machine
from daemon.clock import monotonic_s
from daemon.cores import cores_here
from daemon.devices import Devices
from daemon.vigil import Ending, Vigil
from daemon.warming import WarmChild, WarmTrainer
from store.child import HOLD
from store.locks import is_locked, take_lock
from store.orders import Order
from store.paths import Home
from store.runs import LOG

log = logging.getLogger(__name__)

TRAINER = ["trainer"]
REFUSED_S = 5.0  # after a start that the machine refused (no memory, no process, no disk) the slots wait: each try leaves a run folder
MOST_ENDED = 1000  # ends that are remembered; a look or two after it each is in the job's facts
NEVER_STARTED = {"status": int(ChildExit.STOPPED)}  # what is seen of a child that this daemon could not start: no attempt


@dataclass(slots=True)
class Running:
    """A child that this daemon started."""

    run: str
    process: machine.Process
    slot: int | None
    vigil: Vigil
    kills_before: int | None  # memory kills that the kernel had counted at its start
    stopped: bool = False  # TERM was sent
    killed: bool = False  # KILL was sent
    ending: Ending | None = None  # it hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child of this daemon ended: what `ChildSeen` tells of it."""

    run: str
    seen: Mapping[str, object]


class Children:
    """The children of jobs, by job id; at most one a job."""

    def __init__(self, home: Home, slots: int, devices: Devices | None = None) -> None:
        self._home = home
        self._slots = slots
        self._devices = devices or Devices(home, slots)
        self._running: dict[str, Running] = {}
        self._ended: dict[str, Ended] = {}
        self._refused_at_s = float("-inf")
        self.warm = WarmTrainer(home, spawn)
        """Forks trainers within a moment, while `keep` is called every tick."""

    def start(self, job: str, run: Path, words: list[str], slot: int | None, threads: int) -> None:
        """Start `python -m WORDS RUN` with its log in the run folder. Raises LockHeldError where the slot is taken, OSError
        where the machine refuses: then no slot is free for a few seconds, and the child is seen to have been stopped."""
        lock = take_lock(self._home.slot_lock(slot), "starting", f"slot {slot}", hint="wait for its child") if slot is not None else None
        kills_before = machine.memory_kills()
        try:
            with open(run / LOG, "ab") as logfile:
                held = (lock,) if lock is not None else ()
                environment = self._environment(slot)
                threads = self._devices.threads(slot, threads) if slot is not None else threads
                order = Order(run=str(run), threads=threads or cores_here(), environment=environment)
                process: machine.Process | None = self.warm.start(order, (logfile.fileno(), *held)) if words == TRAINER else None
                if process is None:
                    process = spawn([*words, str(run)], stdout=logfile, pass_fds=held, threads=threads, environment=environment)
            self._ended.pop(job, None)
            self._running[job] = Running(run=run.name, process=process, slot=slot, vigil=Vigil(run), kills_before=kills_before)
            if lock is not None:
                _sign_lock(lock, process.pid, run)
        except OSError:
            self._refused_at_s = monotonic_s()
            raise
        finally:
            if lock is not None:
                os.close(lock)

    def _environment(self, slot: int | None) -> dict[str, str]:
        if slot is None:
            return {}
        return self._devices.environment(slot) | {HOLD: str(self._home.slot_hold(slot))}

    def look(self, job: str, ref: ChildRef) -> ChildSeen:
        """The child of this run: its signs of life, or how it ended. Goes on with the end of one that hangs; reaps it.

        One that an earlier daemon started has ended, and nothing more is known; one that could not be started is no attempt.
        """
        child = self._running.get(job)
        if child is not None and child.run == ref.run:
            status = machine.end_group(child.process)
            child.vigil.look()
            vigil = child.vigil
            if status is None:
                if child.ending is not None:
                    child.ending.turn()
                signs = {"silent_s": vigil.silent_s, "patience": vigil.patience, "median_step_s": vigil.median_step_s}
                return ChildSeen(ref=ref, alive=True, **signs, step=vigil.step, steps=vigil.steps)  # type: ignore[arg-type]
            self._ended[job] = _ended(child, status)
            del self._running[job]
            if len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        ended = self._ended.get(job)
        known = ended.seen if ended is not None and ended.run == ref.run else NEVER_STARTED
        return ChildSeen(ref=ref, alive=False, **known)  # type: ignore[arg-type]

    def stop(self, job: str, *, hung: str = "") -> None:
        """Send TERM once; with `hung`, save the stack first and kill it where TERM does not end it. `look` goes on with that."""
        child = self._running.get(job)
        if child is None or machine.end_group(child.process) is not None:
            return
        if hung and child.ending is None:
            child.ending = Ending(child.vigil.run, child.process, hung)
        elif not hung and not child.stopped and child.ending is None:
            child.process.terminate()
            child.stopped = True

    def free_slots(self) -> tuple[int, ...]:
        """Slots whose lock nobody holds; none just after a start that the machine refused."""
        if self.was_refused:
            return ()
        taken = {child.slot for child in self._running.values()}
        return tuple(slot for slot in range(self._slots) if slot not in taken and not is_locked(self._home.slot_lock(slot)))

    @property
    def was_refused(self) -> bool:
        """Whether the machine refused a start a few seconds ago."""
        return monotonic_s() - self._refused_at_s < REFUSED_S

    def devices(self, config: Config) -> tuple[DeviceSeen, ...]:
        """The device of each slot."""
        return self._devices.look(config, self._own_pids)

    def need_bytes(self, config: Config) -> int | None:
        """Memory that one training takes, by estimate."""
        return self._devices.need_bytes(config)

    def hold(self, slot: int, why: str) -> None:
        """Let the child in this slot pause between two steps, or with an empty `why` go on."""
        self._devices.hold(slot, why)

    def _own_pids(self) -> set[int]:
        """The children and all that they have started."""
        found = set()
        for child in self._running.values():
            found.add(child.process.pid)
            with contextlib.suppress(psutil.Error):
                found |= {below.pid for below in psutil.Process(child.process.pid).children(recursive=True)}
        return found

    def any_alive(self) -> bool:
        """Whether a child that this daemon started still lives."""
        return any(machine.end_group(child.process) is None for child in self._running.values())

    def kill_all(self) -> None:
        """End every child at once; the second TERM of an impatient person."""
        for child in self._running.values():
            if machine.end_group(child.process) is None:
                child.killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
            if child.ending is not None:
                child.ending.close()


def _ended(child: Running, status: int) -> Ended:
    """What is known of a child at its end."""
    kills = machine.memory_kills()
    ending = child.ending
    if ending is not None:
        ending.close()
    seen = {
        "step": child.vigil.step,
        "micro_batch": child.vigil.micro_batch,
        "status": status if status >= 0 else None,
        "signal": max(0, -status),
        "killed": child.killed or (ending is not None and ending.killed),
        "hung": ending.why if ending is not None else "",
        "stack": ending.stack() if ending is not None else (),
        "parent_lost": isinstance(child.process, WarmChild) and child.process.parent_lost,
        "memory_kill": kills is not None and child.kills_before is not None and kills > child.kills_before,
    }
    return Ended(run=child.run, seen=seen)


def spawn(
    words: list[str],
    *,
    stdout: IO[bytes],
    pass_fds: tuple[int, ...] = (),
    stdin: int = subprocess.DEVNULL,
    threads: int = 0,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m WORDS` in a session of its own that dies with the daemon. stdout and stderr go to `stdout`."""
    tie = machine.tether()
    whole = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"} | tie.environment | dict(environment or {})
    if threads:
        whole["OMP_NUM_THREADS"] = str(threads)
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds + tie.pass_fds,
        preexec_fn=tie.begin,  # only system calls run between fork and exec
        env=whole,
    )
    return process


def _sign_lock(lock: int, pid: int, run: Path) -> None:
    """Write who holds the slot, so that a later daemon can end an orphan by identity and not by a reused pid."""
    found = machine.identify(pid)
    if found is None:
        return
    text = json.dumps({"pid": pid, "started": found.started, "boot": found.boot, "run": str(run)}).encode()
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)
    except OSError as error:  # a full disk: the child lives, and this daemon knows it
        log.warning("%s: its slot's lock does not name it: %s", run, error, extra={"action": "lock_unsigned", "pid": pid})
