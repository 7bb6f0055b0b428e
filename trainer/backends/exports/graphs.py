"""Base and adapter as a graph of tensors: token ids in, logits out, of any length, without a cache.

Axes: B batch, T tokens, V vocabulary.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainer.backends.exports.answers import Answer, Logits_BTV, Reader
from trainer.backends.exports.merged import merge

if TYPE_CHECKING:
    from trainer.export import Export

INPUT, OUTPUT = "input_ids", "logits"
EXAMPLE_SHAPE = (2, 7)  # neither axis is 1, which an exporter would take for a constant
MOST_TOKENS = 1024  # at least; else the base's own limit


class Graph(torch.nn.Module):
    """A causal model as a function of its tokens alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Logits, B T V, of token ids, B T."""
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def graph_of(made: "Export") -> tuple[Graph, list[Answer]]:
    """The merged model as a graph, and what base and adapter answered."""
    model, answers = merge(made)
    # Attention written out in plain operations: its mask is computed from the ids, so that every length is right.
    model.set_attn_implementation("eager")
    model.config.use_cache = False
    return Graph(model).eval(), answers


def example() -> torch.Tensor:
    """Token ids to draw the graph by."""
    return torch.arange(EXAMPLE_SHAPE[0] * EXAMPLE_SHAPE[1]).reshape(EXAMPLE_SHAPE)


def axes(made: "Export") -> dict[str, Any]:
    """Which axes of the input may have any length, for torch.export."""
    limit = int(made.described.get("max_position_embeddings") or MOST_TOKENS)
    return {INPUT: {0: torch.export.Dim("batch", max=1024), 1: torch.export.Dim("tokens", max=limit)}}


def reader(run: Any) -> Reader:
    """The reader of a function of token ids that returns logits."""

    def read(rows: Any) -> Logits_BTV:
        with torch.inference_mode():
            logits_BTV: Logits_BTV = np.asarray(run(torch.tensor(rows))).astype(np.float32)
        return logits_BTV

    return read
