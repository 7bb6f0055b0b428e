"""A base or an adapter that cannot be used ends the training before it starts, with what is wrong and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_cases import packing, rows, small_base, with_adapter
from safetensors.torch import load_file, save_file
from torch import nn
from trainer_cases import write_tokenizer

from core.config import Config
from core.errors import ChildError, LoradError
from core.exits import ChildExit
from store.bases import read_base
from trainer.backends.families import forward_for
from trainer.backends.model import Place, load_base, new_adapter, read_adapter, write_adapter
from trainer.convert import pull

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")

CPU = Place(device="cpu", dtype=torch.float32)
Spoil = Callable[[Path], None]


@pytest.fixture
def base_with(tiny_folder: Path, tmp_path: Path) -> Callable[[Spoil], Path]:
    """The tiny base, its files spoilt after it was registered (before, where it must be)."""

    def make(spoil: Spoil) -> Path:
        folder = tmp_path / "hf"
        shutil.copytree(tiny_folder, folder)
        base = pull(Config.model_validate({"model_path": str(folder), "models_dir": str(tmp_path / "models")}), lambda line: None)
        spoil(folder)
        return base

    return make


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def one_weight_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def one_weight_narrower(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", ')


def unknown_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no_such_family"}')


def no_language_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')


def quantised_elsewhere(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "what", "hint"),
    [
        (cut_short, "", "damaged"),
        (no_header, "", "damaged"),
        (one_weight_less, "such as 'model.layers.1.mlp.up_proj.weight'", "damaged"),
        (one_weight_narrower, "such as 'model.layers.1.mlp.up_proj.weight'", "damaged"),
        (torn_config, "", "model_path"),
        (unknown_family, "no_such_family", "model_path"),
        (no_language_model, "'vit' is no causal language model", "model_path"),
        (quantised_elsewhere, "GPTQ", "unquantised"),
    ],
)
def test_a_base_that_does_not_load_says_what_to_do(base_with: Callable[[Spoil], Path], spoil: Spoil, what: str, hint: str) -> None:
    with pytest.raises(ChildError) as caught:
        load_base(base_with(spoil), CPU)
    assert what in caught.value.what
    assert caught.value.code == "BASE_UNREADABLE"
    assert caught.value.exit_code == ChildExit.BAD_SPEC
    assert hint in caught.value.hint
    assert len(caught.value.what) < 900


@pytest.mark.parametrize(("asked", "near"), [("q_porj", "q_proj"), ("q_proj,dense_h_to_4h", "q_proj"), ("self_attn.q_proj,gate", "gate_proj"), (" ", "q_proj")])
def test_targets_that_match_nothing_name_the_nearest_layers(asked: str, near: str) -> None:
    with pytest.raises(ChildError) as caught:
        new_adapter(small_base("llama"), Config.model_validate({"lora": {"targets": asked}}))
    assert caught.value.code == "LORA_TARGETS"
    assert repr(asked.split(",")[-1].strip()) in caught.value.what
    assert near in caught.value.hint


def test_targets_by_a_part_of_their_path_are_taken() -> None:
    model = new_adapter(small_base("llama"), Config.model_validate({"lora": {"targets": "self_attn.q_proj, v_proj"}}))
    assert {name.split(".")[-4] for name, param in model.named_parameters() if param.requires_grad} == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("family", "asked"), [("mixtral", "w1,w2,w3"), ("qwen3_moe", "gate_proj,up_proj"), ("qwen3_moe", "gate"), ("mixtral", "q_proj,down_proj")]
)
def test_targets_in_fused_experts_are_refused(family: str, asked: str) -> None:
    with pytest.raises(ChildError, match="fused in the experts") as caught:
        new_adapter(small_base(family), Config.model_validate({"lora": {"targets": asked}}))
    assert "q_proj" in caught.value.hint


class Packed(nn.Module):
    """A quantised layer that PEFT does not know."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.qweight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)


@pytest.mark.parametrize("asked", ["all-linear", "q_proj"])
def test_a_quantised_base_where_lora_cannot_attach_is_refused(asked: str) -> None:
    base = small_base("llama")
    for module in list(base.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Packed(child))
    base.config.quantization_config = {"quant_method": "some_4bit"}
    with pytest.raises(ChildError, match="some_4bit") as caught:
        new_adapter(base, Config.model_validate({"lora": {"targets": asked}}))
    assert caught.value.code == "LORA_TARGETS"
    assert "unquantised" in caught.value.hint


def test_a_base_that_is_in_4_bits_already_trains_as_it_is(tmp_path: Path) -> None:
    """Where LoRA can attach: bitsandbytes. Its weights stay the same through evaluations."""
    small_base("llama").save_pretrained(tmp_path / "whole")
    four = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole", quantization_config=four).save_pretrained(tmp_path / "hf")
    write_tokenizer(tmp_path / "hf")
    base = load_base(pull(Config.model_validate({"model_path": str(tmp_path / "hf"), "models_dir": str(tmp_path / "models")}), lambda line: None), CPU)
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    forward = forward_for(new_adapter(base, Config()), packing(True))
    losses = forward.token_losses(rows())
    losses.sum().backward()
    with torch.no_grad():
        assert torch.equal(forward.token_losses(rows()), losses.detach())
    assert torch.equal(forward.token_losses(rows()).detach(), losses.detach())


def spoilt_adapter(tmp_path: Path, spoil: Callable[[Path], None]) -> ChildError:
    write_adapter(with_adapter(small_base("llama")), tmp_path, "a-base")
    spoil(tmp_path)
    with pytest.raises(ChildError) as caught:
        read_adapter(small_base("llama"), tmp_path)
    assert caught.value.code == "ADAPTER_UNREADABLE"
    assert len(caught.value.what) < 600
    return caught.value


def test_an_adapter_of_another_width_or_family_does_not_load(tmp_path: Path) -> None:
    def of(family: str, **shape: Any) -> Callable[[Path], None]:
        return lambda folder: write_adapter(with_adapter(small_base(family, **shape)), folder, "another")

    assert "size mismatch" in spoilt_adapter(tmp_path, of("llama", intermediate_size=80)).what
    assert "does not load on this base" in spoilt_adapter(tmp_path, of("gpt_neox")).what
    assert "unknown" in spoilt_adapter(tmp_path, of("llama", num_hidden_layers=3)).what


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_torn_adapter_does_not_load(tmp_path: Path, name: str) -> None:
    spoilt_adapter(tmp_path, lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:100]) and None)


def test_a_tokenizer_without_padding_or_end_token(tiny_folder: Path, tmp_path: Path) -> None:
    """Nothing is padded with a token, so none is needed. The end of a turn is: from the model's config, where the tokenizer names none."""
    folder = tmp_path / "hf"
    shutil.copytree(tiny_folder, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    settings = {"model_path": str(folder), "models_dir": str(tmp_path / "models")}
    base = pull(Config.model_validate(settings), lambda line: None)
    assert read_base(base).eos_token == "<|im_end|>"

    shutil.rmtree(base)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(LoradError, match="which token ends a turn") as caught:
        pull(Config.model_validate(settings), lambda line: None)
    assert caught.value.code == "NO_END_TOKEN"
    assert not base.exists()
