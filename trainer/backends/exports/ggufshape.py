"""What llama.cpp calls the parts of a model, and how it wants them: for the families whose tensors it takes as they are.

The names are those of gguf's own TensorNameMap. In the llama family the rows of q and k are in another order: Hugging Face
keeps the two halves that rope turns against each other one after the other, llama.cpp pairs them (row 0 with row 1, …). So
of each head the rows (half, place) become (place, half). Qwen's rope in llama.cpp works on halves: its rows stay.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray

from core.errors import ChildError
from core.exits import ChildExit

if TYPE_CHECKING:
    from trainer.export import Export

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,  # the same tensors, and nothing else: llama.cpp knows no other name for it
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
QK = (".self_attn.q_proj.", ".self_attn.k_proj.")
SUFFIXES = (".weight", ".bias")
BLOCK = 32  # weights of a row that share one scale in q8_0
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


class Shape:
    """A base in llama.cpp's words. Raises ChildError FORM_UNFIT where it has none for it."""

    def __init__(self, made: "Export") -> None:
        self._config: Mapping[str, Any] = made.described
        kind = str(self._config.get("model_type"))
        if kind not in ARCHITECTURES:
            raise unfit(made, f"{kind!r} is not of the families whose tensors are known here: {', '.join(ARCHITECTURES)}")
        self.arch = ARCHITECTURES[kind]
        self.name = gguf.MODEL_ARCH_NAMES[self.arch]
        self.heads = int(self._config["num_attention_heads"])
        self.kv_heads = int(self._config.get("num_key_value_heads") or self.heads)
        self.head_dim = int(self._config.get("head_dim") or self._config["hidden_size"] // self.heads)
        rope = self._config.get("rope_parameters") or self._config.get("rope_scaling") or {}
        self.rope_theta = float(rope.get("rope_theta") or self._config.get("rope_theta") or 10_000.0)
        self._check(made, rope)
        self._names = gguf.get_tensor_name_map(self.arch, int(self._config["num_hidden_layers"]))
        self._made = made

    def _check(self, made: "Export", rope: Mapping[str, Any]) -> None:
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind != "default":
            raise unfit(made, f"its rope is of the type {kind!r}, which is not written here yet")
        if self._config.get("sliding_window") and self._config.get("use_sliding_window", True):
            raise unfit(made, "its attention has a window, which llama.cpp leaves out in this family")
        if self._config.get("hidden_act", "silu") != "silu":
            raise unfit(made, f"its layers use {self._config['hidden_act']!r} instead of silu")

    @property
    def is_told_in_part(self) -> bool:
        """Whether transformers' reader of GGUF needs the model's own config: it takes Qwen3's heads for 128 wide and layers for free of
        biases, whatever the file says. llama.cpp reads both from the file."""
        return self.arch == gguf.MODEL_ARCH.QWEN3 or bool(self._config.get("attention_bias") or self._config.get("mlp_bias"))

    def tensor_name(self, name: str) -> str:
        """llama.cpp's name for a tensor of a Hugging Face model. Raises ChildError FORM_UNFIT."""
        found: str | None = self._names.get_name(name, SUFFIXES)
        if found is None:
            raise unfit(self._made, f"llama.cpp has no name for its tensor {name!r}")
        return found

    def ordered(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor with its rows in llama.cpp's order; `name` is Hugging Face's."""
        if self.arch != gguf.MODEL_ARCH.LLAMA or not any(part in name for part in QK):
            return array
        heads = self.heads if QK[0] in name else self.kv_heads
        return np.ascontiguousarray(array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape))

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write the shape's keys."""
        config = self._config
        writer.add_block_count(int(config["num_hidden_layers"]))
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(int(config["hidden_size"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_rope_freq_base(self.rope_theta)
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_vocab_size(int(config["vocab_size"]))
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)


def stored(array: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], gguf.GGMLQuantizationType]:
    """A tensor in its format: vectors in fp32, matrices in `dtype`."""
    kind = TYPES[dtype][0] if array.ndim > 1 else gguf.GGMLQuantizationType.F32
    if kind == gguf.GGMLQuantizationType.Q8_0 and array.shape[-1] % BLOCK:
        kind = gguf.GGMLQuantizationType.F16
    return quantize(array, kind), kind


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all that the writer was given, and close its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def unfit(made: "Export", why: str) -> ChildError:
    """The error for a base or adapter that GGUF has no form for."""
    return ChildError(
        f"{made.form.name} cannot be made of {made.sealed.name!r}: {why}",
        hint="export it as merged, and convert that folder by llama.cpp's own script",
        code="FORM_UNFIT",
        exit_code=ChildExit.BAD_SPEC,
    )
