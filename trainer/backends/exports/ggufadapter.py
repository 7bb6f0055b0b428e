"""The adapter alone for llama.cpp: `adapter.gguf`, two tensors a layer, `<layer>.weight.lora_a` and `.lora_b`.

llama.cpp multiplies by alpha / rank with one alpha for all, and knows no other scale: where PEFT's is another (rsLoRA, ranks
or alphas of single layers), the difference is multiplied into B. An adapter that is more than A and B is refused.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from safetensors.numpy import load_file

from trainer.backends.exports.ggufshape import TYPES, Shape, finish, unfit

if TYPE_CHECKING:
    from trainer.export import Export

FILE = "adapter.gguf"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
NOT_PLAIN = ("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters", "fan_in_fan_out", "alora_invocation_tokens")


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The file, and whether its numbers are the adapter's when it is read again."""
    shape = Shape(made)
    config = json.loads((made.adapter / "adapter_config.json").read_bytes())
    layers = _layers(made, config)
    alpha = float(config["lora_alpha"])
    writer = gguf.GGUFWriter(aside / FILE, shape.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_name(made.sealed.name)
    written = {}
    for layer, (a_RI, b_OR) in layers.items():
        name = shape.tensor_name(f"{layer}.weight")
        factor = _scale(config, layer, len(a_RI)) * len(a_RI) / alpha
        written[f"{name}.lora_a"] = a_RI
        written[f"{name}.lora_b"] = shape.ordered(f"{layer}.weight", b_OR if factor == 1.0 else b_OR * np.float32(factor))
    for name, array in written.items():
        writer.add_tensor(name, quantize(array, TYPES[made.dtype][0]), raw_dtype=TYPES[made.dtype][0])
    made.tell(f"writing {FILE} in {made.dtype}")
    finish(writer)
    return {"check": _read_again(made, aside / FILE, written)}


def _layers(made: "Export", config: dict[str, Any]) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Layer -> (A, B) in fp32. Raises ChildError FORM_UNFIT for an adapter that is more than that."""
    more = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("bias") not in (None, "none"):
        more.append("bias")
    if more:
        raise unfit(made, f"the adapter uses {', '.join(more)}, which llama.cpp does not know")
    weights = _weights(made.adapter / "adapter_model.safetensors")
    strange = [name for name in weights if not name.endswith((A, B))]
    if strange:
        raise unfit(made, f"its tensor {strange[0]!r} is neither A nor B of a layer")
    names = [name.removesuffix(A) for name in weights if name.endswith(A)]
    return {name.removeprefix(PREFIX): (weights[name + A], weights[name + B]) for name in names}


def _weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Name -> tensor in fp32. Without torch, whose import takes longer than all the rest; bf16, which numpy does not know, needs it."""
    try:
        return {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except (TypeError, KeyError, AttributeError):
        from safetensors.torch import load_file as load_tensors

        return {name: tensor.float().numpy() for name, tensor in load_tensors(path).items()}


def _scale(config: dict[str, Any], layer: str, rank: int) -> float:
    """By what PEFT multiplies the adapter's output in this layer."""
    alpha = next((value for key, value in (config.get("alpha_pattern") or {}).items() if layer.endswith(key)), config["lora_alpha"])
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _read_again(made: "Export", path: Path, written: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """How the file's numbers compare with those of the adapter. Raises ChildError where a tensor is missing or another."""
    found = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    if found.keys() != written.keys():
        raise unfit(made, f"{len(written.keys() ^ found.keys())} tensors of the file are not those that were written")
    moved = max(float(np.max(np.abs(found[name] - array))) for name, array in written.items())
    most = max(float(np.max(np.abs(array))) for array in written.values())
    if not moved <= most / 1000:  # f16 keeps 11 bits
        raise unfit(made, f"a weight was moved by {moved:.3g}, which {made.dtype} cannot explain")
    return {"kind": "weights read again against the adapter's", "tensors": len(found), "moved_most": moved, "largest": most}
