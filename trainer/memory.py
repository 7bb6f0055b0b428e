"""How many rows go through the model at once: by estimate, then by trial, and again whenever memory changes.

Theory of operation. The effective batch never changes, only how it is cut. A cut begins as large as the forward path gains
from and the config allows. Before each step the memory that its largest micro-batch would take is held against what is
free; too little halves the cut, and so does running out of memory in the step itself, which is then made again. What a
step really took mends the estimate. After a while of plenty the cut doubles, never beyond its beginning. Every change is
a line of steps.jsonl, from which a resumed training makes the same steps: other cuts round at other places.
"""

import json
import logging
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from store.durable import append_line, lines_of

if TYPE_CHECKING:
    from trainer.backends.batches import Cut

log = logging.getLogger(__name__)

STEPS = "steps.jsonl"
KEEP_FREE_BYTES = 256 << 20  # what a training leaves to everybody else
CALM_STEPS = 20  # without any want of memory, before a larger cut is tried
CGROUPS = (Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
PLENTY = 2.0  # times what the larger cut would take must then be free


class Gauge(Protocol):
    """The memory of the device that a training runs on."""

    def free_bytes(self) -> int | None:
        """What a forward and backward pass may take now; None where nobody knows."""

    def mark(self) -> None:
        """Begin to watch what is taken."""

    def taken_bytes(self) -> int | None:
        """Most that was taken since the mark; None where that cannot be told."""


class HostMemory:
    """Memory of this machine, or of the control group that this process is bound to, whichever is less."""

    def __init__(self) -> None:
        self.held_bytes = _resident_bytes()  # by what stays: Python, torch, base, adapter
        self._before = (0, 0)

    def free_bytes(self) -> int | None:
        """What the kernel could give, and what our allocator holds from earlier steps and can use again."""
        import psutil

        known = [psutil.virtual_memory().available, *_group_free_bytes()]
        return int(min(known) + max(0, _resident_bytes() - self.held_bytes) - KEEP_FREE_BYTES)

    def mark(self) -> None:
        """Remember what is held, and the most that ever was."""
        self._before = (_resident_bytes(), _peak_bytes())

    def taken_bytes(self) -> int | None:
        """What came on top of what was held; only a new peak of the process tells it."""
        resident, peak = self._before
        now = _peak_bytes()
        return now - resident if now > peak else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A line of steps.jsonl: from this step on, forward passes have at most so many rows and tokens (0: any number)."""

    step: int
    rows: int
    tokens: int
    why: str


class Cutter:
    """The cut of every step, and the record of it. Writes steps.jsonl in the run folder."""

    def __init__(self, widest: "Cut", gauge: Gauge, bytes_per_token: int, record: Path) -> None:
        """`widest` is where it begins; `bytes_per_token` is the estimate of what a pass takes, 0 where the shape of the base is unknown."""
        self.widest = self.cut = widest
        self.gauge, self.record = gauge, record
        self.bytes_per_token = float(bytes_per_token)
        self.is_measured = False
        self.calm = 0
        self._replayed: dict[int, Change] = {}

    def replay(self, record: Path, next_step: int) -> None:
        """Go on with the cuts of an earlier run, recorded in `record`: of the steps before `next_step`, and of those that it made after them."""
        for line in list(lines_of(record)):
            try:
                change = Change(**json.loads(line))
            except (ValueError, TypeError):  # a torn line, ended by the next one
                continue
            if record != self.record:  # a worker of a cluster goes on in the same folder
                append_line(self.record, line)
            self._replayed[max(change.step, next_step)] = change

    def of_step(self, step: int, tokens_at_once: Callable[["Cut"], int]) -> "Cut":
        """The cut of a step. `tokens_at_once` says what its largest micro-batch would compute under a cut."""
        if step in self._replayed:
            change = self._replayed.pop(step)
            self.cut = _smaller(replace(self.cut, rows=change.rows, tokens=change.tokens), self.widest)
            self.calm = 0
        elif not self.record.exists():
            self._change(step, self.cut, "at the start")
        free = self.gauge.free_bytes()
        if free is None or not self.bytes_per_token:
            return self.cut
        while (taken := self._bytes(tokens_at_once(self.cut))) > free and self.cut.rows > 1:
            self._change(step, half(self.cut), f"{taken >> 20} MiB would be taken, {max(free, 0) >> 20} MiB are free")
        self._widen(step, free, tokens_at_once)
        return self.cut

    def ran_out(self, step: int, rows: int) -> bool:
        """A pass of so many rows ran out of memory in this step: halve. False where a pass had one row only: nothing is left to halve."""
        if rows <= 1:
            return False
        self._change(step, half(replace(self.cut, rows=rows)), f"out of memory with {rows} rows in a pass")
        self.widest = self.cut  # proven: no estimate leads back
        return True

    def learn(self, tokens: int) -> None:
        """A step whose largest micro-batch computed so many tokens is over: mend the estimate by what it took since the mark."""
        taken = self.gauge.taken_bytes()
        if taken is None or taken <= 0 or tokens <= 0:
            return
        measured = taken / tokens
        self.bytes_per_token = max(measured, self.bytes_per_token) if self.is_measured else measured
        self.is_measured = True

    def _widen(self, step: int, free: int, tokens_at_once: Callable[["Cut"], int]) -> None:
        self.calm = self.calm + 1 if self.is_measured else 0
        if self.cut == self.widest or self.calm < CALM_STEPS or self._replayed:
            return
        wider = _smaller(replace(self.cut, rows=self.cut.rows * 2, tokens=self.cut.tokens * 2), self.widest)
        if self._bytes(tokens_at_once(wider)) * PLENTY <= free:
            self._change(step, wider, f"{free >> 20} MiB are free again")

    def _bytes(self, tokens: int) -> int:
        return int(tokens * self.bytes_per_token)

    def _change(self, step: int, cut: "Cut", why: str) -> None:
        if step > 1 or cut != self.cut:
            log.info("step %d: forward passes of at most %d rows and %s tokens: %s", step, cut.rows, cut.tokens or "any number of", why)
        self.cut, self.calm = cut, 0
        append_line(self.record, json.dumps({"step": step, "rows": cut.rows, "tokens": cut.tokens, "why": why}))


def half(cut: "Cut", rows: int = 0) -> "Cut":
    """The cut with half the rows and half the tokens, at least one of each. Args: rows: what a pass had, where the cut bounds no rows."""
    return replace(cut, rows=max(1, (cut.rows or rows) // 2), tokens=max(1, cut.tokens // 2) if cut.tokens else 0)


def _smaller(one: "Cut", other: "Cut") -> "Cut":
    """The narrower of both in rows, and in tokens, where 0 is any number."""
    tokens = min(one.tokens, other.tokens) if one.tokens and other.tokens else one.tokens or other.tokens
    return replace(one, rows=min(one.rows, other.rows), tokens=tokens)


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _group_free_bytes() -> list[int]:
    """What each control group (v2) around this process leaves it; none where there is no such bound."""
    listing, root = CGROUPS
    found = []
    try:
        own = next(line for line in listing.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    folder = root / own.removeprefix("0::").strip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        try:
            most = int((group / "memory.max").read_text())
            cached = next(int(line.split()[1]) for line in (group / "memory.stat").read_text().splitlines() if line.startswith("inactive_file "))
            found.append(most - int((group / "memory.current").read_text()) + cached)
        except (OSError, ValueError, StopIteration):  # "max": no bound here; or no such file at the root
            continue
    return found
