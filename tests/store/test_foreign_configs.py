"""Config files as people bring them: YAML, other tools' keys, ids of a hub. The three of tests/data/foreign_configs are copies of real ones."""

from pathlib import Path

import pytest

from core.errors import ConfigError
from store.bases import base_folder, is_hub_id
from store.config import ConfigLoader
from store.config_file import read_layer

BROUGHT = Path(__file__).parents[1] / "data" / "foreign_configs"


def test_the_three_configs_load_unchanged() -> None:
    plain = ConfigLoader(BROUGHT / "config.json").load().config
    assert (plain.batch_size, plain.max_length, plain.profile.name) == (19, 4096, "emoji_think")

    own = ConfigLoader(BROUGHT / "ego-config.yaml").load()
    assert (own.config.method, own.config.lora.r, own.config.learning_rate, own.config.batch_size, own.config.training.epochs) == ("qlora", 16, 2e-4, 4, 3)
    assert sorted(warning.split(":")[0] for warning in own.warnings) == [
        *("editions", "schedule.auto_update", "schedule.interval", "schedule.trigger", "sources"),
    ]

    loader = ConfigLoader(BROUGHT / "qlora.yaml")
    made = loader.load()
    assert (made.config.method, made.config.lora.r, made.config.lora.alpha, made.config.lora.dropout) == ("qlora", 32, 64, 0.1)
    assert (made.config.batch_size, made.config.training.micro_batch, made.config.training.epochs, made.config.max_length) == (16, 0, 3, 2048)
    assert made.config.lora.targets.split(",")[0] == "q_proj"
    assert made.warnings == ()
    assert {found.key: found.alias for found in loader.became if found.key}["method"] == "quantization.type"


@pytest.mark.parametrize(("text", "words"), [("a: [1", "YAML"), ("lr: 1e-4\nlr: 2e-4", "stands twice"), ("- a\n- b", "a list"), ("just words", "a str")])
def test_a_broken_yaml_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_layer(tmp_path / "run.yaml")
    assert words in caught.value.what


def test_numbers_with_an_exponent_are_numbers_and_quoted_ones_are_text(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text('a: 2e-4\nb: 1.5E3\nc: "2e-4"\nd: 3-5\ne: 12\nf: e4\n')
    assert read_layer(tmp_path / "run.yaml") == {"a": 2e-4, "b": 1500.0, "c": "2e-4", "d": "3-5", "e": 12, "f": "e4"}


def test_yaml_makes_plain_values_only(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="YAML"):
        read_layer(tmp_path / "run.yaml")


def test_a_hub_id_stays_an_id_and_a_folder_of_that_name_wins(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_path": "org/Name-1.7B", "models_dir": "models"}')
    config = ConfigLoader(tmp_path / "config.json").load().config
    assert (config.model_path, base_folder(config)) == ("org/Name-1.7B", tmp_path / "models" / "org--name-1.7b")
    (tmp_path / "org" / "Name-1.7B").mkdir(parents=True)
    assert ConfigLoader(tmp_path / "config.json").load().config.model_path == str(tmp_path / "org" / "Name-1.7B")
    assert not any(map(is_hub_id, ("/a/b", "./a/b", "a/b/c", "name", "", "../x/y")))


def test_a_reload_reads_foreign_keys_too(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("lora_rank: 4\n")
    loader = ConfigLoader(file)
    assert loader.load().config.lora.r == 4
    file.write_text("lora_rank: 8\n")
    assert loader.reread().changed == ("lora.r",)
