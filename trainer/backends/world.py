"""The processes of one training: which rows of a step are whose, and how their gradients become one.

Every process makes the same plan from the same spec; of the rows of a step each takes every n-th, divides by the weight of
all of them, and the sums are added up before the gradient is clipped. So n processes make the steps that one would make, up
to the order in which floats are added. Process 0 is the trainer child that the daemon started; it alone writes checkpoints.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

log = logging.getLogger(__name__)

T = TypeVar("T")


class World:
    """This process among those of its training. One alone talks to nobody."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def now(cls) -> "World":
        """The process group that torch has joined, else one alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part: every n-th."""
        return items if self.size == 1 else items[self.rank :: self.size]

    def add_gradients(self, params: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum over all processes into every gradient, in one message; a gradient that is missing counts as zero."""
        if self.size == 1:
            return
        held = [param for param in params if param.requires_grad]
        for param in held:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        flat = torch.cat([param.grad.reshape(-1) for param in held if param.grad is not None])
        dist.all_reduce(flat)
        start = 0
        for param in held:
            assert param.grad is not None
            param.grad.copy_(flat[start : start + param.numel()].view_as(param))
            start += param.numel()

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over all processes, in float64."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device=self._device())
        dist.all_reduce(summed)
        return tuple(summed.tolist())

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        return flag if self.size == 1 else self.total(float(flag))[0] > 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def _device(self) -> str:
        return "cuda" if dist.get_backend() == "nccl" else "cpu"
