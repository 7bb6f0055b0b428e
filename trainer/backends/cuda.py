"""What is chosen for a GPU beyond what a CPU gets: number format, 8-bit optimizer, recomputed activations, kernels.

Not run on a GPU yet (docs/howto/gpu.md says what was checked without one). Attention by the lengths of rows is chosen in
`trainer.backends.attention`, compiling in `trainer.backends.elements`; both paths have them on a CPU too.
"""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from core.config import Config
from core.devices import pass_bytes
from core.errors import ChildError
from core.estimate import shape_of
from core.exits import ChildExit

log = logging.getLogger(__name__)

SPARE = 1.25  # of the estimate of one row's pass: what it may be wrong by


def gpu_dtype() -> torch.dtype:
    """bf16 where the GPU multiplies it itself (Ampere and later), else fp32: fp16 would need its loss scaled."""
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def wants_8bit(config: Config, device: torch.device) -> bool:
    """Whether the moments of AdamW are kept in 8 bits, by training.optimizer; `auto`: on a GPU where bitsandbytes is installed.

    Raises ChildError BAD_SPEC where that was asked for and bitsandbytes is missing.
    """
    asked, installed = config.training.optimizer, find_spec("bitsandbytes") is not None
    if asked == "adamw_8bit" and not installed:
        raise ChildError(
            "training.optimizer 'adamw_8bit' needs the package 'bitsandbytes', which is not installed",
            hint="pip install bitsandbytes, or set training.optimizer to adamw",
            code="OPTIMIZER_NOT_INSTALLED",
            exit_code=ChildExit.BAD_SPEC,
        )
    return asked == "adamw_8bit" or (asked == "auto" and installed and device.type == "cuda")


def wants_checkpoints(config: Config, model: Any, free_bytes: int | None = None) -> bool:
    """Whether activations are computed a second time instead of kept, by training.gradient_checkpointing.

    `auto`: where the longest row alone does not fit by estimate; short of that a smaller micro-batch costs less. Only a
    GPU's memory is looked at: a CPU's can swap, and its micro-batches follow memory while it trains.
    """
    asked = config.training.gradient_checkpointing
    if asked != "auto":
        return asked == "on"
    if free_bytes is None and model.device.type != "cuda":
        return False
    free = torch.cuda.mem_get_info(model.device)[0] if free_bytes is None else free_bytes
    shape = shape_of(model.config.to_dict(), 0)
    need = 0 if shape is None else int(SPARE * pass_bytes(shape, config.max_length))
    if need <= free:
        return False
    log.info("activations are computed twice: a row of %d tokens takes about %d MiB of %d that are free", config.max_length, need >> 20, free >> 20)
    return True


def use_liger(model: Any) -> bool:
    """Put Liger's fused norms and gates into a model (without PEFT's wrapper) on a GPU, where they are installed and know the family.

    For the paths that go through the model's own layers; the head is ours, and rope stays: Liger would change that for every model.
    """
    if model.device.type != "cuda" or find_spec("liger_kernel") is None:
        return False
    liger = import_module("liger_kernel.transformers.monkey_patch")  # by name: it is not there for the type checker
    if model.config.model_type not in liger.MODEL_TYPE_TO_APPLY_LIGER_FN:
        return False
    liger._apply_liger_kernel_to_instance(model=model, rope=False, cross_entropy=False, fused_linear_cross_entropy=False)
    log.info("norms and gates of %s by Liger", model.config.model_type)
    return True
