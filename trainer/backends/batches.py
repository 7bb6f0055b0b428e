"""From examples to losses: the one forward path of training, dev loss and scoring.

Two layouts with the same result up to rounding. Flat: rows lie one after another without padding, and logits exist at
learnt positions only; for model families where that is exact. Padded: the model's own forward on a padded batch, for
every other causal model.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from core.config import Config
from trainer.backends.loss import TokenLoss
from trainer.backends.model import is_flat_exact
from trainer.examples import Example

FLAT_TOKENS = 4096
PADDED_TOKENS = 1024  # a padded batch holds logits of the whole vocabulary at once
SCORING_TOKENS = 1024  # without gradients larger batches gain nothing


class Forward(Protocol):
    """How examples go through a model. `budget_tokens` bounds a training batch."""

    budget_tokens: int

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p of every learnt token, fp32, examples in order."""

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Tokens that a batch of these rows takes."""


def forward_for(model: Any) -> Forward:
    """The layout for a model, with or without an adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    plain_head = type(head) is torch.nn.Linear and head.bias is None
    return FlatForward(inner) if plain_head and is_flat_exact(inner.config) else PaddedForward(inner)


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
        ids: list[int] = []
        places: list[int] = []
        spans: list[tuple[int, int]] = []
        sources: list[int] = []
        for example in examples:
            start = len(ids)
            ids.extend(example.ids)
            places.extend(range(len(example.ids)))
            spans.append((start, len(ids)))
            sources.extend(start + index - 1 for index in example.learnt)
        device = self.model.device
        hidden = self.model.get_decoder()(
            input_ids=torch.tensor([ids], device=device), position_ids=torch.tensor([places], device=device), use_cache=False, spans=spans
        ).last_hidden_state[0]
        losses: torch.Tensor = TokenLoss.apply(
            hidden[torch.tensor(sources, device=device)], self.model.get_output_embeddings().weight, _targets(examples, device)
        )
        return losses


@dataclass(slots=True)
class PaddedForward:
    """Rows under one another, padded on the right; what follows a row cannot reach back into it."""

    model: Any
    budget_tokens: int = PADDED_TOKENS

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Positions that are computed: every row is as long as the longest."""
        return num_rows * longest

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p (nats, float32) of every learnt token, the examples one after another: shape (learnt tokens,)."""
        device = self.model.device
        longest = max(len(example.ids) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)] = torch.tensor(example.ids)
            mask[row, : len(example.ids)] = 1
        wanted = sorted({index - 1 for example in examples for index in example.learnt})
        keep: dict[str, Any] = {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            keep = {"logits_to_keep": torch.tensor(wanted, device=device)}
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **keep).logits
        column = {place: number for number, place in enumerate(wanted)} if keep else {place: place for place in wanted}
        rows = [row for row, example in enumerate(examples) for _ in example.learnt]
        columns = [column[index - 1] for example in examples for index in example.learnt]
        return F.cross_entropy(logits[rows, columns].float(), _targets(examples, device), reduction="none")


def _targets(examples: Sequence[Example], device: Any) -> torch.Tensor:
    return torch.tensor([example.ids[index] for example in examples for index in example.learnt], device=device)


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


def micro_batches(forward: Forward, examples: Sequence[Example], cut: Cut) -> Iterator[list[Example]]:
    """Examples in order, cut into batches; each has at least one."""
    batch: list[Example] = []
    tokens = longest = 0
    for example in examples:
        length = len(example.ids)
        cost = forward.cost(len(batch) + 1, tokens + length, max(longest, length))
        full = (cut.rows and len(batch) >= cut.rows) or (cut.tokens and cost > cut.tokens)
        if batch and full:
            yield batch
            batch, tokens, longest = [], 0, 0
        batch.append(example)
        tokens, longest = tokens + length, max(longest, length)
    if batch:
        yield batch
