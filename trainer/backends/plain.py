"""The plain path: a padded batch through the model's own forward, for every causal model that transformers loads.

Rows are padded on the right, and what follows a row cannot reach back into it: not by attention, which is causal, and
not by a convolution or a recurrent state, which run from left to right. So no state crosses rows either: each lies in a
place of its own. Only a model that looks at the batch as a whole (a rope whose scale goes by the longest position) is
not exact that way; such a model gets one row at a time.

Axes: B rows, N tokens of the longest row, S learnt tokens, E hidden size, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from trainer.backends.loss import TokenLoss
from trainer.examples import Example

PADDED_TOKENS = 1024  # where the model's own head is asked, a padded batch holds logits of the whole vocabulary at once
HEADLESS_TOKENS = 4096  # where logits exist for learnt tokens alone, in chunks, as in the flat layout

# Families whose logits are the output embedding's product with the last hidden state and nothing else: no cap, no scale, no bias.
BARE_HEADS = frozenset(
    {
        *("llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
        *("phi3", "gemma", "gemma3_text", "mixtral", "olmo2", "olmo3", "olmoe", "gpt2", "gpt_neox", "stablelm", "smollm3", "falcon", "gpt_oss"),
    }
)


@dataclass(slots=True)
class PaddedForward:
    """Rows under one another, padded on the right; or one row at a time."""

    model: Any
    budget_tokens: int = 0  # 0: by the kind of the head
    one_row: bool = False

    def __post_init__(self) -> None:
        if not self.budget_tokens:
            self.budget_tokens = HEADLESS_TOKENS if has_bare_head(self.model) else PADDED_TOKENS

    def cost(self, num_rows: int, tokens: int, longest: int) -> int:
        """Positions that are computed: every row is as long as the longest."""
        return tokens if self.one_row else num_rows * longest

    def token_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """-log p (nats, float32) of every learnt token, the examples one after another: shape (learnt tokens,)."""
        return self.token_scores(examples)[0]

    def token_scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and for each token whether the model holds it the likeliest: both of shape (learnt tokens,)."""
        if not self.one_row:
            return self._scores(examples)
        losses, rights = zip(*(self._scores([example]) for example in examples), strict=True)
        return torch.cat(losses), torch.cat(rights)

    def _scores(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.model.device
        ids_BN, mask_BN = _padded(examples, device)
        target_S = torch.tensor([example.ids[index] for example in examples for index in example.learnt], device=device)
        if has_bare_head(self.model):
            hidden_BNE = self.model.get_decoder()(input_ids=ids_BN, attention_mask=mask_BN, use_cache=False).last_hidden_state
            row_S, column_S = _places(examples, {})
            scores: tuple[torch.Tensor, torch.Tensor] = TokenLoss.apply(hidden_BNE[row_S, column_S], self.model.get_output_embeddings().weight, target_S)
            return scores
        wanted = sorted({index - 1 for example in examples for index in example.learnt})
        keep: dict[str, Any] = {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            keep = {"logits_to_keep": torch.tensor(wanted, device=device)}
        logits_BNV = self.model(input_ids=ids_BN, attention_mask=mask_BN, use_cache=False, **keep).logits
        row_S, column_S = _places(examples, {place: number for number, place in enumerate(wanted)} if keep else {})
        logits_SV = logits_BNV[row_S, column_S].float()
        chosen_S = logits_SV.detach().gather(1, target_S[:, None])[:, 0]
        return F.cross_entropy(logits_SV, target_S, reduction="none"), chosen_S == logits_SV.detach().amax(-1)


def has_bare_head(model: Any) -> bool:
    """Whether the model's logits are a frozen head's product with its decoder's output, so that they can be made for learnt tokens alone."""
    head = model.get_output_embeddings()
    return model.config.model_type in BARE_HEADS and type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad


def _padded(examples: Sequence[Example], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask, both B N; no mask where all rows are of one length."""
    longest = max(len(example.ids) for example in examples)
    ids_BN = torch.zeros(len(examples), longest, dtype=torch.long)
    mask_BN = torch.zeros_like(ids_BN)
    for row, example in enumerate(examples):
        ids_BN[row, : len(example.ids)] = torch.tensor(example.ids)
        mask_BN[row, : len(example.ids)] = 1
    return ids_BN.to(device), None if bool(mask_BN.all()) else mask_BN.to(device)


def _places(examples: Sequence[Example], columns: dict[int, int]) -> tuple[list[int], list[int]]:
    """Row and column of the position from which each learnt token is predicted; `columns` says where a position went, if it moved."""
    rows = [row for row, example in enumerate(examples) for _ in example.learnt]
    return rows, [columns.get(index - 1, index - 1) for example in examples for index in example.learnt]
