"""How much disk a training is going to take, and the words for it. Pure."""

from collections.abc import Mapping
from typing import Any

MOMENTS = 2  # AdamW keeps two numbers for each weight
RESUME_POINTS = 3  # two are kept, and a new one is whole before the oldest goes
BYTES_OF_WEIGHT = 4  # adapters are trained and kept in float32
SMALL = 8 << 20  # logs, scores, samples, state


def adapter_bytes(shape: Mapping[str, Any], r: int) -> int:
    """Bytes of a LoRA adapter of rank `r` on all linear layers of a base with this Hugging Face config; 0 where the config does not say."""
    try:
        hidden, layers, inner = int(shape["hidden_size"]), int(shape["num_hidden_layers"]), int(shape["intermediate_size"])
        heads = int(shape["num_attention_heads"])
        kv_heads, head = int(shape.get("num_key_value_heads") or heads), int(shape.get("head_dim") or hidden // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0
    queries, keys = heads * head, kv_heads * head
    sides = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner)  # q, o; k, v; gate, up, down
    return layers * sides * r * BYTES_OF_WEIGHT


def training_needs(one_adapter: int, checkpoints: int) -> int:
    """Bytes that a training writes: its checkpoints, its resume points, and small files."""
    return checkpoints * one_adapter + RESUME_POINTS * (1 + MOMENTS) * one_adapter + SMALL


def waiting_words(needs_bytes: int, free_bytes: int, floor_bytes: int) -> str:
    """Why a training waits for room; empty where it fits above the floor."""
    above = max(0, free_bytes - floor_bytes)
    if needs_bytes <= above:
        return ""
    return f"needs {gigabytes(needs_bytes)}, {gigabytes(above)} free above the floor of {gigabytes(floor_bytes)} (retention.min_free_mb): waiting"


def gigabytes(num_bytes: int) -> str:
    """A size as people read it: 1.2 GB, 31 MB."""
    if num_bytes >= 10**9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 10**6 else f"{num_bytes / 1e3:.0f} kB"
