import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from trainer_cases import SHAPE, questions, write_tokenizer

from core.config import Config
from core.tasks import RowsOf, ScoreTask, TrainTask
from store import codec
from store.paths import default_models_dir
from store.seals import is_sealed
from trainer.convert import pull
from trainer.run import RunFolder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers as a local Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("hf") / "tiny"
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A config that names the tiny model, with a short training."""
    models = tmp_path_factory.mktemp("models")
    made = {"model_path": str(tiny_folder), "models_dir": str(models), "batch_size": 4, "learning_rate": 5e-3, "max_length": 128}
    return Config.model_validate({**made, "training": {"epochs": 2.0, "checkpoints": 2, "threads": 1}})


@pytest.fixture(scope="session")
def tiny_base(tiny_config: Config) -> Path:
    return pull(tiny_config, lambda line: None)


@pytest.fixture
def drop(tmp_path: Path) -> Callable[..., RowsOf]:
    """Makes an accepted drop; a row's split is train unless `splits` says otherwise, each row its own group."""

    def make(rows: Sequence[dict[str, Any]], splits: Sequence[str] = (), name: str = "drop-1") -> RowsOf:
        folder = tmp_path / name
        folder.mkdir()
        raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
        index = []
        for number, _ in enumerate(rows):
            group = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()
            index.append({"line": number + 1, "group": group, "split": splits[number] if splits else "train"})
        (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
        return RowsOf(drop=name, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1")

    return make


@pytest.fixture
def train_drop(drop: Callable[..., RowsOf]) -> RowsOf:
    """12 rows to train on, 4 of dev, 4 of gate."""
    return drop(questions(20), ["train"] * 12 + ["dev"] * 4 + ["gate"] * 4)


@pytest.fixture
def run_in(tmp_path: Path) -> Callable[..., RunFolder]:
    """A run folder with its spec."""

    def make(name: str, task: TrainTask | ScoreTask | None = None) -> RunFolder:
        root = tmp_path / "run" / name
        root.mkdir(parents=True)
        if task is not None:
            codec.write(root / "spec.json", task)
        return RunFolder(root)

    return make


@pytest.fixture
def child() -> Any:
    """Starts the real child process on a run folder; what still lives at the end of the test is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunFolder) -> subprocess.Popen[bytes]:
        with open(run.root / "log.txt", "wb") as log:
            started.append(subprocess.Popen([sys.executable, "-m", "trainer", str(run.root)], stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def real_base() -> Path:
    models = Path(os.environ.get("LORAD_TEST_MODELS") or default_models_dir())
    folder = models / "smollm2-135m-instruct"
    if not is_sealed(folder):
        pytest.fail(f"no base model in {folder}: run `lorad models pull`, or set LORAD_TEST_MODELS to the folder that holds it")
    return folder
