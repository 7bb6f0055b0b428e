"""The run folder as its child sees it: progress, results so far, and the wish to stop.

A child writes here and nowhere else. `exit.json` is written last, by `trainer.__main__`.
"""

import json
import logging
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from core.tasks import ExitNote
from store.child import Stopped
from store.durable import append_line
from store.runs import EXIT, HEARTBEAT, PROGRESS, SPEC
from trainer.checkpoints import kept, newest_resume
from trainer.gauges import Gauges

log = logging.getLogger(__name__)

Stage = Literal["load", "train", "dev", "score", "probe", "answer", "suite", "embed", "export", "hold"]
REPORT_EVERY_S = 1.0
BEAT_EVERY_S = 0.2
REST_S = 0.1


class RunFolder:
    """Where one child works, and what it has to say about it."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic, hold: Path | None = None) -> None:
        self.root = root
        self.micro_batch = 0
        """Most rows of a forward pass; 0 before it is known."""
        self.network = ""
        """What this process can reach (trainer.isolation.Network)."""
        self.steps = 0
        self.total_steps = 0
        self.scores: dict[str, str] = {}
        self.rows = 0
        self.longest = 0
        self.device = ""
        self.profile: dict[str, Any] = {}
        """Which profile changed the rows (core.answering.ProfileRecord as JSON values); empty before they are read."""
        self.device_memory_mb = 0
        """Most memory of a GPU that this process has held; 0: it trains on the CPU."""
        self.tokens = 0
        self.seconds = 0.0
        """Tokens of the steps of this run, and how long these steps alone took."""
        self.stopping = False
        self.stops_at_once = True
        """Whether a TERM ends the child where it stands; a training sets this to False and looks at `stopping`."""
        self.listeners: list[Callable[[Mapping[str, object]], None]] = []
        """Each hears every line that progress.jsonl gets."""
        self.gauges = Gauges()
        self.path = ""
        """Which way rows go through the model, and why, in one line."""
        self.warnings: list[str] = []
        """What a person should know who looks at the run afterwards."""
        self._clock = clock
        self._hold = hold
        self._reported_at = 0.0
        self._beaten_at = float("-inf")
        self._stage = ""
        self._mark: tuple[int, float] | None = None  # step and time of the last line of stage train
        self._rested_s = 0.0  # since then

    @property
    def spec(self) -> Path:
        """What this child is to do."""
        return self.root / SPEC

    @property
    def exit(self) -> Path:
        """This child's last word."""
        return self.root / EXIT

    def on_term(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler of SIGTERM."""
        self.stopping = True
        if self.stops_at_once:
            raise Stopped

    def beat(self) -> None:
        """Give a sign of life: whoever makes progress, a step, a batch, a row, calls this. At most five times a second on disk."""
        now = self._clock()
        if now - self._beaten_at >= BEAT_EVERY_S:
            self._beaten_at = now
            (self.root / HEARTBEAT).touch()

    def warn(self, text: str) -> None:
        """Say something in the log that belongs into the report too."""
        log.warning("%s", text)
        if text not in self.warnings:
            self.warnings.append(text)

    def rest(self) -> None:
        """Wait between two steps while the daemon asks for it (heat). A stop ends the wait."""
        began = self._clock()
        while not self.stopping and (why := self._held()):
            self.beat()
            self.report("hold", last=self._stage != "hold", held=why, step=self.steps, total_steps=self.total_steps)
            time.sleep(REST_S)
        self._rested_s += self._clock() - began

    def _held(self) -> str:
        try:
            return (self._hold.read_text() or "held") if self._hold is not None else ""
        except OSError:
            return ""

    def report(self, stage: Stage, *, last: bool = False, **values: object) -> None:
        """Give a sign of life, and append a line to progress.jsonl, at most once a second within a stage; `last` is always written.

        A value of None is left out. A line that a crash tears spoils only itself.
        """
        self.beat()
        now = self._clock()
        if not last and stage == self._stage and now - self._reported_at < REPORT_EVERY_S:
            return
        self._stage, self._reported_at = stage, now
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage}
        values |= {
            "step_s": self._step_s(now) if stage == "train" else None,
            "micro_batch": self.micro_batch or None,
            "tokens": self.tokens or None,
            "network": self.network or None,
        }
        if stage == "train":
            values |= self.gauges.read(self.device)
        known = {key: _short(value) for key, value in values.items() if value is not None}
        whole = line | known | {"memory_mb": peak_memory_mb()}
        append_line(self.root / PROGRESS, json.dumps(whole))
        for listener in self.listeners:
            listener(whole)

    def _step_s(self, now: float) -> float | None:
        """Seconds that a step took since the last line about steps, pauses for heat left out; None before there are two lines."""
        before, self._mark = self._mark, (self.steps, now)
        rested, self._rested_s = self._rested_s, 0.0
        if before is None or self.steps <= before[0]:
            return None
        return max(0.0, now - before[1] - rested) / (self.steps - before[0])

    def results(self, note: ExitNote) -> ExitNote:
        """What `exit.json` says: the outcome, and every whole result that lies in the folder."""
        return replace(
            note,
            steps=self.steps,
            total_steps=self.total_steps,
            rows=self.rows,
            longest=self.longest,
            tokens=self.tokens,
            seconds=round(self.seconds, 3),
            device=self.device,
            memory_mb=(self.device_memory_mb or peak_memory_mb()) if self.device else 0,
            candidates=kept(self.root),
            checkpoint=newest_resume(self.root),
            scores=dict(self.scores),
        )


def peak_memory_mb() -> int:
    """Most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
