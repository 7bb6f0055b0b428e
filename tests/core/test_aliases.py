"""Configs that people bring from other tools mean what they meant there, or say plainly what cannot be had."""

from typing import Any

import pytest

from core.aliases import translate
from core.config import Config, leaves, nest, resolve, sidecar_layer
from core.errors import ConfigError


def layer_of(tree: dict[str, Any]) -> dict[str, Any]:
    found = translate(tree, "the file").layer
    resolve({"config.json": found})  # it fits the schema
    return found


@pytest.mark.parametrize(
    ("tree", "layer"),
    [
        ({"r": 8, "lora_alpha": 16, "lora_dropout": 0.05}, {"lora": {"r": 8, "alpha": 16, "dropout": 0.05}}),
        ({"lora_config": {"rank": 4, "target_modules": ["q_proj", "v_proj"]}}, {"lora": {"r": 4, "targets": "q_proj,v_proj"}}),
        ({"lora_target": "all"}, {"lora": {"targets": "all-linear"}}),
        ({"lora_target_linear": True}, {"lora": {"targets": "all-linear"}}),
        ({"lora_parameters": {"rank": 8, "scale": 20.0}}, {"lora": {"r": 8, "alpha": 160}}),
        ({"lr": 1e-4, "num_epochs": 2, "lr_scheduler": "linear"}, {"learning_rate": 1e-4, "training": {"epochs": 2, "scheduler": "linear"}}),
        ({"sequence_len": 512, "sample_packing": True}, {"max_length": 512, "training": {"packing": True}}),
        ({"cutoff_len": 512, "optim": "paged_adamw_8bit"}, {"max_length": 512, "training": {"optimizer": "adamw_8bit"}}),
        ({"iters": 600, "random_state": 3407}, {"training": {"max_steps": 600, "seed": 3407}}),
        ({"max_steps": -1}, {}),
        ({"gradient_checkpointing": True}, {"training": {"gradient_checkpointing": "on"}}),
        ({"use_gradient_checkpointing": "unsloth"}, {"training": {"gradient_checkpointing": "on"}}),
        ({"report_to": "none"}, {"training": {"boards": []}}),
        ({"mask_history": True}, {"training": {"last_turn_only": True}}),
        ({"excess_length_strategy": "raise"}, {"training": {"max_overlong_share": 0.0}}),
        ({"rl": "dpo", "rl_beta": 0.2}, {"objective": "dpo", "training": {"beta": 0.2}}),
        ({"base_model": "org/name"}, {"model_path": "org/name"}),
        ({"model": "smollm2-135m-instruct"}, {"model_name": "smollm2-135m-instruct"}),
        ({"training": {"epochs": "3-5", "warmup_steps": 100}}, {"training": {"epochs": 3, "warmup_steps": 100}}),
        ({"lora": {"r": 4}, "serving": {"port": 9000}}, {"lora": {"r": 4}, "serving": {"port": 9000}}),
    ],
)
def test_the_keys_of_other_tools_become_those_of_lorad(tree: dict[str, Any], layer: dict[str, Any]) -> None:
    assert layer_of(tree) == layer


@pytest.mark.parametrize(
    ("tree", "method"),
    [
        ({"adapter": "qlora", "load_in_4bit": True}, "qlora"),
        ({"adapter": "lora", "load_in_4bit": False}, "lora"),
        ({"load_in_4bit": True}, "qlora"),
        ({"finetuning_type": "lora", "quantization_bit": 4}, "qlora"),
        ({"finetuning_type": "full"}, "full"),
        ({"quantization": {"type": "4bit_nf4", "double_quantization": True, "compute_dtype": "bfloat16"}}, "qlora"),
        ({"method": "qlora"}, "qlora"),
        ({"train_type": "lora", "quant_bits": None}, "lora"),
    ],
)
def test_adapter_and_quantisation_together_are_the_method(tree: dict[str, Any], method: str) -> None:
    assert layer_of(tree) == {"method": method}


@pytest.mark.parametrize(
    ("tree", "batch", "micro"),
    [
        ({"batch_size": 19}, 19, None),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, 16, 2),
        ({"micro_batch_size": 4}, None, 4),
        ({"training": {"batch_size": "4 (dynamic)", "gradient_accumulation": 4}}, 16, None),
        ({"batch_size": "4-8"}, 4, None),
        ({"batch_size": "auto"}, None, None),
        ({"effective_batch_size": 32, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 8}, 32, 4),
        ({"gradient_accumulation_steps": 8}, None, None),
    ],
)
def test_the_effective_batch_is_what_a_step_saw_there(tree: dict[str, Any], batch: int | None, micro: int | None) -> None:
    layer = layer_of(tree)
    assert (layer.get("batch_size"), layer.get("training", {}).get("micro_batch")) == (batch, micro)


def test_an_api_body_is_read_with_its_multiplier_and_its_autos() -> None:
    parameters = {"n_epochs": "auto", "batch_size": 8, "learning_rate_multiplier": 0.5}
    body = {"method": {"type": "supervised", "supervised": {"hyperparameters": parameters}}, "seed": 3}
    assert layer_of(body) == {"objective": "sft", "batch_size": 8, "learning_rate": 1e-4, "training": {"seed": 3}}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"train_on_inputs": True}, "learns answers only"),
        ({"assistant_only_loss": False}, "learns answers only"),
        ({"load_in_8bit": True}, "4 bits"),
        ({"quantization": "8bit"}, "4 bits"),
        ({"trust_remote_code": True}, "runs no code"),
        ({"modules_to_save": ["lm_head"]}, "add-tokens"),
        ({"lr_scheduler_type": "polynomial"}, "cosine, linear and constant"),
        ({"truncation_strategy": "right"}, "can lose what it teaches"),
        ({"stage": "pt"}, "sft, dpo, kto and orpo"),
        ({"scale": 20.0}, "no rank stands beside it"),
        ({"batch_size": True}, "not a number of rows"),
        ({"fp16": True}, "bf16"),
    ],
)
def test_what_lorad_cannot_give_is_an_error_and_never_another_training(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        translate(tree, "run.yaml")
    assert words in caught.value.what
    assert next(iter(tree)) in caught.value.what


@pytest.mark.parametrize(
    "tree",
    [
        {"lora_r": 8, "rank": 8},
        {"lora": {"r": 8}, "lora_rank": 16},
        {"learning_rate": 1e-4, "training": {"learning_rate": 2e-4}},
        {"max_length": 512, "sequence_len": 512},
        {"adapter": "lora", "method": "qlora"},
        {"batch_size": 8, "effective_batch_size": 16},
        {"load_in_4bit": True, "quantization_bit": 4},
        {"load_in_4bit": True, "adapter": "full"},
    ],
)
def test_two_names_of_one_key_in_one_file_are_an_error(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        translate(tree, "run.yaml")
    assert caught.value.code == "CONFIG_CONFLICT"


def test_a_typo_of_a_foreign_key_names_the_foreign_key() -> None:
    with pytest.raises(ConfigError) as caught:
        translate({"lora_rnk": 8}, "run.yaml")
    assert "'lora_rank'" in caught.value.hint
    with pytest.raises(ConfigError, match="learning_rat"):
        layer_of({"learning_rat": 1e-4})


def test_nothing_of_a_file_is_dropped_unseen() -> None:
    told = translate({"lora_rank": 4, "save_steps": 50, "sources": {"a": {"path": "/x"}, "b": 1}, "train_on_inputs": False}, "run.yaml")
    assert {found.alias: found.key for found in told.became} == {"lora_rank": "lora.r", "save_steps": "", "sources": "", "train_on_inputs": ""}
    assert [warning.split(":")[0] for warning in told.warnings] == ["sources"]
    assert translate({"learning_rate": 1e-4, "batch_size": 8}, "config.json").became == (), "lorad's own keys are no news"


def test_a_sidecar_may_use_foreign_names_and_no_more_rights_come_with_them() -> None:
    assert sidecar_layer({"lora_rank": 4, "priority": 5}, "the sidecar") == ({"lora.r": 4}, {"priority": 5})
    with pytest.raises(ConfigError) as caught:
        sidecar_layer({"base_model": "org/name"}, "the sidecar")
    assert caught.value.code == "SIDECAR_FORBIDDEN_KEY"
    with pytest.raises(ConfigError, match="editions"):
        sidecar_layer({"editions": {"lite": {}}}, "the sidecar")


def test_an_empty_section_is_no_typo_of_a_foreign_key() -> None:
    sections = {key.rsplit(".", 1)[0] for key, _ in leaves() if "." in key}
    for section in sections:
        assert resolve({"config.json": translate(nest({section: {}}), "the file").layer}).config == Config()


def test_a_key_longer_than_any_name_is_refused_at_once() -> None:
    """Compared with every name, letter by letter, it would hold the daemon up for minutes."""
    with pytest.raises(ConfigError, match="unknown key") as caught:
        resolve({"config.json": translate({"k" * 1_000_000: 1}, "the file").layer})
    assert "did you mean" not in caught.value.hint
