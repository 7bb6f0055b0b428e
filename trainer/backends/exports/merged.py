"""Base and adapter in one Hugging Face folder. The sum is computed in fp32 and rounded once, to the format it is stored in."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

from core.errors import ChildError
from core.exits import ChildExit
from core.forms import LARGEST_F16
from rendering.tokens import Renderer
from trainer.backends.exports.answers import Answer, compared, reader_of, reference_answers
from trainer.backends.model import Place, load_base, read_adapter
from trainer.settling import flat_rope

if TYPE_CHECKING:
    from trainer.export import Export

CONFIG = "config.json"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def merge(made: "Export") -> tuple[Any, list[Answer]]:
    """(base and adapter as one model in fp32 on the CPU, what they answered while they were two).

    Raises ChildError for an adapter that does not fit the base, or weights that are no numbers.
    """
    made.tell("loading base and adapter in fp32")
    wrapped = read_adapter(load_base(made.base, Place(device="cpu", dtype=torch.float32)), made.adapter)
    made.tell("asking base and adapter ten prompts")
    answers = reference_answers(wrapped, Renderer.load(made.base))
    made.tell("adding the adapter to the weights")
    try:
        model = wrapped.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's own word for weights that are not finite
        raise _unfit(str(error)) from None
    return model.eval(), answers


def require_f16(model: Any, dtype: str) -> None:
    """Raises ChildError F16_OVERFLOW where a weight is too large for f16."""
    for name, weight in model.named_parameters() if dtype == "f16" else ():
        if float(weight.abs().max()) > LARGEST_F16:
            raise _unfit(f"{name} holds a weight over {LARGEST_F16:.0f}, which f16 cannot hold: choose another number format")


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The folder, and how it answers when it is loaded again."""
    model, answers = merge(made)
    made.tell(f"writing {made.dtype}")
    save(model, made, aside)
    del model
    made.tell("loading it again")
    again = AutoModelForCausalLM.from_pretrained(aside, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return {"check": compared(answers, reader_of(again.eval()), made.dtype, "model")}


def save(model: Any, made: "Export", folder: Path) -> None:
    """Write model, tokenizer and template in Hugging Face's layout. The model is left in the format that it was written in."""
    from trainer.export import put_tokenizer

    require_f16(model, made.dtype)
    model = model.to(DTYPES[made.dtype])
    model.config.dtype = DTYPES[made.dtype]
    model.config._name_or_path = made.sealed.name
    model.save_pretrained(folder)
    config = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps(config | flat_rope(config), indent=2) + "\n", encoding="utf-8")
    put_tokenizer(made.base, folder)


def _unfit(what: str) -> ChildError:
    return ChildError(what, hint="look at the training: its losses, its learning rate", code="EXPORT_UNFIT", exit_code=ChildExit.BAD_SPEC)
