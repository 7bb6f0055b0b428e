"""The daemon with a real backend keeps a warm trainer, and its jobs are trained by it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from circle import Circle, chat_rows
from processes import lives, wait_until

from core.config import Config
from trainer.convert import pull

TINY = Path(__file__).parents[1] / "data" / "tiny_base"
SHAPE: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="trainers start cold elsewhere")]


@pytest.fixture
def tiny(circle: Circle) -> dict[str, Any]:
    """Config values that name a random model of two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = circle.root / "hf"
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copyfile(TINY / name, folder / name)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}))
    values = {"model_path": str(folder), "models_dir": str(circle.root / "models")}
    pull(Config.model_validate(values), lambda line: None)
    return {**values, "backend": "peft", "max_length": 256}


def warm_trainers(circle: Circle) -> list[psutil.Process]:
    return circle.children("trainer.warm")


def test_a_job_is_trained_by_a_child_of_the_warm_trainer_and_nobody_outlives_the_daemon(circle: Circle, tiny: dict[str, Any]) -> None:
    circle.configure(**tiny, batch_size=2, training={"epochs": 200.0, "threads": 1, "boards": [], "start": "base"})
    circle.start_daemon()
    (warm,) = circle.wait(lambda: warm_trainers(circle), "the warm trainer")
    circle.wait(lambda: "ready for peft" in (circle.home / "warm.log").read_text(), "it is ready")
    circle.drop(chat_rows())
    job = circle.wait_state("training")
    run = circle.runs(job, "train")[0]
    circle.wait(lambda: '"stage": "train"' in _text(run / "progress.jsonl"), "steps")
    named = json.loads((circle.home / "slots" / "0.lock").read_text())
    child = psutil.Process(named["pid"])
    assert child.ppid() == warm.pid
    circle.daemon.kill()
    for process in (warm, child):
        wait_until(lambda process=process: not lives(process), "its end")


def test_config_turns_it_off_and_on_by_a_reload_and_a_stop_ends_it(circle: Circle, tiny: dict[str, Any]) -> None:
    circle.configure(**tiny)
    circle.start_daemon()
    circle.wait(lambda: warm_trainers(circle), "the warm trainer")
    circle.configure(**tiny, training={"epochs": 1, "warm": False})
    assert circle.lorad("reload").returncode == 0
    circle.wait(lambda: not warm_trainers(circle), "its end")
    circle.configure(**tiny)
    assert circle.lorad("reload").returncode == 0
    (warm,) = circle.wait(lambda: warm_trainers(circle), "the next one")
    circle.daemon.stop()
    assert not lives(warm)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
