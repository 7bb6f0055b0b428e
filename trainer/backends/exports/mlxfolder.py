"""Base and adapter in one folder for mlx-lm: its own names and layout, loaded again by mlx-lm itself."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model, save_config, save_model

from core.errors import ChildError
from core.exits import ChildExit
from trainer.backends.exports.answers import Logits_BTV, compared
from trainer.backends.exports.merged import merge, save
from trainer.export import put_tokenizer

if TYPE_CHECKING:
    from trainer.export import Export

FROM = ".huggingface"  # the merged model that mlx-lm reads; gone before the folder is renamed in


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The folder, and how it answers when mlx-lm loads it again. Raises ChildError FORM_UNFIT for a family that mlx-lm has not."""
    model, answers = merge(made)
    made.tell(f"writing {made.dtype}")
    source = aside / FROM
    save(model, made, source)
    del model
    try:
        converted, config = load_model(source)
    except (ValueError, KeyError) as error:
        raise ChildError(
            f"mlx-lm does not load {made.sealed.name!r}: {error}", hint="use --form merged", code="FORM_UNFIT", exit_code=ChildExit.BAD_SPEC
        ) from None
    save_model(aside, converted)
    save_config(config, aside / "config.json")
    shutil.copyfile(source / "generation_config.json", aside / "generation_config.json")
    del converted
    shutil.rmtree(source)
    put_tokenizer(made.base, aside)
    made.tell("loading it again")
    again, _ = load_model(aside)
    again.set_dtype(mx.float32)

    def read(rows: Any) -> Logits_BTV:
        return np.array(again(mx.array(rows)).astype(mx.float32))

    return {"check": compared(answers, read, made.dtype, "MLX folder")}
