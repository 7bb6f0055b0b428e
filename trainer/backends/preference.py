"""Learning from pairs and from judged answers, beside plain rows: DPO, ORPO, KTO on our own batches and masks.

Theory of operation. The log-probability of an answer is the sum over its learnt tokens. The reference of dpo and kto is the
model that the training starts from: the bare base under a new adapter (whose B is 0), or the adapter that it goes on from.
So the reference needs no second model and no switch: its log-probabilities are taken once a row, before the first step.

Where a job holds rows of several kinds, each kind's loss is its own mean over the effective batch, and counts by its share
of the rows; of a single kind this is that objective's plain mean.

Formulas: DPO arXiv 2305.18290 eq. 7; KTO 2402.01306 eq. 8, its reference point from answers under other rows' prompts;
ORPO 2403.07691 eq. 6 and 7, with answers' mean log-probabilities. TRL's trainers have the same losses; a test holds both
equal. Axes: P pairs, S learnt tokens.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from core.config import Config
from trainer.backends.batches import SCORING_TOKENS, Cut, Forward, micro_batches
from trainer.backends.objective import Objective, TokenObjective
from trainer.examples import Example

IMBALANCE = 4 / 3
"""How much more one label may weigh than the other in kto; the paper's bound (section 4.2). Beyond it the rarer one weighs more."""

TIE = 1e-3
"""Nats below which two answers count as told apart by nobody: rounding of batches of other sizes."""

REFERENCE_CUT = Cut(tokens=SCORING_TOKENS)  # of passes without a gradient

Place = tuple[str, int]


def objective_for(config: Config, forward: Forward, model: Any, examples: Iterable[Example]) -> Objective:
    """How the rows of a training are learnt: token by token, unless some of them are pairs or judged answers."""
    rows = [example.row for example in examples]
    if all(row.objective == "sft" for row in rows):
        return TokenObjective(forward)
    good = sum(row.objective == "kto" and bool(row.label) for row in rows)
    bad = sum(row.objective == "kto" and not row.label for row in rows)
    return MixedObjective(forward=forward, model=model, judge=Judge(config.training.beta), label_weights=label_weights(good, bad))


def label_weights(good: int, bad: int) -> tuple[float, float]:
    """What a good and a bad answer weigh in kto, so that neither label outweighs the other by more than IMBALANCE."""
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good / IMBALANCE), max(1.0, good / bad / IMBALANCE)


# ---------------------------------------------------------------- the losses


def dpo_loss(margin_P: torch.Tensor, beta: float) -> torch.Tensor:
    """Of each pair, from how much more than the reference the model prefers the better answer (nats)."""
    return -F.logsigmoid(beta * margin_P)


def kto_loss(gain_P: torch.Tensor, good_P: torch.Tensor, drift: float, beta: float) -> torch.Tensor:
    """Of each judged answer, from its gain over the reference (nats), whether it is a good one, and the model's drift from the reference."""
    return 1 - torch.sigmoid(beta * torch.where(good_P, gain_P - drift, drift - gain_P))


def orpo_loss(chosen_P: torch.Tensor, rejected_P: torch.Tensor, beta: float) -> torch.Tensor:
    """Of each pair, from the mean log-probability per token of its two answers: imitation of the better one, and the odds between them."""
    odds_P = (chosen_P - rejected_P) - (_log1mexp(chosen_P) - _log1mexp(rejected_P))
    return -chosen_P - beta * F.logsigmoid(odds_P)


def _log1mexp(logp_P: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0; a token that is certain is taken as nearly so, or the odds had no bound."""
    return torch.log(-torch.expm1(logp_P.clamp(max=-1e-6)))


# ---------------------------------------------------------------- one training


@dataclass(slots=True)
class _Part:
    """The rows of one kind in an effective batch, and the sum of their weights."""

    rows: int = 0
    weight: float = 0.0


@dataclass(slots=True, kw_only=True)
class MixedObjective:
    """Rows of any kind, each learnt in its own way. See `trainer.backends.objective.Objective`."""

    forward: Forward
    model: Any
    judge: "Judge"
    label_weights: tuple[float, float] = (1.0, 1.0)
    parts: dict[str, _Part] = field(default_factory=dict)
    drift: float = 0.0
    """Of kto: how far the model has gone from the reference on answers that do not belong to their prompts, in nats; at least 0."""

    def prepare(self, examples: Sequence[Example], beat: Callable[[], None] = lambda: None) -> None:
        """Take the reference's log-probabilities of every row that is compared with it."""
        with _evaluating(self.model):
            self.judge.prepare(self.forward, examples, beat)

    def begin(self, examples: Sequence[Example]) -> None:
        """Count what the batch holds of each kind, and measure the drift."""
        self.parts = {}
        for example in examples:
            part = self.parts.setdefault(example.row.objective, _Part())
            part.rows, part.weight = part.rows + 1, part.weight + self._own_weight(example)
        self.drift = self._drift([example for example in examples if example.row.objective == "kto" and example.second is not None])

    def weight(self, example: Example) -> float:
        """1: each row counts alike; its own weight is at work among those of its kind."""
        return 1.0

    def loss_sum(self, examples: Sequence[Example]) -> torch.Tensor:
        """The losses of these rows, scaled so that each kind's sum over the effective batch is its mean times its number of rows."""
        names = dict.fromkeys(example.row.objective for example in examples)
        return torch.stack([self._loss_sum(name, [example for example in examples if example.row.objective == name]) for name in names]).sum()

    def held_out(self, examples: Sequence[Example]) -> tuple[float, int]:
        """Sum of `Judge.loss` over these rows, and their learnt tokens."""
        with _evaluating(self.model):
            losses = [self.judge.loss(example, own) for example, own in zip(examples, answer_losses(self.forward, examples), strict=True)]
        return sum(losses), sum(len(example.learnt) for example in examples)

    def _own_weight(self, example: Example) -> float:
        match example.row.objective:
            case "sft":
                return float(sum(example.weights))
            case "kto":
                return example.row.weight * self.label_weights[0 if example.row.label else 1]
        return example.row.weight

    def _loss_sum(self, name: str, examples: Sequence[Example]) -> torch.Tensor:
        part = self.parts[name]
        scale = part.rows / part.weight
        if name == "sft":
            return TokenObjective(self.forward).loss_sum(examples) * scale
        sequences = [example.sequences for example in examples]
        logp_PC = torch.stack(answer_logps(self.forward, [one for both in sequences for one in both])).view(len(examples), -1)  # C: 2 of a pair, else 1
        weight_P = torch.tensor([self._own_weight(example) for example in examples], device=logp_PC.device)
        if name == "orpo":
            tokens_PC = torch.tensor([[_mass(one) for one in both] for both in sequences], device=logp_PC.device)
            mean_PC = logp_PC / tokens_PC
            return (weight_P * orpo_loss(mean_PC[:, 0], mean_PC[:, 1], self.judge.beta)).sum() * scale
        before = [self.judge.reference[_place(example)][: logp_PC.shape[1]] for example in examples]
        gain_PC = logp_PC - torch.tensor(before, device=logp_PC.device)
        if name == "kto":
            good_P = torch.tensor([bool(example.row.label) for example in examples], device=logp_PC.device)
            return (weight_P * kto_loss(gain_PC[:, 0], good_P, self.drift, self.judge.beta)).sum() * scale
        return (weight_P * dpo_loss(gain_PC[:, 0] - gain_PC[:, 1], self.judge.beta)).sum() * scale

    def _drift(self, examples: Sequence[Example]) -> float:
        """The mean over the batch of what the answers under other rows' prompts gained over the reference; 0 where that is negative."""
        seconds = [example.second for example in examples if example.second is not None]
        before = iter([self.judge.reference[_place(example)][1] for example in examples])
        gains = []
        with _evaluating(self.model):
            for batch in micro_batches(self.forward, seconds, REFERENCE_CUT):
                gains += [float(logp) - next(before) for logp in answer_logps(self.forward, batch)]
        return max(0.0, sum(gains) / len(gains)) if gains else 0.0


# ---------------------------------------------------------------- of rows that were held out


@dataclass(slots=True)
class Judge:
    """The loss of held-out rows: that of the tokens for plain rows, else how well better and worse answers are told apart."""

    beta: float
    reference: dict[Place, tuple[float, ...]] = field(default_factory=dict)
    """Log-probabilities of a row's answer, and of its second conversation, under the model that everything is compared with."""

    def prepare(self, forward: Forward, examples: Sequence[Example], beat: Callable[[], None] = lambda: None, cut: Cut = REFERENCE_CUT) -> None:
        """Take the log-probabilities of the model behind `forward` as the reference: one pass over the rows that need one."""
        wanted = sorted((one for one in examples if one.row.objective in ("dpo", "kto") and _place(one) not in self.reference), key=lambda one: len(one.ids))
        for batch in micro_batches(forward, wanted, cut):
            conversations = [(one,) if one.second is None else (one, one.second) for one in batch]
            with torch.no_grad():
                logps = iter(answer_logps(forward, [one for both in conversations for one in both]))
            for example, both in zip(batch, conversations, strict=True):
                self.reference[_place(example)] = tuple(float(next(logps)) for _ in both)
            beat()

    def loss(self, example: Example, losses: Sequence[torch.Tensor]) -> float:
        """Sum over the row's learnt tokens of -log p (plain rows), of the pair's loss (orpo), or of -log sigmoid(beta x margin).

        The margin (nats) is how much more the model prefers the better answer than the reference does (dpo), or how much
        likelier a good answer became, a bad one less likely (kto). The reference itself has log 2 a token: it tells nothing
        apart. The loss of the better answer alone would not do: dpo may let it rise, if that of the worse one rises further.

        Args: losses: -log p of the learnt tokens of each of `example.sequences`.
        """
        if example.row.objective == "sft":
            return float(losses[0].double().sum())
        logps = [float(_logp(one, own)) for one, own in zip(example.sequences, losses, strict=True)]
        if example.row.objective == "orpo":
            chosen, rejected = (torch.tensor(logp / _mass(one), dtype=torch.float64) for logp, one in zip(logps, example.sequences, strict=True))
            return len(example.learnt) * float(orpo_loss(chosen, rejected, self.beta))
        margin = self._margin(example, logps)
        return len(example.learnt) * float(F.softplus(torch.tensor(-self.beta * margin, dtype=torch.float64)))

    def told(self, example: Example, losses: Sequence[torch.Tensor]) -> tuple[float | None, float | None]:
        """Whether better and worse answer are told apart (1, a tie 0.5, else 0), and the sum of -log p of the answer that is to be
        learnt; None, None of a plain row. Where there is no reference (orpo), by which of the two answers is likelier a token.

        Args: losses: as in `loss`. A judged answer that is a bad one has no second value.
        """
        if example.row.objective == "sft":
            return None, None
        logps = [float(_logp(one, own)) for one, own in zip(example.sequences, losses, strict=True)]
        if example.row.objective == "orpo":
            first, second = (logp / _mass(one) for logp, one in zip(logps, example.sequences, strict=True))
            margin = first - second
        else:
            margin = self._margin(example, logps)
        right = 0.5 if abs(margin) < TIE else float(margin > 0)
        return right, float(losses[0].double().sum()) if example.row.label is not False else None

    def _margin(self, example: Example, logps: Sequence[float]) -> float:
        gains = [logp - before for logp, before in zip(logps, self.reference[_place(example)], strict=False)]
        return gains[0] - gains[1] if len(gains) == 2 else gains[0] if example.row.label else -gains[0]


def told_apart(examples: Sequence[Example], losses: Sequence[float]) -> tuple[int, int]:
    """How many of the pairs and judged answers a model tells apart better than the reference, and how many there are.

    Args: losses: `Judge.loss` of each example.
    """
    own = [loss < len(example.learnt) * math.log(2) for example, loss in zip(examples, losses, strict=True) if example.row.objective in ("dpo", "kto")]
    return sum(own), len(own)


# ---------------------------------------------------------------- answers


def answer_losses(forward: Forward, examples: Sequence[Example]) -> list[list[torch.Tensor]]:
    """-log p of the learnt tokens, of each conversation of each example."""
    parts = iter(_parts(forward, [one for example in examples for one in example.sequences]))
    return [[next(parts) for _ in example.sequences] for example in examples]


def answer_scores(forward: Forward, examples: Sequence[Example]) -> list[tuple[list[torch.Tensor], int]]:
    """The same of each example, and how many learnt tokens of its own conversation the model holds the likeliest."""
    sequences = [one for example in examples for one in example.sequences]
    losses_S, right_S = forward.token_scores(sequences)
    lengths = [len(one.learnt) for one in sequences]
    parts = iter(zip(losses_S.split(lengths), right_S.split(lengths), strict=True))
    found = []
    for example in examples:
        own = [next(parts) for _ in example.sequences]
        found.append(([losses for losses, _ in own], int(own[0][1].sum())))
    return found


def answer_logps(forward: Forward, sequences: Sequence[Example]) -> list[torch.Tensor]:
    """Log-probability of each answer (nats, no axes): the sum over its learnt tokens, each times its message's weight."""
    return [_logp(one, own) for one, own in zip(sequences, _parts(forward, sequences), strict=True)]


def _parts(forward: Forward, sequences: Sequence[Example]) -> list[torch.Tensor]:
    return list(forward.token_losses(sequences).split([len(one.learnt) for one in sequences]))


def _logp(sequence: Example, losses_S: torch.Tensor) -> torch.Tensor:
    share_S = torch.tensor(sequence.weights, device=losses_S.device) / (sequence.row.weight or 1.0)
    return -(losses_S * share_S).sum()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without a graph and without dropout."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _place(example: Example) -> Place:
    return example.row.drop, example.row.line


def _mass(sequence: Example) -> float:
    """Tokens of an answer, each as much as its message's weight."""
    return float(sum(sequence.weights)) / (sequence.row.weight or 1.0)
