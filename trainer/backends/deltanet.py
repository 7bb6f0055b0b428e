"""Linear-attention layers (gated DeltaNet of Qwen3.5 and Qwen3-Next) in a flat batch: no state crosses rows.

Such a layer is projections, which look at one token at a time, and between them a short convolution and a recurrence
along the sequence. Only these two must know where rows begin. transformers hands the model's keyword `spans` down to
both functions, so they are told there: each row goes through them in a place of its own, zeros after its end, and is
taken out again. A convolution and a recurrence run from left to right, so the zeros reach nothing.

transformers has a way of its own to say where rows begin (cu_seqlens), but only for the CUDA package
flash-linear-attention; without that package it refuses.

Axes: T all tokens of the flat batch, B rows, N tokens of the longest row, C channels, H heads, D head size.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

Spans = Sequence[tuple[int, int]]

MODELS = {"qwen3_5_text": "qwen3_5", "qwen3_5_moe_text": "qwen3_5_moe", "qwen3_next": "qwen3_next"}
CONVOLUTION, RECURRENCE = "causal_conv1d_fn", "torch_chunk_gated_delta_rule"


def know_spans(model_type: str) -> bool:
    """Let the linear-attention layers of a family keep rows apart where the model is called with `spans`. A repeat is harmless.

    False where it is no such family, or this transformers builds them otherwise: then the family goes the padded path.
    Changes module globals of transformers; without `spans` its functions do what they did.
    """
    if model_type not in MODELS:
        return False
    name = MODELS[model_type]
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    if not (hasattr(module, CONVOLUTION) and hasattr(module, RECURRENCE)):
        return False
    for function, wrap in ((CONVOLUTION, _convolution), (RECURRENCE, _recurrence)):
        if not hasattr(getattr(module, function), "lorad_original"):
            setattr(module, function, wrap(getattr(module, function)))
    return True


def _convolution(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(original)
    def convolve(hidden: torch.Tensor, *args: Any, spans: Spans | None = None, **kwargs: Any) -> torch.Tensor:
        if spans is None:
            return original(hidden, *args, **kwargs)
        rows_BNC = _apart(hidden[0].T, spans)  # hidden: 1 C T
        found_BCN = original(rows_BNC.transpose(1, 2).contiguous(), *args, **kwargs)
        return _together(found_BCN.transpose(1, 2), spans).T[None]

    convolve.lorad_original = original  # type: ignore[attr-defined]
    return convolve


def _recurrence(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def recur(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, g: torch.Tensor, beta: torch.Tensor, spans: Spans | None = None, **kwargs: Any
    ) -> Any:
        if spans is None:
            return original(query, key, value, g=g, beta=beta, **kwargs)
        assert kwargs.get("initial_state") is None, "a flat batch has no state from before"
        heads = [_apart(head[0], spans) for head in (query, key, value)]  # each 1 T H D -> B N H D
        mixed_BNHD, state = original(*heads, g=_apart(g[0], spans), beta=_apart(beta[0], spans), **kwargs)
        return _together(mixed_BNHD, spans)[None], state

    recur.lorad_original = original  # type: ignore[attr-defined]
    return recur


def _apart(flat: torch.Tensor, spans: Spans) -> torch.Tensor:
    """T ... -> B N ...: each row in a place of its own, zeros after its end."""
    lengths = [end - start for start, end in spans]
    return torch.nn.utils.rnn.pad_sequence(flat.split(lengths), batch_first=True)


def _together(rows: torch.Tensor, spans: Spans) -> torch.Tensor:
    """B N ... -> T ...: the rows one after another again."""
    return torch.cat([row[: end - start] for row, (start, end) in zip(rows, spans, strict=True)])
