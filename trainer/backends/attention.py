"""Attention over a flat batch: rows lie one after another in one sequence and each attends only to itself.

Where rows begin alike, their common tokens lie once at the front: every row attends to them and to itself.

Axes: T all tokens of the batch, H query heads, K key/value heads, G = H / K, D head size; of one row: N own tokens,
M = prefix + N keys; of one tile: Q consecutive queries. B batch (always 1), where transformers hands over tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.nn.functional as F

FLAT = "lorad_flat"
LONGEST_KEPT = 512  # tokens; probabilities of a longer row are computed again in the backward pass instead of kept
TILE = 128  # queries that go through one product; what lies above the diagonal beyond a tile is never computed

Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # of queries T H D, of keys and values T K D


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows lie in T: (start, end) without gaps. With a prefix, the first span is that of the common tokens."""

    spans: Sequence[tuple[int, int]]
    prefix: int = 0


class Attention(Protocol):
    """Causal attention within each row, forward and backward by hand. What `forward` returns goes to `backward`."""

    def forward(self, heads: Heads, rows: Rows, scale: float, out_THD: torch.Tensor, *, keep: bool = True) -> Any:
        """Fills `out`. Without `keep` there will be no backward pass."""

    def backward(self, kept: Any, grad_THD: torch.Tensor, heads: Heads, out: Heads) -> None:
        """Fills `out` with the gradients of `heads`."""


def attention_for(device: torch.device) -> Attention:
    """The one place where attention is chosen: plain products on a CPU, the fused kernel with lengths on a GPU."""
    return Fused() if device.type == "cuda" else Plain()


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries start:end of T attend to the first `keys` keys of their row; the last `end - start` of these causally."""

    start: int
    end: int
    keys: int


class Plain:
    """Two products and a softmax per tile. On a CPU several times as fast as the fused kernel's backward; probabilities
    of rows up to LONGEST_KEPT are kept. All query heads of one key/value head go through one product."""

    def forward(self, heads: Heads, rows: Rows, scale: float, out_THD: torch.Tensor, *, keep: bool = True) -> Any:
        """Fills `out`; returns the kept probabilities, tile by tile, with `rows` and `scale`."""
        queries_THD, keys_TKD, values_TKD = heads
        num_kv = keys_TKD.shape[1]
        kept: list[torch.Tensor | None] = []
        above = _above(queries_THD)
        for span in rows.spans:
            keys_KMD, values_KMD = _with_prefix(keys_TKD, span, rows), _with_prefix(values_TKD, span, rows)
            for tile in _tiles(span, rows.prefix):
                weights = _weights(_grouped(queries_THD, tile, num_kv), keys_KMD, tile, scale, above)
                mixed = torch.bmm(weights, values_KMD[:, : tile.keys])  # K, G Q, D
                _put(mixed, out_THD[tile.start : tile.end])
                kept.append(weights if keep and span[1] - span[0] <= LONGEST_KEPT else None)
        return kept, rows, scale

    def backward(self, kept: Any, grad_THD: torch.Tensor, heads: Heads, out: Heads) -> None:
        """Fills `out`. Gradients of the common tokens add up over rows in fp32."""
        probabilities, rows, scale = kept
        queries_THD, keys_TKD, values_TKD = heads
        num_kv, size = keys_TKD.shape[1:]
        common = keys_TKD.new_zeros(2, num_kv, rows.prefix, size, dtype=torch.float32)  # gradients of the prefix's keys and values
        above, number = _above(queries_THD), 0
        for span in rows.spans:
            keys_KMD, values_KMD = _with_prefix(keys_TKD, span, rows), _with_prefix(values_TKD, span, rows)
            grad_keys, grad_values = torch.zeros_like(keys_KMD), torch.zeros_like(values_KMD)
            for tile in _tiles(span, rows.prefix):
                queries, weights = _grouped(queries_THD, tile, num_kv), probabilities[number]
                weights = _weights(queries, keys_KMD, tile, scale, above) if weights is None else weights
                probabilities[number] = None
                grad = _grouped(grad_THD, tile, num_kv)
                grad_values[:, : tile.keys].baddbmm_(weights.transpose(1, 2), grad)
                slope = torch.bmm(grad, values_KMD[:, : tile.keys].transpose(1, 2))
                slope = torch.ops.aten._softmax_backward_data(slope, weights, -1, weights.dtype).mul_(scale)
                _put(torch.bmm(slope, keys_KMD[:, : tile.keys]), out[0][tile.start : tile.end])
                grad_keys[:, : tile.keys].baddbmm_(slope.transpose(1, 2), queries)
                number += 1
            own = slice(span[0], span[1])
            shared = grad_keys.shape[1] - (span[1] - span[0])
            out[1][own], out[2][own] = grad_keys[:, shared:].transpose(0, 1), grad_values[:, shared:].transpose(0, 1)
            if shared:
                common[0].add_(grad_keys[:, :shared])
                common[1].add_(grad_values[:, :shared])
        if rows.prefix:
            out[1][: rows.prefix] += common[0].transpose(0, 1)
            out[2][: rows.prefix] += common[1].transpose(0, 1)


def _tiles(span: tuple[int, int], prefix: int) -> Iterator[_Tile]:
    start, end = span
    before = prefix if start else 0  # the common tokens themselves have nothing before them
    for first in range(start, end, TILE):
        last = min(first + TILE, end)
        yield _Tile(first, last, before + last - start)


def _with_prefix(heads_TKD: torch.Tensor, span: tuple[int, int], rows: Rows) -> torch.Tensor:
    """Keys or values that a row sees, K M D."""
    own = heads_TKD[span[0] : span[1]]
    seen = torch.cat([heads_TKD[: rows.prefix], own]) if rows.prefix and span[0] else own
    return seen.transpose(0, 1).contiguous()


def _grouped(heads_THD: torch.Tensor, tile: _Tile, num_kv: int) -> torch.Tensor:
    """The tile's heads by their key/value head: K, G Q, D."""
    size = heads_THD.shape[-1]
    return heads_THD[tile.start : tile.end].unflatten(1, (num_kv, -1)).permute(1, 2, 0, 3).reshape(num_kv, -1, size)


def _put(grouped: torch.Tensor, out_QHD: torch.Tensor) -> None:
    """The inverse of `_grouped`."""
    num_kv, _, size = grouped.shape
    out_QHD.unflatten(1, (num_kv, -1)).copy_(grouped.view(num_kv, -1, len(out_QHD), size).permute(2, 0, 1, 3))


def _weights(queries: torch.Tensor, keys_KMD: torch.Tensor, tile: _Tile, scale: float, above: torch.Tensor) -> torch.Tensor:
    """Probabilities K, G Q, keys."""
    num_kv, num_rows, _ = queries.shape
    width = tile.end - tile.start
    weights = queries.new_empty(num_kv, num_rows, tile.keys)
    torch.baddbmm(weights, queries, keys_KMD[:, : tile.keys].transpose(1, 2), beta=0, alpha=scale, out=weights)
    weights.view(num_kv, -1, width, tile.keys)[..., tile.keys - width :].add_(above[:width, :width])
    return torch.softmax(weights, -1)


def _above(like: torch.Tensor) -> torch.Tensor:
    """-inf above the diagonal."""
    return torch.full((TILE, TILE), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


class Fused:
    """The fused kernel over all rows at once, by their lengths; torch's own autograd goes backward. For a GPU.

    Where this torch or this GPU has no kernel that takes lengths, each row goes through scaled_dot_product_attention.
    """

    def forward(self, heads: Heads, rows: Rows, scale: float, out_THD: torch.Tensor, *, keep: bool = True) -> Any:
        """Fills `out`; returns the leaves and the result of a graph of their own."""
        with torch.set_grad_enabled(keep):
            leaves = tuple(head.detach().requires_grad_(keep) for head in heads)
            mixed_THD = _fused(leaves, rows, scale)  # type: ignore[arg-type]
        out_THD.copy_(mixed_THD.detach())
        return leaves, mixed_THD

    def backward(self, kept: Any, grad_THD: torch.Tensor, heads: Heads, out: Heads) -> None:
        """Fills `out`."""
        leaves, mixed_THD = kept
        for place, grad in zip(out, torch.autograd.grad(mixed_THD, leaves, grad_THD), strict=True):
            place.copy_(grad)


def _fused(heads: Heads, rows: Rows, scale: float) -> torch.Tensor:
    """T H D by whatever kernel is there. Queries are the last of their row's keys, which is what both take causal to mean."""
    queries_THD, keys_TKD, values_TKD = heads
    device = queries_THD.device
    lengths = [end - start for start, end in rows.spans]
    seen = [length + (rows.prefix if start else 0) for length, (start, _) in zip(lengths, rows.spans, strict=True)]
    if rows.prefix:
        places = [place for start, end in rows.spans for place in (*range(rows.prefix if start else 0), *range(start, end))]
        index = torch.tensor(places, device=device)
        keys_TKD, values_TKD = keys_TKD[index], values_TKD[index]
    if (kernel := _varlen_kernel(queries_THD.dtype)) is not None:
        ends = [torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=device) for counts in (lengths, seen)]
        shared = {"scale": scale, "window_size": (-1, 0), "enable_gqa": keys_TKD.shape[1] != queries_THD.shape[1]}
        mixed: torch.Tensor = kernel(queries_THD, keys_TKD, values_TKD, *ends, max(lengths), max(seen), **shared)
        return mixed
    parts = zip(queries_THD.split(lengths), keys_TKD.split(seen), values_TKD.split(seen), strict=True)
    return torch.cat([_one_row(*part, scale) for part in parts])


def _one_row(queries_NHD: torch.Tensor, keys_MKD: torch.Tensor, values_MKD: torch.Tensor, scale: float) -> torch.Tensor:
    own, seen = len(queries_NHD), len(keys_MKD)
    mask = None if own == seen else torch.ones(own, seen, dtype=torch.bool, device=queries_NHD.device).tril(seen - own)
    queries, keys, values = (part.transpose(0, 1)[None] for part in (queries_NHD, keys_MKD, values_MKD))
    shared = keys_MKD.shape[1] != queries_NHD.shape[1]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shared)[0].transpose(0, 1)


def _varlen_kernel(dtype: torch.dtype) -> Callable[..., Any] | None:
    """torch's attention over rows of several lengths: flash attention, half precision only."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability() >= (8, 0) else None


class _Attended(torch.autograd.Function):
    """`Attention` for a model that runs under autograd."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Rows, scale: float) -> torch.Tensor:
        heads = (query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1))
        out_THD = torch.empty_like(heads[0], memory_format=torch.contiguous_format)
        ctx.attention = attention_for(query.device)
        ctx.kept = ctx.attention.forward(heads, rows, scale, out_THD, keep=any(ctx.needs_input_grad))
        ctx.save_for_backward(query, key, value)
        return out_THD[None]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        heads = tuple(head[0].transpose(0, 1) for head in ctx.saved_tensors)
        out = tuple(torch.empty_like(head) for head in heads)
        ctx.attention.backward(ctx.kept, grads[0][0], heads, out)
        return (*(grad.transpose(0, 1)[None] for grad in out), None, None)


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
    spans: Sequence[tuple[int, int]],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each span, as B T H D. Signature and result are what transformers expects, which hands `spans` through."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _Attended.apply(query, key, value, Rows(spans), scale), None
