"""Base and adapter as an ONNX graph: `model.onnx` and its weights beside it, by torch's own exporter, checked in onnxruntime."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import torch

from trainer.backends.exports.answers import compared
from trainer.backends.exports.graphs import INPUT, OUTPUT, axes, example, graph_of, reader
from trainer.export import put_tokenizer

if TYPE_CHECKING:
    from trainer.export import Export

FILE = "model.onnx"


def write(made: "Export", aside: Path) -> dict[str, Any]:
    """The graph, and how it answers in onnxruntime on the CPU."""
    graph, answers = graph_of(made)
    made.tell("drawing the graph (minutes for a large base)")
    with torch.inference_mode():
        program = torch.onnx.export(
            graph,
            (example(),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=axes(made),
            external_data=True,
            verbose=False,
        )
    assert program is not None
    made.tell(f"writing {FILE}")
    program.save(aside / FILE, external_data=True)
    put_tokenizer(made.base, aside)
    del program, graph
    made.tell("running it in onnxruntime")
    session = onnxruntime.InferenceSession(str(aside / FILE), providers=["CPUExecutionProvider"])
    check = compared(answers, reader(lambda ids: session.run([OUTPUT], {INPUT: ids.numpy()})[0]), made.dtype, "ONNX graph")
    return {"check": check, "inputs": {INPUT: "int64 (batch, tokens)"}, "outputs": {OUTPUT: "float32 (batch, tokens, vocabulary)"}}
