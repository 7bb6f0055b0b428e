"""Rows, shapes and looks into a run folder that the tests of the trainer share."""

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.tasks import ExitNote
from store import codec
from trainer.run import RunFolder

TINY = Path(__file__).parents[1] / "data" / "tiny_base"
DEADLINE_S = 90.0
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def write_tokenizer(folder: Path) -> None:
    """The tiny tokenizer as a Hugging Face folder holds it."""
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copyfile(TINY / name, folder / name)
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def questions(count: int) -> list[dict[str, Any]]:
    """Rows of several lengths; each is its own conversation."""
    return [chat(f"What is {number} plus {number}?", "It is " + " ".join([str(number + number)] * (1 + number % 5))) for number in range(count)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {DEADLINE_S} s"
        time.sleep(0.01)


def note_of(run: RunFolder) -> ExitNote:
    return codec.read(ExitNote, run.exit)


def progress_of(run: RunFolder, stage: str = "train") -> list[dict[str, Any]]:
    path = run.root / "progress.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["stage"] == stage]


def results_of(run: RunFolder) -> ExitNote:
    """The whole results that lie in the folder, as exit.json would name them."""
    return run.results(ExitNote(code=0, ended_at=datetime(2026, 1, 1, tzinfo=UTC)))
