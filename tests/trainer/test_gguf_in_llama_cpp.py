"""What llama.cpp itself makes of the GGUF files: the same greedy tokens as base and adapter by PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import export_task, note_in, peft_model, run_folder, silenced, write_loud_adapter
from llama_cpp import llama_tokens, up_to_end
from trainer_cases import SHAPE, write_tokenizer

from core.config import Config
from core.errors import ChildError
from trainer.convert import pull
from trainer.export import export

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

PROMPTS = [[1, 50, 60, 70, 2], [9, 8, 7], [100, 101, 102, 103, 104, 105, 106, 107]]
NUM_TOKENS = 8
EOS = 2
THETA = 500_000.0  # not what readers take for granted


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The sealed base of a family: random weights, two layers."""

    def make(kind: str, **more: Any) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(1)
        root = tmp_path_factory.mktemp(kind)
        torch.manual_seed(3)
        shape = SHAPE | {"hidden_size": 64, "head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": THETA}} | more
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
        with torch.no_grad():
            for name, param in model.named_parameters():
                if param.dim() > 1 and "embed" not in name:
                    param.mul_(6)  # so that attention and place matter
                elif "bias" in name:
                    param.normal_(std=0.5)
        model.save_pretrained(root / "hf")
        write_tokenizer(root / "hf")
        return pull(Config.model_validate({"model_path": str(root / "hf"), "models_dir": str(root / "models")}), lambda line: None)

    return make


def greedy(model: Any, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
    how = {"max_new_tokens": num_tokens, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    with torch.inference_mode():
        return [model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **how)[0, len(ids) :].tolist() for ids in prompts]


@pytest.mark.parametrize(
    ("kind", "more"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True, "attention_bias": True}), ("mistral", {"sliding_window": None}), ("qwen2", {}), ("qwen3", {})],
)
def test_a_family_answers_in_llama_cpp_as_in_peft(kind: str, more: dict[str, Any], base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of(kind, **more)
    adapter = write_loud_adapter(base, tmp_path / "adapter", strength=0.5)
    export(export_task("merged-gguf", base, adapter, tmp_path / "out", "f32"), run_folder(tmp_path / "run"))
    assert note_in(tmp_path / "out")["check"]["logprob_moved_most"] < 1e-3
    wanted = greedy(peft_model(base, adapter), PROMPTS, NUM_TOKENS)
    assert up_to_end(llama_tokens(tmp_path / "out" / "model.gguf", PROMPTS, NUM_TOKENS), EOS) == up_to_end(wanted, EOS)
    assert wanted != greedy(peft_model(base, silenced(adapter, tmp_path / "quiet")), PROMPTS, NUM_TOKENS)


def test_a_gguf_adapter_beside_its_base_answers_as_the_merged_file_does(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of("llama")
    adapter = write_loud_adapter(base, tmp_path / "adapter", strength=0.5, use_rslora=True, rank_pattern={"q_proj": 2})
    quiet = silenced(adapter, tmp_path / "quiet")
    export(export_task("gguf", base, adapter, tmp_path / "lora"), run_folder(tmp_path / "run-1"))
    export(export_task("merged-gguf", base, quiet, tmp_path / "plain", "f32"), run_folder(tmp_path / "run-2"))
    found = llama_tokens(tmp_path / "plain" / "model.gguf", PROMPTS, NUM_TOKENS, tmp_path / "lora" / "adapter.gguf")
    assert up_to_end(found, EOS) == up_to_end(greedy(peft_model(base, adapter), PROMPTS, NUM_TOKENS), EOS)


def test_mlx_turns_by_the_base_s_own_theta(base_of: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    base = base_of("llama")
    adapter = write_loud_adapter(base, tmp_path / "adapter")
    export(export_task("mlx", base, adapter, tmp_path / "out", "f32"), run_folder(tmp_path / "run"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["rope_theta"] == THETA


def test_the_mlx_backend_loads_the_same_base_as_torch_does(base_of: Callable[..., Path], tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    from trainer.backends.mlxmodel import load_base

    base = base_of("llama")
    adapter = silenced(write_loud_adapter(base, tmp_path / "adapter"), tmp_path / "quiet")
    with torch.inference_mode():
        wanted = peft_model(base, adapter)(torch.tensor([PROMPTS[2]])).logits[0].log_softmax(-1)
    logits = load_base(base)(mx.array([PROMPTS[2]]))[0].astype(mx.float32)
    found = torch.tensor(logits.tolist()).log_softmax(-1)
    assert torch.allclose(found, wanted, atol=1e-2)


def test_a_window_that_llama_cpp_would_leave_out_is_refused(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of("mistral", sliding_window=32)
    adapter = write_loud_adapter(base, tmp_path / "adapter")
    with pytest.raises(ChildError, match="window"):
        export(export_task("merged-gguf", base, adapter, tmp_path / "out"), run_folder(tmp_path / "run"))
