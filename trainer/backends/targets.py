"""Which layers of a base get an adapter, and what is said where that cannot be."""

import difflib
import logging
from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.pytorch_utils import Conv1D

from core.errors import ChildError
from core.exits import ChildExit

log = logging.getLogger(__name__)

ALL = "all-linear"


def targets_of(base: Any, asked: str) -> str | list[str]:
    """What PEFT gets as `target_modules` for lora.targets = `asked`. Raises ChildError LORA_TARGETS where a name fits no layer, or only fused experts.

    all-linear is every linear layer but the output embedding. In a mixture of experts that is attention, shared experts
    and the like: the experts themselves lie fused in one tensor, where PEFT can attach only what no serving engine reads.
    """
    fused = has_fused_experts(base)
    if asked == ALL:
        if not fused:
            return ALL
        names = [name for name in linear_names(base) if not _goes_to_experts(base, name)]
        log.info("all-linear: %s; the experts and their router keep the base's weights", ", ".join(names))
        return names
    names = [name.strip() for name in asked.split(",")]
    if inside := [name for name in names if fused and _goes_to_experts(base, name)]:
        raise unfit(base, asked, f"{_listed(inside)} are fused in the experts of this base or are their router, where an adapter cannot be served", inside)
    modules = [name for name, _ in base.named_modules()]
    if strange := [name for name in names if not any(module == name or module.endswith(f".{name}") for module in modules)]:
        raise unfit(base, asked, f"{_listed(strange)} match no layer of it", strange)
    return names


def unfit(base: Any, asked: str, why: object, names: Iterable[str] = ()) -> ChildError:
    """The error for targets that do not fit `base`: it names the nearest linear layers, and the quantisation if there is one."""
    known = linear_names(base)
    close = list(dict.fromkeys(found for name in names for found in difflib.get_close_matches(name, known, n=2, cutoff=0.5)))
    close += [name for name in known if name not in close]
    hint = f'use "{ALL}", or names of its linear layers, such as {",".join(close[:8])!r}' if known else "use a base whose linear layers are not quantised"
    quantised = getattr(base.config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else getattr(quantised, "quant_method", "?")
        why = f"{why}; the base is quantised ({getattr(method, 'value', method)})"
        hint = "name the unquantised base with model_path; method qlora quantises it while it trains"
    return ChildError(f"lora.targets = {asked!r} does not fit this base: {why}", hint=hint, code="LORA_TARGETS", exit_code=ChildExit.BAD_SPEC)


def linear_names(base: Any) -> list[str]:
    """Names (the last part) of the linear layers of a model, in order, each once, without the output embedding."""
    head = base.get_output_embeddings()
    layers = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear | Conv1D) and module is not head]
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in layers))


def has_fused_experts(base: Any) -> bool:
    """Whether weights of a mixture of experts lie together in tensors of three axes."""
    return any(".experts." in name and param.dim() == 3 for name, param in base.named_parameters())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _goes_to_experts(base: Any, name: str) -> bool:
    """Whether this target is one of the fused experts' tensors or their router, or PEFT would turn it into one."""
    if any(".experts." in param and param.endswith(f".{name}") for param, _ in base.named_parameters()):
        return True
    trial = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(trial, model=base, conversions=get_model_conversion_mapping(base))
    except ValueError:  # it wants the other half of a fused pair too
        return True
    return bool(trial.target_parameters)
