"""The base model and its adapter: loading, attaching, writing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from store.bases import read_base, weights_folder
from store.encryption import is_encrypted, read_weights
from store.engines import cpu_has_bf16
from trainer.backends.cuda import gpu_dtype
from trainer.backends.targets import targets_of, unfit
from trainer.backends.towers import KEY_MAPPING, Tower, tower_of
from trainer.settling import Device

log = logging.getLogger(__name__)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


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
    """A GPU if there is one, else the CPU; in bf16 where it has instructions for it, else in fp32."""
    if torch.cuda.is_available():
        return Place(device="cuda", dtype=gpu_dtype())
    return Place(device="cpu", dtype=torch.bfloat16 if cpu_has_bf16() else torch.float32)


def device_here() -> Device:
    """The device that a training runs on, as values are settled by it."""
    place = choose_place()
    return Device(name=place.device, memory_bytes=torch.cuda.get_device_properties(0).total_memory if place.device == "cuda" else 0)


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


def load_base(folder: Path, place: Place, how: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The sealed base as a frozen transformers model, of a base that also sees its text tower. Raises ChildError BAD_SPEC.

    Args: how: more of what transformers' `from_pretrained` takes (`trainer.backends.methods`: a quantisation).
    """
    weights = weights_folder(folder)
    try:
        config = AutoConfig.from_pretrained(weights, local_files_only=True)
        model, wrong = _load(weights, config, place, how)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unreadable(weights, error) from error
    if wrong:
        raise _unreadable(weights, f"{len(wrong)} weights are missing or of another shape, such as {wrong[0]!r}")
    log.info("base %s: %s, %s", read_base(folder).name, config.model_type, place.dtype_name)
    model.requires_grad_(False)
    model = _kept_as_it_is(model.eval())
    return model if how else model.to(place.device)  # with a quantisation it was put there as it was read


def _load(weights: Path, config: Any, place: Place, more: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The model, and the names of those of its weights that no file holds as they must be (transformers draws them at random)."""
    tower = tower_of(config)
    if tower is None and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{config.model_type!r} is no causal language model that transformers knows")
    kind = AutoModelForCausalLM if tower is None else tower.kind
    how = {} if tower is None else {"config": tower.config, "key_mapping": KEY_MAPPING}
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, seen = kind.from_pretrained(weights, local_files_only=True, use_safetensors=True, dtype=place.dtype, **report, **how, **more)
    model.lorad_tower = tower  # write_adapter and put_adapter_weights name weights by it
    return model, sorted([*seen["missing_keys"], *(name for name, *_ in seen["mismatched_keys"])])


def _kept_as_it_is(model: Any) -> Any:
    """A model with 4-bit weights, made to stay the same in evaluations.

    On a CPU with AVX512-BF16 bitsandbytes (0.50) packs each weight anew in the first pass without gradients, with rounded
    scales: the steps after it would train on another base, and layers narrower than a block of 64 fail.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _unreadable(weights: Path, why: object) -> ChildError:
    hint = "name a Hugging Face folder of a causal language model with model_path"
    text = f"{type(why).__name__}: {why}" if isinstance(why, KeyError | AttributeError | TypeError) else _in_short(why)
    if isinstance(why, ImportError):
        hint = "the base needs a package that is not installed, often that of its quantisation: install it, or name the unquantised base with model_path"
    elif isinstance(why, SafetensorError) or "of another shape" in text or "header" in text.lower():
        hint = "a file of the base is damaged or from another model: copy or download the folder anew, then run `lorad models pull`"
    return ChildError(f"the base in {str(weights)!r} does not load: {text}", hint=hint, code="BASE_UNREADABLE", exit_code=ChildExit.BAD_SPEC)


def _in_short(why: object) -> str:
    """What torch and transformers say of many layers, one line each, by its first two lines."""
    lines = [line.strip() for line in str(why).splitlines() if line.strip()]
    return " ".join(lines[:2]) + (f" (and {len(lines) - 2} lines more)" if len(lines) > 2 else "")


def new_adapter(base: Any, config: Config) -> PeftModel:
    """A fresh adapter on `base`, its weights in fp32 and drawn from the seed. Raises ChildError BAD_SPEC."""
    asked = config.lora.targets
    names = targets_of(base, asked)
    lora = config.lora
    shape = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        bias="none",
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )
    torch.manual_seed(config.training.seed)
    try:
        return get_peft_model(base, shape)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise unfit(base, asked, error) from None


def read_adapter(base: Any, folder: Path, key_file: str = "") -> PeftModel:
    """The adapter of a folder in PEFT layout on `base`, frozen; `key_file` is deploy.encryption_key. Raises ChildError BAD_SPEC."""
    try:
        shape = PeftConfig.from_pretrained(str(folder))
        shape.inference_mode, shape.base_model_name_or_path = True, None  # PEFT warns of every base whose path is another
        if _tower(base) is not None:
            shape.exclude_modules = None  # it is for the whole model; here is nothing but the text tower
        # Not with low_cpu_mem_usage: it leaves the adapter in the base's bf16, and its small weights lose their last bits.
        model = get_peft_model(base, shape)
        put_adapter_weights(model, folder, key_file)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ChildError(
            f"the adapter in {str(folder)!r} does not load on this base: {_in_short(error)}",
            hint="it was made for another base, or its files are damaged",
            code="ADAPTER_UNREADABLE",
            exit_code=ChildExit.BAD_SPEC,
        ) from error
    return model.eval()


def put_adapter_weights(model: PeftModel, folder: Path, key_file: str = "") -> None:
    """Replace the adapter's weights by those in `folder`. Raises ValueError where names do not match, LoradError for encrypted ones without their key."""
    weights = load(read_weights(folder, key_file)) if is_encrypted(folder) else load_file(folder / ADAPTER_WEIGHTS)
    tower = _tower(model.get_base_model())
    weights = weights if tower is None else tower.named_as_tower(weights)
    loaded = set_peft_model_state_dict(model, weights)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    strange = [*loaded.unexpected_keys, *missing]
    if strange:
        raise ValueError(f"{len(missing)} weights are missing and {len(loaded.unexpected_keys)} are unknown, the first is {strange[0]!r}")


def write_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write the adapter in PEFT layout; its config names the base by name, never by a path of this machine."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    tower = _tower(model.get_base_model())
    weights = weights if tower is None else tower.named_as_whole(weights)
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (folder / ADAPTER_WEIGHTS).chmod(0o644)
    shape = model.peft_config["default"]
    before = {key: getattr(shape, key) for key in ("base_model_name_or_path", "inference_mode", "target_modules", "exclude_modules")}
    try:
        shape.base_model_name_or_path, shape.inference_mode = base_name, True
        targets = shape.target_modules
        shape.target_modules = targets if isinstance(targets, str) else sorted(targets)  # a set has another order in each process
        if tower is not None:
            shape.exclude_modules = tower.exclude
            shape.target_modules = [name.removeprefix(f"{tower.inner}.") for name in shape.target_modules]  # PEFT matches by the end of a name
        shape.save_pretrained(str(folder))
    finally:
        for key, value in before.items():
            setattr(shape, key, value)


def _tower(base: Any) -> Tower | None:
    """Which text tower `base` is; None where it is a whole model."""
    tower = getattr(base, "lorad_tower", None)
    return tower if isinstance(tower, Tower) else None
