"""The run folder as its child sees it: progress, results so far, and the wish to stop.

A child writes here and nowhere else. `exit.json` is written last, by `trainer.__main__`.
"""

import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal

from core.tasks import ExitNote
from store.child import Stopped
from store.durable import append_line
from store.runs import EXIT, PROGRESS, SPEC
from trainer.checkpoints import kept, newest_resume

Stage = Literal["load", "train", "dev", "score", "probe", "embed"]
REPORT_EVERY_S = 1.0


class RunFolder:
    """Where one child works, and what it has to say about it."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.steps = 0
        self.total_steps = 0
        self.scores: dict[str, str] = {}
        self.stopping = False
        self.stops_at_once = True
        """Whether a TERM ends the child where it stands; a training sets this to False and looks at `stopping`."""
        self._clock = clock
        self._reported_at = 0.0
        self._stage = ""

    @property
    def spec(self) -> Path:
        return self.root / SPEC

    @property
    def exit(self) -> Path:
        return self.root / EXIT

    def on_term(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler of SIGTERM."""
        self.stopping = True
        if self.stops_at_once:
            raise Stopped

    def report(self, stage: Stage, *, last: bool = False, **values: object) -> None:
        """Append a line to progress.jsonl, at most once a second within a stage; `last` is always written.

        A value of None is left out. A line that a crash tears spoils only itself.
        """
        now = self._clock()
        if not last and stage == self._stage and now - self._reported_at < REPORT_EVERY_S:
            return
        self._stage, self._reported_at = stage, now
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage}
        known = {key: _short(value) for key, value in values.items() if value is not None}
        append_line(self.root / PROGRESS, json.dumps(line | known | {"memory_mb": peak_memory_mb()}))

    def results(self, note: ExitNote) -> ExitNote:
        """What `exit.json` says: the outcome, and every whole result that lies in the folder."""
        return replace(
            note,
            steps=self.steps,
            total_steps=self.total_steps,
            candidates=kept(self.root),
            checkpoint=newest_resume(self.root),
            scores=dict(self.scores),
        )


def peak_memory_mb() -> int:
    """Most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
