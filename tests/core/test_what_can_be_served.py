"""What no server would load is refused before it is trained."""

from typing import Any

import pytest

from core.config import Config
from core.errors import ConfigError
from core.servable import layout_of, require_servable

LAYERS = [{"name": "k", "share": 0.5, "layer": "knowledge", "r": 24}, {"name": "s", "layer": "skill", "r": 8}]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"method": "full"}, r"method = 'full' cannot be served.*a release is an adapter"),
        ({"lora": {"use_dora": True}}, r"lora.use_dora = true cannot be served.*vLLM"),
        ({"method": "full", "lora": {"use_dora": True}}, r"'full'.*; lora.use_dora"),
        ({"serving": {"max_rank": 31}, "stages": LAYERS}, r"32 ranks together cannot be served.*serving.max_rank = 31"),
    ],
)
def test_what_no_server_loads_is_refused_by_key_and_reason(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        require_servable(Config.model_validate(config))
    assert caught.value.code == "METHOD_NOT_SERVED"
    assert "lorad train FILE" in caught.value.hint


@pytest.mark.parametrize("config", [{}, {"method": "qlora"}, {"lora": {"use_rslora": True, "r": 128}}, {"serving": {"max_rank": 32}, "stages": LAYERS}])
def test_what_servers_load_passes(config: dict[str, Any]) -> None:
    require_servable(Config.model_validate(config))


def test_what_unsloth_and_mlx_train_lies_in_the_layout_that_servers_load() -> None:
    assert {backend: layout_of(backend) for backend in ("unsloth", "peft", "mlx", "stub")} == {"unsloth": "peft", "peft": "peft", "mlx": "peft", "stub": "stub"}
