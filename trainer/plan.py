"""What a training does at each step: which rows, which learning rate, whether a checkpoint follows. No tensors.

Steps count from 1. The order of an epoch follows from the seed alone, so that a resumed training goes on as if it had
never stopped.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from core.config import Config

LEAST_WARMUP_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of one training over `num_rows` rows."""

    num_rows: int
    batch_size: int
    epochs: float
    max_steps: int  # 0: no bound
    seed: int
    learning_rate: float
    warmup_ratio: float
    checkpoints: int
    fixed_warmup_steps: int = 0  # 0: by warmup_ratio
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"

    @classmethod
    def of(cls, config: Config, num_rows: int) -> "Plan":
        """The plan that a resolved config makes for so many train rows (at least 1)."""
        training = config.training
        return cls(
            num_rows=num_rows,
            batch_size=config.batch_size,
            epochs=training.epochs,
            max_steps=training.max_steps,
            seed=training.seed,
            learning_rate=config.learning_rate,
            warmup_ratio=training.warmup_ratio,
            checkpoints=training.checkpoints,
            fixed_warmup_steps=training.warmup_steps,
            scheduler=training.scheduler,
        )

    @property
    def total_rows(self) -> int:
        """Rows seen over all epochs, repeats counted."""
        return max(1, math.ceil(round(self.num_rows * self.epochs, 6)))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training; the last one may have fewer rows."""
        steps = math.ceil(self.total_rows / self.batch_size)
        return min(steps, self.max_steps) if self.max_steps else steps

    @property
    def warmup_steps(self) -> int:
        """Steps over which the rate rises: training.warmup_steps, else warmup_ratio, at least 5; never more than half of all, at least 1."""
        wanted = self.fixed_warmup_steps or max(math.ceil(self.warmup_ratio * self.total_steps), LEAST_WARMUP_STEPS)
        return max(1, min(wanted, self.total_steps // 2))

    @property
    def checkpoint_steps(self) -> frozenset[int]:
        """Evenly spaced, the last step among them."""
        count = min(self.checkpoints, self.total_steps)
        return frozenset(math.ceil(self.total_steps * part / count) for part in range(1, count + 1))

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear up to its peak, then by the scheduler: a cosine or a line to 0, or the peak to the end."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        done = (step - 1 - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        match self.scheduler:
            case "cosine":
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return self.learning_rate * (1 - done)
            case "constant":
                return self.learning_rate

    def rows(self, step: int) -> list[int]:
        """Indices of the rows of a step; the last step may have fewer than batch_size."""
        start = (step - 1) * self.batch_size
        found = []
        for place in range(start, min(start + self.batch_size, self.total_rows)):
            epoch, index = divmod(place, self.num_rows)
            found.append(_order(self.num_rows, self.seed, epoch)[index])
        return found


@lru_cache(maxsize=2)
def _order(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
    return tuple(order)
