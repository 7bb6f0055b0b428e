"""Unsloth is called as it documents itself. Its kernels need hardware that is not here: a fake of its interface stands in."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_cases import progress_of

from core.config import Config
from core.errors import ChildError
from core.tasks import RowsOf, TrainTask
from trainer.backends.unsloth import UnslothBackend
from trainer.run import RunFolder


class FastLanguageModel:
    """The documented interface: two static methods that return what transformers and PEFT return, and a switch."""

    calls: list[tuple[str, dict[str, Any]]]

    @staticmethod
    def from_pretrained(model_name: str, max_seq_length: int, dtype: Any, load_in_4bit: bool) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM

        FastLanguageModel.calls.append(("load", {"max_seq_length": max_seq_length, "load_in_4bit": load_in_4bit, "dtype": dtype}))
        model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32)
        model.requires_grad_(False)
        return model, object()

    @staticmethod
    def get_peft_model(model: Any, **asked: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        FastLanguageModel.calls.append(("peft", asked))
        lora = {name: asked[name] for name in ("r", "target_modules", "lora_alpha", "lora_dropout", "bias", "use_rslora")}
        return get_peft_model(model, LoraConfig(**lora, task_type="CAUSAL_LM"))

    @staticmethod
    def for_training(model: Any) -> Any:
        FastLanguageModel.calls.append(("for_training", {}))
        return model


@pytest.fixture
def unsloth(monkeypatch: pytest.MonkeyPatch) -> type[FastLanguageModel]:
    FastLanguageModel.calls = []
    module = types.ModuleType("unsloth")
    module.FastLanguageModel = FastLanguageModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setenv("UNSLOTH_RETURN_LOGITS", "")
    return FastLanguageModel


def test_unsloth_loads_and_attaches_and_the_loop_is_lorads_own(
    unsloth: type[FastLanguageModel], tiny_config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder]
) -> None:
    config = tiny_config.model_copy(update={"training": tiny_config.training.model_copy(update={"boards": ()})})
    task = TrainTask(job="job-1", backend="unsloth", base=str(tiny_base), rows=(train_drop,), settings=config.model_dump(mode="json"))
    run = run_in("unsloth", task)
    UnslothBackend().train(task, run)
    assert [name for name, _ in unsloth.calls] == ["load", "peft", "for_training"]
    asked = dict(unsloth.calls)["peft"]
    assert (asked["r"], asked["lora_alpha"], asked["random_state"]) == (config.lora.r, config.lora.alpha, config.training.seed)
    assert asked["use_gradient_checkpointing"] == "unsloth"
    assert dict(unsloth.calls)["load"]["load_in_4bit"] is False
    assert progress_of(run)[-1]["step"] == 6
    assert "padded" in run.path  # its kernels know padded batches


def test_without_a_gpu_unsloth_says_what_it_needs(tiny_config: Config, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise NotImplementedError("Unsloth cannot find any torch accelerator? You need a GPU.")

    monkeypatch.setattr("trainer.backends.unsloth.importlib.import_module", refuse)
    with pytest.raises(ChildError, match="You need a GPU") as caught:
        UnslothBackend().new_model(tiny_base, tiny_config)
    assert '"backend": "peft"' in caught.value.hint
