"""Base and adapter as a program of torch.export (`model.pt2`), or as a traced TorchScript module (`model.ts`)."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import ChildError
from core.exits import ChildExit
from trainer.backends.exports.answers import compared
from trainer.backends.exports.graphs import axes, example, graph_of, reader
from trainer.export import put_tokenizer

if TYPE_CHECKING:
    from trainer.export import Export

FILES = {"torch-export": "model.pt2", "torchscript": "model.ts"}


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The program, and how it answers when torch loads it again."""
    file = aside / FILES[made.form.name]
    scripted = made.form.name == "torchscript"
    if scripted and not hasattr(torch.jit, "trace"):
        raise ChildError(
            f"torch {torch.__version__} has no TorchScript any more", hint="use --form torch-export", code="FORM_UNFIT", exit_code=ChildExit.BAD_SPEC
        )
    graph, answers = graph_of(made)
    made.tell("drawing the program")
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a trace says of every size that it met: the check below asks other sizes
        if scripted:
            torch.jit.save(torch.jit.trace(graph, (example(),), check_trace=False), str(file))
        else:
            torch.export.save(torch.export.export(graph, (example(),), dynamic_shapes=axes(made)), file)
        put_tokenizer(made.base, aside)
        del graph
        made.tell("loading it again")
        run = torch.jit.load(str(file)) if scripted else torch.export.load(file).module()
    return {"check": compared(answers, reader(run), made.dtype, "program")}
