"""The forms in which an adapter leaves lorad: what each is for, what it needs, and how large it becomes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from core.errors import UsageError

BITS: Mapping[str, float] = MappingProxyType({"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5})
"""Bits that one weight takes. q8_0: blocks of 32 weights of 8 bits with one scale of 16 bits."""
LARGEST_F16 = 65504.0  # the largest finite number of IEEE 754 binary16
PACKAGE = "package"  # several editions in one folder; made by store.packages, without a trainer child
SIDE_BYTES = 16 << 20  # tokenizer, template, graph and notes beside the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form. `dtypes` are the number formats that it can be written in, the default first."""

    name: str
    says: str  # in a few words, for the help text
    dtypes: tuple[str, ...]
    packages: tuple[str, ...] = ()  # what must be installed, beside what a training needs
    is_merged: bool = True  # whether base and adapter become one model
    copies: float = 1.0  # how often all its bytes lie on the disk while it is made


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        form.name: form
        for form in (
            Form(name="peft", says="adapter folder as PEFT, transformers and vLLM load it", dtypes=("f32",), is_merged=False),
            Form(name="merged", says="base and adapter in one Hugging Face folder", dtypes=("bf16", "f16", "f32")),
            Form(name="gguf", says="adapter for llama.cpp (--lora)", dtypes=("f32", "f16"), packages=("gguf",), is_merged=False),
            Form(name="merged-gguf", says="base and adapter in one file for llama.cpp", dtypes=("f16", "q8_0", "bf16", "f32"), packages=("gguf",)),
            Form(name="mlx", says="base and adapter in one folder for mlx-lm", dtypes=("bf16", "f16", "f32"), packages=("mlx", "mlx_lm"), copies=2.0),
            Form(name="onnx", says="base and adapter as an ONNX graph", dtypes=("f32",), packages=("onnx", "onnxruntime", "onnxscript")),
            Form(name="torch-export", says="base and adapter as a program of torch.export", dtypes=("f32",)),
            Form(name="torchscript", says="base and adapter as a traced TorchScript module", dtypes=("f32",)),
        )
    }
)


def form_of(name: str, dtype: str = "") -> tuple[Form, str]:
    """The form and the number format that it is written in. Raises UsageError for a form or format that there is not."""
    form = FORMS.get(name)
    if form is None:
        raise UsageError(f"there is no form {name!r}", hint=f"one of {', '.join((*FORMS, PACKAGE))}", code="FORM_UNKNOWN")
    if dtype and dtype not in form.dtypes:
        raise UsageError(f"{name} is not written in {dtype!r}", hint=f"one of {', '.join(form.dtypes)}", code="DTYPE_UNKNOWN")
    return form, dtype or form.dtypes[0]


def size_of(form: Form, dtype: str, *, num_weights: int, adapter_bytes: int) -> int:
    """Bytes of what is written: for a merged form by its weights and their format, else by the adapter. An estimate from above."""
    if not form.is_merged:
        return adapter_bytes + SIDE_BYTES
    return int(num_weights * BITS[dtype] / 8) + SIDE_BYTES


def unmergeable(described: Mapping[str, Any], tensors: tuple[str, ...]) -> str:
    """Why a base (its Hugging Face config) and an adapter (its tensors' names) cannot become one model; empty: they can."""
    if (quantised := described.get("quantization_config")) is not None:
        method = quantised.get("quant_method", "?") if isinstance(quantised, Mapping) else "?"
        return f"the base is quantised ({method}): an adapter cannot be added to its weights without rounding them anew"
    if isinstance(described.get("text_config"), Mapping):
        return "the base also sees or hears, and only its text tower is loaded here: the other towers would be lost"
    on_tied = [name for name in tensors if ".lm_head." in name or ".embed_tokens." in name]
    if described.get("tie_word_embeddings") and on_tied:
        return f"the adapter changes {on_tied[0]!r}, whose weights this base shares between its input and its output"
    return ""
