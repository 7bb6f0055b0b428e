"""From examples to losses: the one forward path of training, dev loss and scoring.

Flat: rows lie one after another without padding, and logits exist at learnt positions only. `trainer.backends.families`
says which models go that way; for the others there is `trainer.backends.plain`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from core.config import Config
from trainer.backends.attention import Rows
from trainer.backends.loss import TokenLoss
from trainer.examples import Example

FLAT_TOKENS = 4096
LEAST_SAVED = 64  # tokens that sharing a beginning must save; below, joining the keys costs as much
SCORING_TOKENS = 1024  # without gradients larger batches gain nothing


class Forward(Protocol):
    """How examples go through a model. `budget_tokens` bounds a training batch."""

    budget_tokens: int

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p of every learnt token, fp32, examples in order."""

    def token_scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and for each token whether the model holds it the likeliest: both of shape (learnt tokens,)."""

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Tokens that a batch of these rows takes."""


@dataclass(slots=True)
class FlatForward:
    """Rows one after another; each attends only to itself, positions restart with each row."""

    model: Any
    budget_tokens: int = FLAT_TOKENS

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Positions that are computed: the tokens themselves, as nothing is padded."""
        return tokens

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p (nats, float32) of every learnt token, the examples one after another: shape (learnt tokens,)."""
        return self.token_scores(examples)[0]

    def token_scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and for each token whether the model holds it the likeliest: both of shape (learnt tokens,)."""
        batch = pack(examples, self.model.device, shares=False)
        hidden_TE = self.model.get_decoder()(
            input_ids=batch.ids_T[None], position_ids=batch.places_T[None], use_cache=False, spans=batch.rows.spans
        ).last_hidden_state[0]
        scores: tuple[torch.Tensor, torch.Tensor] = TokenLoss.apply(hidden_TE[batch.sources_S], self.model.get_output_embeddings().weight, batch.targets_S)
        return scores


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows one after another. T tokens, S learnt tokens."""

    ids_T: torch.Tensor
    places_T: torch.Tensor  # of each token in its own row
    rows: Rows
    sources_S: torch.Tensor  # where in T each learnt token is predicted from
    targets_S: torch.Tensor


def pack(examples: Sequence[Example], device: torch.device, *, shares: bool = True) -> Packed:
    """Examples in one sequence; where it pays, the tokens that all begin with lie at the front, once."""
    common = _common_tokens(examples) if shares else 0
    ids, places = list(examples[0].ids[:common]), list(range(common))
    sources: list[int] = []
    targets: list[int] = []
    spans = [(0, common)] if common else []
    for example in examples:
        start = len(ids)
        ids.extend(example.ids[common:])
        places.extend(range(common, len(example.ids)))
        spans.append((start, len(ids)))
        sources.extend(start - common + index - 1 for index in example.learnt)
        targets.extend(example.ids[index] for index in example.learnt)
    ids_T, places_T, sources_S, targets_S = (torch.tensor(values, dtype=torch.long, device=device) for values in (ids, places, sources, targets))
    return Packed(ids_T, places_T, Rows(spans, common), sources_S, targets_S)


def _common_tokens(examples: Sequence[Example]) -> int:
    """Tokens that all rows begin with, short of the first one from which a learnt token is predicted; 0 where so few are saved that it does not pay."""
    first = examples[0].ids
    common = min(len(example.ids) - 1 if not len(example.learnt) else example.learnt[0] - 1 for example in examples)
    for example in examples[1:]:
        if example.ids[:common] != first[:common]:
            common = next(place for place, (mine, other) in enumerate(zip(example.ids, first, strict=False)) if mine != other)
    return common if common * (len(examples) - 1) >= LEAST_SAVED else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How large a forward pass may be: at most so many rows, and of more than one row at most so many tokens; 0 is any number."""

    rows: int = 0
    tokens: int = 0

    @classmethod
    def of_training(cls, config: Config, micro_batch: int | None, budget_tokens: int) -> "Cut":
        """By training.micro_batch, else by tokens. The memory ladder's `micro_batch` shrinks rows and tokens alike."""
        rows = config.training.micro_batch or config.batch_size
        tokens = 0 if config.training.micro_batch else budget_tokens
        if micro_batch is None or micro_batch >= rows:
            return cls(rows=rows, tokens=tokens)
        return cls(rows=micro_batch, tokens=max(1, (tokens or rows * config.max_length) * micro_batch // rows))

    @classmethod
    def of_scoring(cls, config: Config, micro_batch: int | None) -> "Cut":
        """By tokens, shrunk by the memory ladder as in training."""
        rows = config.training.micro_batch or config.batch_size
        return cls(tokens=SCORING_TOKENS) if micro_batch is None else cls(rows=micro_batch, tokens=max(1, SCORING_TOKENS * micro_batch // rows))


def micro_batches(forward: Forward, examples: Iterable[Example], cut: Cut) -> Iterator[list[Example]]:
    """Examples in order, cut into batches; each has at least one. The two conversations of a pair stay together."""
    batch: list[Example] = []
    tokens = longest = sequences = 0
    for example in examples:
        lengths = [len(sequence.ids) for sequence in example.sequences]
        cost = forward.cost(sequences + len(lengths), tokens + sum(lengths), max(longest, *lengths))
        full = (cut.rows and len(batch) >= cut.rows) or (cut.tokens and cost > cut.tokens)
        if batch and full:
            yield batch
            batch, tokens, longest, sequences = [], 0, 0, 0
        batch.append(example)
        tokens, longest, sequences = tokens + sum(lengths), max(longest, *lengths), sequences + len(lengths)
    if batch:
        yield batch
