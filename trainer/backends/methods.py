"""What is trained of a base: an adapter beside it, an adapter beside its 4-bit form, or every weight; and how that is written and read.

`lora` and `qlora` leave the same kind of adapter, which loads on the unquantised base: that is how it is scored and
served. `full` leaves a whole model, which no server takes as a release: it is for `lorad train --out` alone.
"""

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from store.bases import TEMPLATE, TOKENIZER, weights_folder
from trainer.backends.model import ADAPTER_CONFIG, Place, load_base, new_adapter, put_adapter_weights, write_adapter
from trainer.settling import described_model

log = logging.getLogger(__name__)

TOKENIZER_FILES = (TOKENIZER, TEMPLATE, "tokenizer_config.json", "special_tokens_map.json")


def new_trainee(folder: Path, place: Place, config: Config) -> Any:
    """The model that a training starts with, by `config.method`; what is trained of it requires a gradient. Raises ChildError BAD_SPEC."""
    match config.method:
        case "qlora":
            return new_adapter(load_base(folder, place, _nf4(folder, place)), config)
        case "full":
            # In fp32: a step of AdamW is smaller than what bf16 can add to a weight.
            model = load_base(folder, Place(device=place.device, dtype=torch.float32))
            model.lorad_base = folder
            return model.requires_grad_(True)
    return new_adapter(load_base(folder, place), config)


def _nf4(folder: Path, place: Place) -> dict[str, Any]:
    """How transformers reads a base into 4 bits: nf4 with double quantisation, products in bf16. QLoRA, arXiv 2305.14314."""
    if find_spec("bitsandbytes") is None:
        raise ChildError(
            "method 'qlora' needs the package 'bitsandbytes', which is not installed",
            hint="pip install 'lorad[qlora]', or set method to lora",
            code="METHOD_NOT_INSTALLED",
            exit_code=ChildExit.BAD_SPEC,
        )
    described = described_model(str(folder)).get("quantization_config")
    if described is not None:
        method = described.get("quant_method", "?") if isinstance(described, dict) else "?"
        raise ChildError(
            f"method 'qlora' quantises the base itself, and that in {str(folder)!r} is quantised already ({method})",
            hint="name the unquantised base with model_path, or set method to lora",
            code="BASE_QUANTISED",
            exit_code=ChildExit.BAD_SPEC,
        )
    shape = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": shape, "device_map": {"": place.device}}


def write_trainee(model: Any, folder: Path, base_name: str) -> None:
    """Write what is trained: an adapter in PEFT layout, or a whole model that transformers loads, its tokenizer with it."""
    if isinstance(model, PeftModel):
        write_adapter(model, folder, base_name)
        return
    model.config._name_or_path = base_name
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        for source in (model.lorad_base, weights_folder(model.lorad_base)):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
                break
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone


def put_trained_weights(model: Any, folder: Path, key_file: str = "") -> None:
    """Replace what is trained by the weights in `folder`, as `write_trainee` wrote them. Raises ValueError where names do not match."""
    if isinstance(model, PeftModel):
        put_adapter_weights(model, folder, key_file)
        return
    weights = {name: tensor for path in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(path).items()}
    seen = model.load_state_dict(weights, strict=False)
    tied = set(model._tied_weights_keys or ())  # transformers writes one of two that share their numbers
    if strange := [*seen.unexpected_keys, *(name for name in seen.missing_keys if name not in tied)]:
        raise ValueError(f"{len(strange)} weights are missing or unknown, the first is {strange[0]!r}")


def put_start(model: Any, folder: Path, key_file: str = "") -> None:
    """Begin with the weights of an earlier training. Raises ChildError ADAPTER_UNFIT where they are of another base, shape or method."""
    try:
        put_trained_weights(model, folder, key_file)
        _require_same_scale(model, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        words = str(error).strip().splitlines()
        raise ChildError(
            f"the training cannot go on from {str(folder)!r}: {words[0] if words else type(error).__name__}",
            hint="go on from an adapter of this base, with the same layers and rank, or start from the base",
            code="ADAPTER_UNFIT",
            exit_code=ChildExit.BAD_SPEC,
        ) from None


def _require_same_scale(model: Any, folder: Path) -> None:
    """Raises ValueError where the adapter's own config scales it otherwise than `model` does: equal tensors would mean another adapter."""
    if not isinstance(model, PeftModel):
        return
    shape, told = model.peft_config["default"], json.loads((folder / ADAPTER_CONFIG).read_bytes())
    for key in ("r", "lora_alpha", "use_rslora", "use_dora"):
        if told.get(key, False) != getattr(shape, key):
            raise ValueError(f"it has {key} = {told.get(key, False)!r}, and the training {getattr(shape, key)!r}")
