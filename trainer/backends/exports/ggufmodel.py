"""Base and adapter in one GGUF file for llama.cpp: `model.gguf`.

Matrices are written in the format asked for, norms and biases in fp32, as llama.cpp itself keeps them; a matrix whose rows
are no whole blocks of q8_0 is written in f16.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import torch
from transformers import AutoModelForCausalLM

from trainer.backends.exports import gguftokens
from trainer.backends.exports.answers import compared, reader_of
from trainer.backends.exports.ggufshape import TYPES, Shape, finish, stored
from trainer.backends.exports.merged import merge, require_f16

if TYPE_CHECKING:
    from trainer.export import Export

FILE = "model.gguf"


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The file, and how it answers when transformers reads it again."""
    shape = Shape(made)
    writer = gguf.GGUFWriter(aside / FILE, shape.name)
    tokenizer = _describe(writer, shape, made)  # first: what is refused is refused before the base is loaded
    model, answers = merge(made)
    require_f16(model, made.dtype)
    made.tell(f"writing {FILE} in {made.dtype}")
    tied = bool(made.described.get("tie_word_embeddings"))
    for name, weight in model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            array, kind = stored(shape.ordered(name, weight.float().numpy()), made.dtype)
            writer.add_tensor(shape.tensor_name(name), array, raw_dtype=kind)
    finish(writer)
    config = model.config if shape.is_told_in_part else None
    del model, writer
    made.tell("loading it again")
    again = AutoModelForCausalLM.from_pretrained(aside, gguf_file=FILE, config=config, local_files_only=True, dtype=torch.float32)
    return {"tokenizer": tokenizer, "check": compared(answers, reader_of(again.eval()), made.dtype, "GGUF file")}


def _describe(writer: gguf.GGUFWriter, shape: Shape, made: "Export") -> dict[str, Any]:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(made.sealed.name)
    if made.sealed.licence:
        writer.add_license(made.sealed.licence.lower())
    writer.add_file_type(int(TYPES[made.dtype][1]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    shape.describe(writer)
    return gguftokens.describe(writer, made)
