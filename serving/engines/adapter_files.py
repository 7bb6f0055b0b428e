"""Reads the adapter of a verified release folder and refuses what this engine would ignore, half load or choke on."""

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from core.errors import LoradError
from serving.engines.port import AdapterError
from store.encryption import read_weights

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
REPACK = "train and pack it with lorad's own settings"

# Settings that change the forward pass in a way that per-request selection does not carry (PEFT refuses DoRA there),
# or that bring weights outside of the LoRA layers, which would change the base for everybody.
UNSERVED = (
    "alora_invocation_tokens",
    "arrow_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)


def read_adapter(folder: Path, key_file: str = "") -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Config and weights of an adapter; the weights in fp32, copied (and decrypted) into memory. Raises AdapterError.

    Weights are read, not mapped: nothing that happens to the file later can reach a running model.
    """
    config = _read_config(folder)
    try:
        tensors = load_safetensors(read_weights(folder, key_file))
    except LoradError as error:
        raise AdapterError(error.what, hint=error.hint, code=error.code) from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(f"{folder / WEIGHTS}: {error}", hint=REPACK, code="ADAPTER_LOAD") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{folder / WEIGHTS}: {name!r} holds NaN or infinity", hint="its training diverged: lower the learning rate", code="ADAPTER_NAN")
    return config, {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _read_config(folder: Path) -> LoraConfig:
    try:
        kind = json.loads((folder / CONFIG).read_bytes()).get("peft_type")
        if kind != "LORA":
            raise AdapterError(f"{folder} holds a {kind!r} adapter, not LoRA", hint=REPACK, code="ADAPTER_UNSERVED")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys of a newer PEFT are left out; the probe tells whether that matters
            config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(f"{folder / CONFIG}: {error}", hint=REPACK, code="ADAPTER_LOAD") from None
    used = [name for name in UNSERVED if getattr(config, name, None)]
    if config.bias != "none":
        used.append("bias")
    if used:
        raise AdapterError(f"{folder} uses {', '.join(used)}, which cannot be served per request", hint=REPACK, code="ADAPTER_UNSERVED")
    # The weights come from the file; some inits (PiSSA, OLoRA) would rewrite the base under everybody's feet.
    config.init_lora_weights = True
    config.inference_mode = True
    return config
