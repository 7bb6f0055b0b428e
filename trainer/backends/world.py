"""The processes of one training: which rows of a step are whose, and how their gradients become one.

Every process makes the same plan from the same spec; of the rows of a step each takes every n-th, divides by the weight of
all of them, and the sums are added up before the gradient is clipped. So n processes make the steps that one would make, up
to the order in which floats are added. What decides how a step goes on (a stop, a want of memory, a loss that is no number)
is agreed upon once, after its gradients: no process waits for one that has left. Process 0 alone writes checkpoints.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from core.errors import ChildError
from store.child import is_out_of_memory
from trainer.backends.resume import RandomStates
from trainer.follower import rank_folder

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the gradients of a step came out: in one process, or agreed upon by all."""

    loss: float = 0.0
    stopped: bool = False
    ran_out: bool = False
    error: ChildError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the gradients are there to be used."""
        return not (self.stopped or self.ran_out or self.error)


def tried(work: Callable[[], float | None], world: "World") -> Outcome:
    """What `work` came to in this process: its loss; None is a stop. Whatever ends a process for good is raised, of a split base everything."""
    try:
        loss = work()
    except ChildError as error:
        if world.is_split:
            raise
        return Outcome(error=error)
    except Exception as error:
        if not is_out_of_memory(error) or world.is_split:
            raise
        return Outcome(ran_out=True)
    return Outcome(stopped=True) if loss is None else Outcome(loss=loss)


def is_split(model: Any) -> bool:
    """Whether the layers of a model (without PEFT's wrapper) are split over processes: every pass is then made by all of them together."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return type(decoder).__name__.startswith("FSDP")  # torch gives a split module a class of this name; asking for it would import the half of torch


class World:
    """This process among those of its training. One alone talks to nobody."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.is_split = False
        """Whether the base is split over the processes, so that all of them make every pass together."""

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

    def folder(self, run: Path) -> Path:
        """Where this process writes below the run folder of the first."""
        return rank_folder(run, self.rank)

    def seed_step(self, seed: int, step: int) -> RandomStates | None:
        """Put the generators to where this step of this process begins, so that a resumed training draws the same. None for one alone: it goes on."""
        return None if self.size == 1 else RandomStates.seed(((seed * 1_000_003 + step) * 4099 + self.rank) % (1 << 63))

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

    def agree(self, own: Outcome) -> Outcome:
        """What all processes together came to: the sum of their losses, and whatever happened to any of them."""
        if self.size == 1:
            return own
        loss, stopped, ran_out, failed = self.total(own.loss, own.stopped, own.ran_out, own.error is not None)
        return Outcome(loss=loss, stopped=stopped > 0, ran_out=ran_out > 0, error=self._first_error(own.error) if failed else None)

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

    def passes(self, own: Iterable[Sequence[T]], spare: Sequence[T]) -> Iterator[tuple[Sequence[T], int]]:
        """This process's batches, each with 1; where all have to make every pass together, then `spare` with 0 for those that only others have."""
        if not self.is_split:
            yield from ((batch, 1) for batch in own)
            return
        batches = list(own)
        most = torch.tensor([len(batches)], device=self._device())
        dist.all_reduce(most, dist.ReduceOp.MAX)
        yield from ((batch, 1) for batch in batches)
        yield from [(spare, 0)] * (int(most) - len(batches))

    def _first_error(self, own: ChildError | None) -> ChildError | None:
        """The error of the first process that has one, so that all end with the same words."""
        errors: list[ChildError | None] = [None] * self.size
        dist.all_gather_object(errors, own)
        return next((error for error in errors if error is not None), None)

    def _device(self) -> str:
        return "cuda" if dist.get_backend() == "nccl" else "cpu"
