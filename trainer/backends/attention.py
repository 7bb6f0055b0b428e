"""Attention over a flat batch: rows lie one after another in one sequence and each attends only to itself.

Axes: B batch (always 1 here), H query heads, K key/value heads, G = H / K, T all tokens of the batch, N tokens of one
row, D head size. `spans` are the (start, end) of the rows in T; they cover it without gaps.

transformers hands `spans` through from the model's call to `flat_attention` as a keyword.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

FLAT = "lorad_flat"
LONGEST_PLAIN = 512  # a longer row's N x N probabilities cost more than they save against the fused kernel

Spans = Sequence[tuple[int, int]]


def register() -> None:
    """Make `attn_implementation=FLAT` known to transformers. A repeat is harmless."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(FLAT, flat_attention)
    AttentionMaskInterface.register(FLAT, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """Spans say who sees whom; no T x T mask is ever made."""


def flat_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # B H T D
    key: torch.Tensor,  # B K T D
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    spans: Spans,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each span, as B T H D. Signature and result are what transformers expects."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if max(end - start for start, end in spans) <= LONGEST_PLAIN:
        return _PlainAttention.apply(query, key, value, spans, scale), None
    rows = [_one_row(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], scale) for start, end in spans]
    return torch.cat(rows, 1), None


def _one_row(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    # By the row's own length, so that its result does not hang on what else is in the batch.
    if query.shape[2] <= LONGEST_PLAIN:
        return _PlainAttention.apply(query, key, value, [(0, query.shape[2])], scale)
    shared = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=shared).transpose(1, 2)


class _PlainAttention(torch.autograd.Function):
    """Two batched products and a softmax per row, probabilities kept: on a CPU much faster than the fused kernel's
    backward for short rows. All query heads of one key/value head go through one product."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scale: float) -> torch.Tensor:
        num_kv, (_, num_q, total, size) = key.shape[1], query.shape
        out = query.new_empty(1, total, num_q, size)
        probabilities = []
        masks = _causal_masks(spans, query.dtype, query.device)
        for start, end in spans:
            length = end - start
            q = query[0, :, start:end].reshape(num_kv, -1, size)  # K, G*N, D
            weights = torch.bmm(q, key[0, :, start:end].transpose(1, 2)).view(num_kv, -1, length, length)
            weights = torch.softmax(weights.mul_(scale).add_(masks[length]), -1).view(num_kv, -1, length)
            out[0, start:end] = torch.bmm(weights, value[0, :, start:end]).view(num_q, length, size).transpose(0, 1)
            probabilities.append(weights)
        ctx.save_for_backward(query, key, value, *probabilities)
        ctx.spans, ctx.scale = spans, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_out,) = grads
        query, key, value, *probabilities = ctx.saved_tensors
        num_kv, (_, num_q, _, size) = key.shape[1], query.shape
        grad_q, grad_k, grad_v = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for (start, end), weights in zip(ctx.spans, probabilities, strict=True):
            length = end - start
            grad = grad_out[0, start:end].transpose(0, 1).reshape(num_kv, -1, size)
            grad_v[0, :, start:end] = torch.bmm(weights.transpose(1, 2), grad)
            grad_w = torch.bmm(grad, value[0, :, start:end].transpose(1, 2))
            grad_s = torch.ops.aten._softmax_backward_data(grad_w, weights, -1, weights.dtype).mul_(ctx.scale)
            grad_q[0, :, start:end] = torch.bmm(grad_s, key[0, :, start:end]).view(num_q, length, size)
            q = query[0, :, start:end].reshape(num_kv, -1, size)
            grad_k[0, :, start:end] = torch.bmm(grad_s.transpose(1, 2), q)
        return grad_q, grad_k, grad_v, None, None


def _causal_masks(spans: Spans, dtype: torch.dtype, device: torch.device) -> dict[int, torch.Tensor]:
    """Additive N x N mask for each length in `spans`: views of one matrix."""
    lengths = {end - start for start, end in spans}
    widest = max(lengths)
    full = torch.full((widest, widest), float("-inf"), dtype=dtype, device=device).triu_(1)
    return {length: full[:length, :length] for length in lengths}
