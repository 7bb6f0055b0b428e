"""Which part of the adapter learns, stage by stage.

The adapter has its full rank from the first step; a layer is a range of ranks. Outside that range nothing changes while its
stage runs: gradients are cut before they are clipped, and what weight decay moves is put back. Ranks that no stage has
reached yet have B = 0 and add nothing. A layer that is trained beside the earlier ones has their B at 0 meanwhile; whatever
is written or judged has them back, so that it is the joined adapter. Axes: I inputs, O outputs, R rank.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trainer.backends.resume import Best
from trainer.stages import Stage, StagedPlan

Params = Mapping[str, torch.nn.Parameter]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the dev losses of a stage mean for what comes next, with words for the log and the report."""

    words: tuple[str, ...] = ()
    ends_training: bool = False


class Staging:
    """Where a training stands in its stages."""

    def __init__(self, plan: StagedPlan, params: Params) -> None:
        self.plan, self.stage, self.before = plan, plan.stages[0], -1
        self._params = params
        self._kept: dict[str, torch.Tensor] = {}  # the whole of each weight as the stage began, where a layer learns
        self._aside: dict[str, torch.Tensor] = {}  # B of earlier layers, while a layer learns beside them

    def enter(self, step: int) -> bool:
        """Make the adapter ready for a step; whether it is the first of its stage."""
        stage, before = self.plan.stage_of(step)
        if before != self.before:
            self._leave()
            self.stage, self.before = stage, before
            self._open(stage)
        return step == before + 1

    @property
    def last_step(self) -> int:
        """The last step of the stage at hand."""
        return self.before + self.stage.plan.total_steps

    @property
    def is_last(self) -> bool:
        """Whether no stage follows."""
        return self.stage is self.plan.stages[-1]

    def next_step(self, step: int, best: Best) -> int:
        """The step after `step`: the first of the next stage, where the one at hand has used up its patience."""
        return (self.last_step if self._is_spent(best) else step) + 1

    def outcome(self, best: Best, step: int) -> Outcome:
        """How the stage at hand stands after `step`. It follows from what a resume point holds, so that a resumed training decides alike."""
        stage, words = self.stage, []
        is_spent = self._is_spent(best) and step < self.last_step
        if is_spent:
            words.append(f"stage {stage.name} ended early after step {step}: the dev loss was best at step {best.step}, {best.since} checkpoints before")
        misses = (is_spent or step == self.last_step) and not self.is_last and _misses(stage, best)
        if misses:
            gained = (best.began or 0.0) - (best.dev_loss or 0.0)
            words.append(f"stage {stage.name} lowered the dev loss by {gained:.4f} and was to by {stage.min_gain:g}: the later stages are not trained")
        return Outcome(tuple(words), misses or (is_spent and self.is_last))

    def _is_spent(self, best: Best) -> bool:
        return bool(self.stage.patience) and best.since >= self.stage.patience

    def cut_gradients(self) -> None:
        """To be called once all gradients are there, before they are clipped."""
        for name in self._kept:
            gradient = self._params[name].grad
            if gradient is not None:
                for part in _outside(name, gradient, self.stage.ranks):
                    part.zero_()

    @torch.no_grad()
    def put_back(self) -> None:
        """To be called after the optimizer's step."""
        for name, before in self._kept.items():
            pairs = zip(_outside(name, self._params[name], self.stage.ranks), _outside(name, before, self.stage.ranks), strict=True)
            for part, kept in pairs:
                part.copy_(kept)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The adapter with all its layers, for as long as the block runs. May be nested."""
        aside, self._aside = self._aside, {}
        self._set(aside)
        try:
            yield
        finally:
            self._aside = aside
            self._hide(aside)

    @torch.no_grad()
    def _open(self, stage: Stage) -> None:
        if not stage.layer:
            return
        if stage.beside:
            self._aside = {name: param[:, : stage.ranks[0]].detach().clone() for name, param in self._params.items() if ".lora_B." in name}
            self._hide(self._aside)
        self._kept = {name: param.detach().clone() for name, param in self._params.items()}

    def _leave(self) -> None:
        self._set(self._aside)
        self._aside, self._kept = {}, {}

    @torch.no_grad()
    def _set(self, aside: Mapping[str, torch.Tensor]) -> None:
        for name, earlier in aside.items():
            self._params[name][:, : earlier.shape[1]].copy_(earlier)

    @torch.no_grad()
    def _hide(self, aside: Mapping[str, torch.Tensor]) -> None:
        for name, earlier in aside.items():
            self._params[name][:, : earlier.shape[1]].zero_()


def _misses(stage: Stage, best: Best) -> bool:
    """Whether a stage missed its success; without dev rows nobody can tell."""
    return bool(stage.min_gain) and best.began is not None and best.dev_loss is not None and best.began - best.dev_loss < stage.min_gain


def _outside(name: str, tensor: torch.Tensor, ranks: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of A (R, I) or B (O, R) before and behind these ranks, as views."""
    first, end = ranks
    return (tensor[:first], tensor[end:]) if ".lora_A." in name else (tensor[:, :first], tensor[:, end:])
