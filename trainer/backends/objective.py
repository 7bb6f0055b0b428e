"""What a training makes smaller: the seam between the step loop and the ways to learn from rows.

The loop cuts an effective batch into micro-batches, adds up what `Objective.loss_sum` gives for each and divides by the
weights of them all. So the cut never changes the gradient, whatever the objective is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.backends.batches import Forward
from trainer.examples import Example


class Objective(Protocol):
    """One way to learn. The loss of a step is the sum of `loss_sum` over its micro-batches / the sum of `weight` over its rows."""

    def prepare(self, examples: Sequence[Example], beat: Callable[[], None]) -> None:
        """Called once, before a resume point is read, with every row of train and dev: the model still is what the training starts from."""

    def begin(self, examples: Sequence[Example]) -> None:
        """Called before the first micro-batch of each step, with the whole effective batch."""

    def held_out(self, examples: Sequence[Example]) -> tuple[float, int]:
        """Sum of the held-out losses of these rows, and the tokens that it counts for. Without a graph."""

    def weight(self, example: Example) -> float:
        """What a row counts in the denominator: the weights of its learnt tokens, or 1 for a pair. Known without a forward pass."""

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """The weighted sum of the losses of these rows (nats, fp32, no axes), with its graph where gradients are on."""


@dataclass(frozen=True, slots=True)
class TokenObjective:
    """Supervised: sum of weight x -log p over the learnt tokens."""

    forward: Forward

    def prepare(self, examples: Sequence[Example], beat: Callable[[], None]) -> None:
        """Nothing: there is no reference."""

    def begin(self, examples: Sequence[Example]) -> None:
        """Nothing: each row stands for itself."""

    def held_out(self, examples: Sequence[Example]) -> tuple[float, int]:
        """Sum of -log p over the learnt tokens, and how many they are."""
        losses_S = self.forward.token_losses(examples)
        return float(losses_S.sum()), len(losses_S)

    def weight(self, example: Example) -> float:
        """The sum of the row's token weights."""
        return float(sum(example.weights))

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """Sum over the learnt tokens of weight x -log p."""
        losses_S = self.forward.token_losses(examples)
        weights_S = torch.tensor([weight for example in examples for weight in example.weights], device=losses_S.device)
        return (losses_S * weights_S).sum()
