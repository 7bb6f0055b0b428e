"""Layers of an adapter along its rank: freezing the earlier ones, joining what was trained side by side.

An adapter's output is scale B A x. Two of them add up to one of both ranks: A = [A1; A2] and B = [B1, B2] with one scale,
where B of an adapter with another scale is multiplied by the quotient. That is exact up to one rounding of that product,
and without any where the scales are equal. Axes: I inputs, O outputs, R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from trainer.backends.model import ADAPTER_WEIGHTS

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The weights of one adapter by PEFT's names, and its scale."""

    weights: Weights
    scale: float

    @classmethod
    def read(cls, folder: Path, scale: float) -> "Layer":
        """Of an adapter in PEFT layout."""
        return cls(weights=load_file(folder / ADAPTER_WEIGHTS), scale=scale)


def joined(layers: Sequence[Layer], scale: float) -> dict[str, torch.Tensor]:
    """The weights of one adapter with `scale` that adds up all layers; its rank is the sum of theirs.

    Every layer must have the same modules. Raises ValueError where one does not.
    """
    names = list(layers[0].weights)
    for layer in layers[1:]:
        if strange := sorted(set(layer.weights) ^ set(names)):
            raise ValueError(f"the layers have other modules: {strange[0]!r} is not in each of them")
    found = {}
    for name in names:
        if ".lora_A." in name:
            found[name] = torch.cat([layer.weights[name] for layer in layers], dim=0)  # (R1 + R2, I)
        else:
            found[name] = torch.cat([layer.weights[name] * (layer.scale / scale) for layer in layers], dim=1)  # (O, R1 + R2)
    return found


class FrozenRanks:
    """Keeps the first `count` ranks of an adapter as they are while the others learn.

    Their gradients are cut before the optimizer sees them, so that they take no part in the clipping; weight decay, which
    needs no gradient, is undone after the step.
    """

    def __init__(self, params: Mapping[str, torch.nn.Parameter], count: int) -> None:
        self._count = count
        self._held = {name: (param, _ranks(name, param, count).detach().clone()) for name, param in params.items()} if count else {}

    def cut_gradients(self) -> None:
        """To be called after backward, before clipping."""
        for name, (param, _) in self._held.items():
            if param.grad is not None:
                _ranks(name, param.grad, self._count).zero_()

    @torch.no_grad()
    def restore(self) -> None:
        """To be called after the optimizer's step."""
        for name, (param, before) in self._held.items():
            _ranks(name, param, self._count).copy_(before)


def _ranks(name: str, tensor: torch.Tensor, count: int) -> torch.Tensor:
    """The part of A (R, I) or B (O, R) that belongs to the first `count` ranks, as a view."""
    return tensor[:count] if ".lora_A." in name else tensor[:, :count]
