"""Which path a model takes, and why: the one place that knows model families.

Four paths with the same losses up to rounding, the fastest that is exact for the model is taken:

- fast: the hot loop of llama-shaped families (`trainer.backends.flat`);
- flat: rows one after another through transformers' own layers, where these need nothing but who sees whom;
- padded: rows under one another through the model's own forward, for every other causal model, and where the config
  says training.packing = false;
- single: one row at a time, where a model looks at its batch as a whole.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch

from core.config import Config
from trainer.backends import attention, deltanet
from trainer.backends.batches import FlatForward, Forward
from trainer.backends.cuda import use_liger, wants_checkpoints
from trainer.backends.flat import fast_doubt, fast_path_of
from trainer.backends.plain import PaddedForward
from trainer.backends.world import is_split

log = logging.getLogger(__name__)

# Families whose logits are lm_head(hidden) and whose attention needs nothing but who sees whom.
FLAT_FAMILIES = frozenset(
    {
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo2", "olmo3", "smollm3", "gpt_neox", "gemma3_text"),
        *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"),  # an expert sees one token at a time
        *deltanet.MODELS,
    }
)
FLAT_ROPES = frozenset({"default", "linear", "llama3", "yarn"})
BATCH_ROPES = frozenset({"dynamic", "longrope"})  # they scale by the longest position of a batch, once it is over the original limit
OWN_ATTENTION = "sdpa"


@dataclass(frozen=True, slots=True)
class Path:
    """The path of a model, and the reason in one line, for the run's record."""

    kind: Literal["fast", "flat", "padded", "single"]
    why: str


def path_of(model: Any, config: Config | None = None) -> Path:
    """The path of a transformers model, without its adapter. Without a config: packing is on, rows may be of any length."""
    shape = model.config
    if (rope := _batch_rope(shape, config)) is not None:
        return Path("single", f"one row at a time: the {rope} rope of {shape.model_type} scales by the longest row of a batch")
    if config is not None and not config.training.packing:
        return Path("padded", "padded: training.packing is false")
    slow = "no config was given" if config is None else "the base is split over processes" if is_split(model) else fast_doubt(model, config)
    if slow is None:
        return Path("fast", f"fast: {shape.model_type} has the shape of the hot loop")
    if (doubt := _flat_doubt(model, config)) is not None:
        return Path("padded", f"padded: {doubt}")
    return Path("flat", f"flat: in {shape.model_type} rows need nothing but who sees whom (not fast: {slow})")


def forward_for(model: Any, config: Config | None = None, work_tokens: int = 0) -> Forward:
    """The path of a model, with or without an adapter, as its forward pass; the model's attention is set to match.

    `work_tokens` is what a training will go through in all, by which compiling pays or not.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    path = path_of(inner, config)
    log.info("path: %s", path.why)
    if config is not None and wants_checkpoints(config, inner):
        config = config.model_copy(update={"training": config.training.model_copy(update={"gradient_checkpointing": "on"})})
        if path.kind != "fast":  # which does it itself
            inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if path.kind != "fast":
        use_liger(inner)
    _set_attention(inner, attention.FLAT if path.kind == "flat" else OWN_ATTENTION)
    if path.kind == "fast" and config is not None and (fast := fast_path_of(model, config, work_tokens)) is not None:
        return fast
    if path.kind == "flat":
        return FlatForward(inner)
    return PaddedForward(inner, one_row=path.kind == "single")


def _set_attention(model: Any, name: str) -> None:
    # An eager or other attention of the padded paths is the model's own choice (GPT-OSS with sinks, Gemma 2 with caps): only ours is put on or off.
    attention.register()
    current = model.config._attn_implementation  # transformers has no public reader
    if (name == attention.FLAT) != (current == attention.FLAT):
        model.set_attn_implementation(name)


def _flat_doubt(model: Any, config: Config | None) -> str | None:
    """Why rows of this model may not lie in one flat sequence; None where each gets the same result as by itself."""
    shape, head = model.config, model.get_output_embeddings()
    layers = getattr(shape, "layer_types", None) or ["full_attention"]
    if shape.model_type not in FLAT_FAMILIES:
        return f"{shape.model_type} is not of the families known to be exact in a flat batch"
    known = {"full_attention", "sliding_attention"} | ({"linear_attention"} if deltanet.know_spans(shape.model_type) else set())
    if strange := set(layers) - known:
        return f"it has layers of the kind {min(strange)}"
    if (window := _window(shape)) and (config is None or config.max_length > window):
        return f"its attention sees {window} tokens back and rows may be longer (max_length)"
    if getattr(shape, "attention_dropout", 0):
        return "its attention has dropout"
    if strange := {rope.get("rope_type", "default") for rope in _ropes(shape)} - FLAT_ROPES:
        return f"its rope is of the type {min(strange)!r}"
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return "its output embedding is trained, quantised or has a bias"
    return None


def _batch_rope(shape: Any, config: Config | None) -> str | None:
    """The rope type that makes rows of one batch depend on one another; None where rows are too short for that, or it is none of these."""
    for rope in _ropes(shape):
        kind = rope.get("rope_type", "default")
        limit = rope.get("original_max_position_embeddings") or shape.max_position_embeddings
        if kind in BATCH_ROPES and (config is None or config.max_length > limit):
            return str(kind)
    return None


def _ropes(shape: Any) -> list[dict[str, Any]]:
    """The rope settings of a model: one set, or one for each kind of layer."""
    ropes = getattr(shape, "rope_parameters", None) or {}
    by_layer = [value for value in ropes.values() if isinstance(value, dict)]
    return by_layer or [ropes]


def _window(shape: Any) -> int:
    """How far back the narrowest layer sees, in tokens; 0: no layer has a window. A row that fits in it is attended to whole."""
    layers = getattr(shape, "layer_types", None)
    if layers is not None and "sliding_attention" not in layers:
        return 0
    return getattr(shape, "sliding_window", None) or 0
