"""Watches a training's losses and gradients, and says once, with the cause, when they go wrong. No tensors."""

import logging
import math
from collections import deque
from dataclasses import dataclass, field

from core.config import Config

log = logging.getLogger(__name__)

EXPLODES = 10.0  # times training.max_grad_norm: that much is no noise
IN_A_ROW = 5  # steps before a warning
START_STEPS = 5  # whose mean loss is the start
WINDOW = 10  # steps whose mean loss is held against it
RISES = 1.5  # times the start, and at least RISES_NATS more
RISES_NATS = 0.5


@dataclass(slots=True)
class Stability:
    """What the steps were like so far. `warnings` grows by at most one of each kind until things go well again."""

    config: Config
    clipped: int = 0
    """Steps whose gradient was longer than training.max_grad_norm."""
    warnings: list[str] = field(default_factory=list)
    _long: int = 0
    _first: list[float] = field(default_factory=list)
    _last: "deque[float]" = field(default_factory=lambda: deque(maxlen=WINDOW))
    _told_rise: bool = False

    def see(self, step: int, loss: float, norm: float, rate: float) -> str:
        """A step is done: its loss, the length of its gradient before it was clipped, its learning rate. A new warning, or nothing."""
        self.clipped += norm > self.config.training.max_grad_norm
        return self._warn(self._gradient(step, norm, rate) or self._rise(step, loss))

    def _gradient(self, step: int, norm: float, rate: float) -> str:
        most = self.config.training.max_grad_norm
        self._long = self._long + 1 if norm > EXPLODES * most else 0
        if self._long != IN_A_ROW:
            return ""
        cause = f"learning_rate {rate:.2g} is likely too high" if rate >= self.config.learning_rate / 2 else "some rows are unlike what the base knows"
        return f"step {step}: gradients explode, {IN_A_ROW} in a row over {EXPLODES:g} times training.max_grad_norm (now {norm / most:.0f} times): {cause}"

    def _rise(self, step: int, loss: float) -> str:
        if len(self._first) < START_STEPS:
            self._first.append(loss)
            return ""
        self._last.append(loss)
        start, now = sum(self._first) / START_STEPS, sum(self._last) / len(self._last)
        rises = len(self._last) == WINDOW and now > max(RISES * start, start + RISES_NATS)
        if rises == self._told_rise or not math.isfinite(now):
            return ""
        self._told_rise = rises
        if not rises:
            return ""
        return f"step {step}: the loss rose from {start:.2f} to {now:.2f}: training diverges, lower learning_rate (now {self.config.learning_rate:g})"

    def _warn(self, text: str) -> str:
        if text:
            log.warning("%s", text)
            self.warnings.append(text)
        return text
