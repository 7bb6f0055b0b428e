"""One forward for rows of different adapters: all adapters of the batch side by side, each row with its own columns.

A row's product with the columns of another row's adapter is computed too and thrown away (replaced by zero, not
multiplied by it: an overflow in one adapter's columns must not reach another row). At the sizes of a decode step
reading the weights is what costs, and each adapter's are read once either way.

On a CPU the products are summed in fp64. There the base's own products give a row the same bits in every batch
(measured: oneDNN in bf16, every number of rows from 1 to 8; attention with and without masked places), fp32 ones do
not, and one bit is enough to turn a near tie. After the rounding to the base's precision nothing is left of 1e-16: an
answer is the same alone, in a batch, and beside whatever adapters.

Axes: B batch, T tokens, I inputs, O outputs, R ranks of all adapters of a mix, N adapters of a mix.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from serving.engines.port import Blend


@dataclass(frozen=True, slots=True)
class Weights:
    """One adapter at one layer; W' = W + scaling * B A."""

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scaling: float


class Mixable(Protocol):
    """A layer with adapters."""

    weights: dict[str, Weights]


@dataclass(slots=True)
class _Stack:
    """The adapters of a mix at one layer. `columns` and `scaling` say of each rank whose it is."""

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    columns: tuple[tuple[int, int, float], ...]  # (adapter's place in the mix, rank, scaling)


class Mix:
    """The stacked weights of some adapters, made at a layer's first use, and which of them each row takes."""

    def __init__(self, releases: tuple[str, ...]) -> None:
        self.releases = releases
        self._stacks: dict[int, _Stack | None] = {}
        self._blends: tuple[Blend, ...] = ()
        self._factors: dict[tuple[tuple[int, int, float], ...], torch.Tensor] = {}

    def choose(self, blends: tuple[Blend, ...]) -> None:
        """Row i takes `blends[i]` from now on."""
        if blends != self._blends:
            self._blends = blends
            self._factors = {}

    def add(self, layer: Mixable, x_BTI: torch.Tensor, result_BTO: torch.Tensor) -> torch.Tensor:
        """The base's result plus each row's own adapters, in the precision of the sum."""
        stack = self._stacks.get(id(layer)) if id(layer) in self._stacks else self._stack(layer)
        if stack is None:
            return result_BTO
        factors_B1R = self._factors.get(stack.columns)
        if factors_B1R is None:
            factors_B1R = self._factors[stack.columns] = self._factors_of(stack)
        h_BTR = F.linear(x_BTI.to(stack.a_RI.dtype), stack.a_RI)
        h_BTR = torch.where(factors_B1R == 0, 0.0, h_BTR * factors_B1R)
        return result_BTO + F.linear(h_BTR, stack.b_OR)

    def _stack(self, layer: Mixable) -> _Stack | None:
        found = [(place, layer.weights[release]) for place, release in enumerate(self.releases) if release in layer.weights]
        stack = None
        if found:
            device = found[0][1].a_RI.device
            dtype = torch.float64 if device.type == "cpu" else torch.float32
            stack = _Stack(
                torch.cat([weights.a_RI for _, weights in found]).to(dtype),
                torch.cat([weights.b_OR for _, weights in found], dim=1).to(dtype),
                tuple((place, len(weights.a_RI), weights.scaling) for place, weights in found),
            )
        self._stacks[id(layer)] = stack
        return stack

    def _factors_of(self, stack: _Stack) -> torch.Tensor:
        scales = [{part.release: part.scale for part in blend} for blend in self._blends]
        rows = [[row.get(self.releases[place], 0.0) * scaling for place, rank, scaling in stack.columns for _ in range(rank)] for row in scales]
        return torch.tensor(rows, dtype=stack.a_RI.dtype, device=stack.a_RI.device)[:, None]


def mix_of(before: Mix | None, blends: tuple[Blend, ...]) -> Mix:
    """A mix that holds every adapter of `blends`: the one before where it does, as stacking costs a copy of the weights."""
    wanted = {part.release for blend in blends for part in blend}
    mix = before if before is not None and wanted <= set(before.releases) else Mix(tuple(sorted(wanted)))
    mix.choose(blends)
    return mix
