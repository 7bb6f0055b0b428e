"""The default engine of a CPU against transformers' `generate` with PEFT, on the real base with one adapter; and four mixed.

Both sides answer the same question with 64 greedy tokens and go on behind an end of turn. They take turns, each figure is the
median of its turns, and ratios are formed within a turn: a busy machine slows both sides of it. The engine has a process of its
own, as it has when it serves: beside torch's threads its own would be more than the cores, and OpenMP lets them sleep at once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.config import Config
from core.tasks import ExportTask
from rendering.specs import Message
from rendering.tokens import Renderer
from serving.engines.llamacpp import LlamaCppEngine, LlamaOptions
from serving.engines.port import Ask, Blend, Piece, Sampling, only
from store.bases import base_folder, gguf_of, weights_folder
from trainer.export import export
from trainer.run import RunFolder

QUESTION = "Explain in a few sentences how a bicycle stays upright."
TOKENS = 64
STREAMS = 8
TURNS = 3
ADAPTERS = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
PATIENCE_S = 300.0


def engine_ratios(turns: int = TURNS) -> dict[str, Any]:
    """`ratio_hf_1`, `ratio_hf_8` (tokens a second, llamacpp over generate), `ratio_mixed_adapters` (four over one), and what they are of."""
    folder = base_folder(Config())
    assert gguf_of(folder) is not None, "`lorad models pull` keeps the GGUF file of the base"
    with tempfile.TemporaryDirectory() as root:
        model = _adapted(folder, Path(root))
        with _engine(Path(root)) as answer:
            measured: dict[str, Callable[[], float]] = {
                "hf_1": lambda: _generate(model, folder, 1),
                "llama_1": lambda: answer("one"),
                "hf_8": lambda: _generate(model, folder, STREAMS),
                "llama_8": lambda: answer("eight"),
                "llama_mixed": lambda: answer("mixed"),
            }
            answer("mixed")  # a warm-up of each side
            _generate(model, folder, 1)
            rounds = [{name: measure() for name, measure in measured.items()} for _ in range(turns)]
    ratios = {"ratio_hf_1": ("llama_1", "hf_1"), "ratio_hf_8": ("llama_8", "hf_8"), "ratio_mixed_adapters": ("llama_mixed", "llama_8")}
    found = {name: round(statistics.median(turn[over] / turn[under] for turn in rounds), 2) for name, (over, under) in ratios.items()}
    return found | {f"{name}_tokens_s": round(statistics.median(turn[name] for turn in rounds), 1) for name in measured}


@contextmanager
def _engine(root: Path) -> Iterator[Callable[[str], float]]:
    """The engine in its process; what is yielded takes one, eight or mixed and gives tokens a second."""
    child = subprocess.Popen([sys.executable, "-m", "bench.serve_engines", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    words, told = child.stdin, child.stdout

    def ask(word: str) -> float:
        words.write(f"{word}\n")
        words.flush()
        return float(told.readline())

    try:
        yield ask
    finally:
        words.close()
        child.wait(60)


def _answer_words(root: Path) -> None:
    """The child: a word a line, tokens a second a line."""
    engine = LlamaCppEngine(base_folder(Config()), LlamaOptions(streams=STREAMS, forms=root / "forms"))
    engine.open()
    for release in ADAPTERS:
        engine.load(release, root / release)
    eight = [only(ADAPTERS[0])] * STREAMS
    blends = {"one": eight[:1], "eight": eight, "mixed": [only(release) for release in ADAPTERS * (STREAMS // len(ADAPTERS))]}
    for line in sys.stdin:
        print(_answer(engine, blends[line.strip()]), flush=True)
    engine.close()


def _adapted(folder: Path, root: Path) -> Any:
    """PEFT's model with the first of four random adapters (r 16, all linear layers); each lies in both forms below `root`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(weights_folder(folder), dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    for number, release in reversed(tuple(enumerate(ADAPTERS))):
        torch.manual_seed(number)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.01)
        model.save_pretrained(str(root / release))
        run = root / f"run-{number}"
        run.mkdir()
        export(ExportTask(form="gguf", adapter=str(root / release), base=str(folder), out=str(root / f"form-{number}")), RunFolder(run))
        (root / f"form-{number}" / "adapter.gguf").rename(root / release / "adapter.gguf")
    return model.eval()


def _generate(model: Any, folder: Path, streams: int) -> float:
    """Tokens a second of transformers' own loop."""
    import torch

    ids_BT = torch.tensor([Renderer.load(folder).prompt([Message("user", QUESTION)])] * streams)
    how = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
    begun = time.perf_counter()
    with torch.inference_mode():
        made = model.generate(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), **how)
    assert made.shape[1] == ids_BT.shape[1] + TOKENS
    return streams * TOKENS / (time.perf_counter() - begun)


def _answer(engine: LlamaCppEngine, blends: Sequence[Blend]) -> float:
    """Tokens a second of the engine, one stream a blend."""
    ends = [threading.Event() for _ in blends]
    failed: list[Piece] = []

    def sink(ended: threading.Event) -> Callable[[Piece], None]:
        def hear(piece: Piece) -> None:
            if piece.error or piece.end:
                failed.extend([piece] if piece.error else [])
                ended.set()

        return hear

    eos = Renderer.load(base_folder(Config())).eos_id
    how = Sampling(temperature=0, repetition_penalty=1, max_tokens=TOKENS, logit_bias={eos: -1000.0})
    begun = time.perf_counter()
    answers = [
        engine.begin(Ask(blend=blend, messages=(Message("user", QUESTION),), sampling=how), sink(ended)) for blend, ended in zip(blends, ends, strict=True)
    ]
    assert all(ended.wait(PATIENCE_S) for ended in ends)
    assert not failed, failed
    taken = time.perf_counter() - begun
    return sum(answer.completion_tokens for answer in answers) / taken


if __name__ == "__main__":
    if sys.argv[1:]:
        _answer_words(Path(sys.argv[1]))
    else:
        print(json.dumps(engine_ratios()))
