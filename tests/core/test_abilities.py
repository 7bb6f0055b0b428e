"""A job that a backend cannot do is refused with the key, and with who could."""

from typing import Any

import pytest

from core.abilities import ABILITIES, PRIORITY, require_able, unfit_keys
from core.config import Config
from core.errors import ConfigError


@pytest.mark.parametrize(
    ("backend", "said", "key", "able"),
    [
        ("mlx", {"method": "qlora"}, "method", ("unsloth", "peft")),
        ("mlx", {"objective": "dpo"}, "objective", ("peft",)),
        ("unsloth", {"lora": {"use_dora": True}}, "lora.use_dora", ("peft",)),
        ("unsloth", {"method": "full"}, "method", ("peft",)),
        ("mlx", {"training": {"optimizer": "adamw_8bit"}}, "training.optimizer", ("unsloth", "peft")),
        ("unsloth", {"training": {"corrections": "preference"}}, "training.corrections", ("peft",)),
        ("mlx", {"stages": [{"name": "first"}]}, "stages", ("peft",)),
        ("mlx", {"training": {"patience": 2}}, "training.patience", ("unsloth", "peft")),
        ("mlx", {"training": {"auto_rate": True}}, "training.auto_rate", ("unsloth", "peft")),
        ("unsloth", {"distributed": {"processes": 2}}, "distributed.processes", ("peft",)),
        ("mlx", {"distributed": {"ray_address": "auto"}, "training": {"network": True}}, "distributed.ray_address", ("peft",)),
    ],
)
def test_what_a_backend_cannot_do_names_the_key_and_who_could(backend: str, said: dict[str, Any], key: str, able: tuple[str, ...]) -> None:
    config = Config.model_validate(said)
    (unfit,) = unfit_keys(config, backend)
    assert (unfit.key, unfit.able) == (key, able)
    with pytest.raises(ConfigError, match=key) as caught:
        require_able(config, backend)
    assert (caught.value.code, '"peft"' in caught.value.hint) == ("BACKEND_UNABLE", True)
    require_able(config, "peft")
    require_able(config, "stub")


@pytest.mark.parametrize("backend", PRIORITY)
def test_an_ordinary_job_fits_every_backend(backend: str) -> None:
    require_able(Config(), backend)


def test_rows_of_pairs_ask_for_dpo_where_the_config_leaves_it_open() -> None:
    (unfit,) = unfit_keys(Config(), "mlx", "dpo")
    assert (unfit.key, unfit.value) == ("objective", "dpo")
    assert not list(unfit_keys(Config(objective="sft"), "mlx", "dpo")), "sft learns the better answer of each pair"


def test_every_backend_of_the_schema_has_its_line_and_its_code() -> None:
    from trainer.backends import BACKENDS

    assert set(ABILITIES) == set(PRIORITY) == set(BACKENDS)
