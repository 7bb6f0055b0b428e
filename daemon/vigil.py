"""Watches over children: their signs of life, and the orderly end of one that gives none.

A sign of life is any change of `heartbeat`, `progress.jsonl` or `log.txt` in the run folder. Silence is added up from
look to look by the monotonic clock, and a long gap between two looks counts little: neither a jump of the clock, nor a
machine that slept, nor a daemon that was held still makes a child look dead.
"""

import contextlib
import json
import logging
import os
import signal
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from daemon import machine
from daemon.clock import monotonic_s
from store.runs import HEARTBEAT, LOG, PROGRESS, SPEC, STACK, recent_progress

log = logging.getLogger(__name__)

SIGNS = (HEARTBEAT, PROGRESS, LOG)
MOST_GAP_S = 5.0  # of silence that the time between two looks may add; a tick takes at most a second
DUMP_S = 5.0  # for py-spy; longer than that it waits for a process that cannot be read
ECHO_S = 1.0  # for the child's own handler to write its stack
REAP_S = 0.2  # for a killed py-spy to be gone
KILL_AFTER_S = 10.0  # after TERM
STACK_LINES = 4  # of the innermost calls, told as the reason
HEADS = ("MainThread", "Current thread", "Thread ")  # of the main thread's stack: by py-spy, by faulthandler, by py-spy of one that just began


class Vigil:
    """The signs of life of one child."""

    def __init__(self, run: Path, clock: Callable[[], float] = monotonic_s) -> None:
        self.run = run
        """The run folder."""
        self._clock = clock
        self._looked_s = clock()
        self._marks: tuple[tuple[int, int], ...] = ()
        self.silent_s = 0.0
        self.patience = _patience(run)
        self.median_step_s: float | None = None
        self.step = self.steps = 0
        self.micro_batch = 0

    def look(self) -> None:
        """Look at the run folder; to be called every tick."""
        now = self._clock()
        gap_s, self._looked_s = now - self._looked_s, now
        marks = tuple(_mark(self.run / name) for name in SIGNS)
        if marks == self._marks:
            self.silent_s += min(max(gap_s, 0.0), MOST_GAP_S)
            return
        told = self._marks[1:2] != marks[1:2]
        self._marks, self.silent_s = marks, 0.0
        if told:
            self._read_progress()

    def _read_progress(self) -> None:
        lines = recent_progress(self.run)
        steps = [float(line["step_s"]) for line in lines if line.get("step_s") is not None]
        if steps:
            self.median_step_s = statistics.median(steps)
        if lines:
            self.step = int(lines[-1].get("step") or self.step)
            self.steps = int(lines[-1].get("total_steps") or self.steps)
            self.micro_batch = int(lines[-1].get("micro_batch") or self.micro_batch)


def _patience(run: Path) -> tuple[float, float] | None:
    """hang_s and hang_factor of the job's frozen config: a reload does not shorten the time of a child that runs."""
    try:
        training = json.loads((run / SPEC).read_bytes())["settings"]["training"]
        return float(training["hang_s"]), float(training["hang_factor"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


class Ending:
    """The end of a child that hangs: its stack is saved, then TERM, after 10 s KILL. `turn` goes on with it every tick."""

    def __init__(self, run: Path, process: machine.Process, why: str) -> None:
        self.why = why
        self.killed = False
        self._run = run
        self._process = process
        self._since_s = monotonic_s()
        self._term_at_s: float | None = None
        self._echo: tuple[float, int] | None = None  # since when the child's own handler was asked, and the log's size then
        self._spy = machine.read_stack(process.pid, run / STACK)
        log.warning("%s gives no sign of life and is ended: %s", run, why, extra={"action": "child_hung", "pid": process.pid})

    def turn(self) -> None:
        """The next step, once its time has come. Never blocks."""
        now = monotonic_s()
        if self._term_at_s is None:
            if not self._dumping(now):
                self._term_at_s = now
                self._process.terminate()
                self._process.send_signal(signal.SIGCONT)  # one that is held still could not obey
        elif now - self._term_at_s > KILL_AFTER_S and not self.killed:
            self.killed = True
            with contextlib.suppress(ProcessLookupError):  # one whose warm trainer is gone has no number of its own in the end
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the stack reader, if it still runs. One that the kernel holds beside the child it reads is not waited for."""
        if self._spy is not None and self._spy.poll() is None:
            self._spy.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._spy.wait(REAP_S)

    def stack(self) -> tuple[str, ...]:
        """Where the child's main thread stood, innermost call first."""
        try:
            lines = (self._run / STACK).read_text(errors="replace").splitlines()
        except OSError:
            return ()
        heads = (place for head in HEADS for place, line in enumerate(lines) if head in line)
        head = next(heads, len(lines))
        calls = []
        for line in lines[head + 1 :]:
            if not line.strip() or not line[0].isspace():
                break
            calls.append(line.strip())
        return tuple(calls[:STACK_LINES])

    # ---------------------------------------------------------------- the stack

    def _dumping(self, now: float) -> bool:
        """Whether the stack is still being saved. Where py-spy is missing or may not look, the child is asked to write it."""
        if self._spy is not None:
            if self._spy.poll() is None and now - self._since_s < DUMP_S:
                return True
            self.close()
            done, self._spy = self._spy.returncode == 0, None
            if done:
                return False
        if self._echo is None:
            if machine.is_stopped(self._process.pid):
                return False  # it could not answer
            self._echo = (now, _mark(self._run / LOG)[1])
            self._process.send_signal(signal.SIGUSR1)
        since_s, size = self._echo
        if now - since_s < ECHO_S:
            return True
        self._save_echo(size)
        return False

    def _save_echo(self, size: int) -> None:
        """What faulthandler has written into the log since it was asked."""
        try:
            with open(self._run / LOG, "rb") as file:
                file.seek(size)
                (self._run / STACK).write_bytes(file.read(1 << 16))
        except OSError as error:
            log.warning("no stack of %s: %s", self._run, error, extra={"action": "stack_failed"})
