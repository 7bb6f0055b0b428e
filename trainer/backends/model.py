"""The base model and its adapter: loading, attaching, writing."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from store.bases import read_base, weights_folder
from store.engines import cpu_has_bf16
from trainer.backends import attention

log = logging.getLogger(__name__)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

# Families whose logits are lm_head(hidden) and whose attention needs nothing but who sees whom.
FLAT_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
FLAT_ROPES = frozenset({"default", "linear", "llama3", "yarn"})  # the others look at the longest position of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where tensors live and in which precision the base computes."""

    device: str
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """The number format as score files name it, such as `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")


def choose_place() -> Place:
    """A GPU with bf16 if there is one; else the CPU, in bf16 where it has instructions for it."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        return Place(device="cuda", dtype=torch.bfloat16)
    return Place(device="cpu", dtype=torch.bfloat16 if cpu_has_bf16() else torch.float32)


def device_name(device: torch.device) -> str:
    """cpu, or the name of the GPU as its driver says it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_memory_mb(device: torch.device) -> int:
    """Most memory of the GPU that torch has taken, in MiB; 0 on the CPU."""
    return torch.cuda.max_memory_reserved(device) >> 20 if device.type == "cuda" else 0


def use_threads(config: Config) -> None:
    """Limit this process's compute threads as the config says."""
    if config.training.threads:
        torch.set_num_threads(config.training.threads)


def is_flat_exact(config: Any) -> bool:
    """Whether rows of this model may lie in one flat sequence with the same result as each by itself."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FLAT_FAMILIES
        and set(layers) == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "attention_dropout", 0)
        and rope.get("rope_type", "default") in FLAT_ROPES
    )


def load_base(folder: Path, place: Place) -> Any:
    """The sealed base as a frozen transformers model. Raises ChildError BAD_SPEC where it is no causal language model."""
    weights = weights_folder(folder)
    try:
        config = AutoConfig.from_pretrained(weights, local_files_only=True)
        flat = is_flat_exact(config)
        attention.register()
        kind = {"attn_implementation": attention.FLAT} if flat else {}
        model = AutoModelForCausalLM.from_pretrained(weights, local_files_only=True, use_safetensors=True, dtype=place.dtype, **kind)
    except (OSError, ValueError, KeyError) as error:
        raise ChildError(
            f"the base in {str(weights)!r} does not load: {error}",
            hint="name a Hugging Face folder of a causal language model with model_path",
            code="BASE_UNREADABLE",
            exit_code=ChildExit.BAD_SPEC,
        ) from error
    log.info("base %s: %s, %s, %s rows", read_base(folder).name, config.model_type, place.dtype_name, "flat" if flat else "padded")
    model.requires_grad_(False)
    return model.eval().to(place.device)


def new_adapter(base: Any, config: Config) -> PeftModel:
    """A fresh adapter on `base`, its weights in fp32 and drawn from the seed. Raises ChildError BAD_SPEC."""
    targets = config.lora.targets
    names = targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]
    shape = LoraConfig(
        r=config.lora.r, lora_alpha=config.lora.alpha, lora_dropout=config.lora.dropout, target_modules=names, task_type="CAUSAL_LM", bias="none"
    )
    torch.manual_seed(config.training.seed)
    try:
        return get_peft_model(base, shape)
    except ValueError as error:
        raise ChildError(
            f"lora.targets = {targets!r} does not fit this base: {error}",
            hint='use "all-linear", or names of its linear layers such as "q_proj,v_proj"',
            code="LORA_TARGETS",
            exit_code=ChildExit.BAD_SPEC,
        ) from None


def read_adapter(base: Any, folder: Path) -> PeftModel:
    """The adapter of a folder in PEFT layout on `base`, frozen. Raises ChildError BAD_SPEC."""
    try:
        shape = PeftConfig.from_pretrained(str(folder))
        shape.inference_mode = True
        # Not with low_cpu_mem_usage: it leaves the adapter in the base's bf16, and its small weights lose their last bits.
        model = get_peft_model(base, shape)
        put_adapter_weights(model, folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ChildError(
            f"the adapter in {str(folder)!r} does not load on this base: {error}",
            hint="it was made for another base, or its files are damaged",
            code="ADAPTER_UNREADABLE",
            exit_code=ChildExit.BAD_SPEC,
        ) from error
    return model.eval()


def put_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Replace the adapter's weights by those in `folder`. Raises ValueError where names do not match."""
    weights = load_file(folder / ADAPTER_WEIGHTS)
    loaded = set_peft_model_state_dict(model, weights)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    strange = [*loaded.unexpected_keys, *missing]
    if strange:
        raise ValueError(f"{len(missing)} weights are missing and {len(loaded.unexpected_keys)} are unknown, the first is {strange[0]!r}")


def write_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write the adapter in PEFT layout; its config names the base by name, never by a path of this machine."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_WEIGHTS).chmod(0o644)
    shape = model.peft_config["default"]
    names, mode, targets = shape.base_model_name_or_path, shape.inference_mode, shape.target_modules
    try:
        shape.base_model_name_or_path, shape.inference_mode = base_name, True
        shape.target_modules = targets if isinstance(targets, str) else sorted(targets)  # a set has another order in each process
        shape.save_pretrained(str(folder))
    finally:
        shape.base_model_name_or_path, shape.inference_mode, shape.target_modules = names, mode, targets
