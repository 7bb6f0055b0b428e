"""A base and its adapter in MLX, and adapters as PEFT folders hold them.

MLX multiplies x A B with A (inputs, rank) and B (rank, outputs) and a scale; PEFT keeps A (rank, inputs) and B (outputs,
rank) and alpha, where scale = alpha / rank. So both are transposed on the way, and nothing is rounded.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_model

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from store.bases import weights_folder
from store.encryption import read_weights
from trainer.settling import described_model, flat_rope

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
SHAPE = "adapter_config.json"


def load_base(folder: Path) -> nn.Module:
    """The sealed base as a frozen MLX model. Raises ChildError BAD_SPEC where mlx-lm does not know its family."""
    try:
        model, _ = load_model(weights_folder(folder), model_config=flat_rope(described_model(str(folder))))
    except (OSError, ValueError, KeyError) as error:
        raise ChildError(
            f"the base in {str(folder)!r} does not load in MLX: {error}",
            hint='set "backend": "peft", which loads every causal model of transformers',
            code="BASE_UNREADABLE",
            exit_code=ChildExit.BAD_SPEC,
        ) from error
    model.freeze()
    return model.eval()


def attach(model: nn.Module, config: Config) -> list[str]:
    """Put a fresh adapter on `model`, drawn from the seed; the names of its layers. Raises ChildError LORA_TARGETS."""
    mx.random.seed(config.training.seed)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.QuantizedLinear) and "lm_head" not in name}
    wanted = None if config.lora.targets == "all-linear" else {name.strip() for name in config.lora.targets.split(",")}
    chosen = {name: module for name, module in sorted(linear.items()) if wanted is None or name.rsplit(".", 1)[-1] in wanted}
    if not chosen:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise ChildError(
            f"lora.targets = {config.lora.targets!r} matches no linear layer of this base",
            hint=f'use "all-linear", or some of: {known}',
            code="LORA_TARGETS",
            exit_code=ChildExit.BAD_SPEC,
        )
    lora = config.lora
    layers = [(name, LoRALinear.from_base(module, r=lora.r, dropout=lora.dropout, scale=scale_of(config))) for name, module in chosen.items()]
    model.update_modules(tree_unflatten(layers))
    return [name for name, _ in layers]


def scale_of(config: Config) -> float:
    """By what the adapter's output is multiplied: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
    lora = config.lora
    return float(lora.alpha / (lora.r**0.5 if lora.use_rslora else lora.r))


def adapter_weights(model: nn.Module) -> dict[str, mx.array]:
    """What is trained, by MLX's names."""
    return {name: array for name, array in tree_flatten(model.trainable_parameters()) if name.endswith((".lora_a", ".lora_b"))}


def as_peft(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Adapter weights by PEFT's names, transposed."""
    return {PREFIX + name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight"): mx.contiguous(array.T) for name, array in weights.items()}


def from_peft(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The way back."""
    return {
        name.removeprefix(PREFIX).replace(".lora_A.weight", ".lora_a").replace(".lora_B.weight", ".lora_b"): mx.contiguous(array.T)
        for name, array in weights.items()
    }


def write_adapter(model: nn.Module, layers: list[str], folder: Path, config: Config, base_name: str) -> None:
    """Write the adapter as a PEFT folder that transformers, vLLM and lorad's own engines load."""
    mx.save_safetensors(str(folder / WEIGHTS), as_peft(adapter_weights(model)), metadata={"format": "pt"})
    lora = config.lora
    shape: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.use_rslora,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layers}),
    }
    (folder / SHAPE).write_text(json.dumps(shape, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def put_adapter_weights(model: nn.Module, folder: Path, key_file: str = "") -> None:
    """Replace the adapter's weights by those of a PEFT folder, decrypted by the key in `key_file`. Raises ValueError where names or shapes do not match."""
    loaded: Any = mx.load(io.BytesIO(read_weights(folder, key_file)), format="safetensors")
    weights = from_peft(loaded)
    have = adapter_weights(model)
    if strange := sorted(set(weights) ^ set(have)):
        raise ValueError(f"{len(strange)} weights do not match, the first is {strange[0]!r}")
    if wrong := next((name for name in have if have[name].shape != weights[name].shape), ""):
        raise ValueError(f"{wrong!r} has the shape {weights[wrong].shape} instead of {have[wrong].shape}")
    model.load_weights(list(weights.items()), strict=False)
