"""How deep a drop is checked: whoever knows it best decides."""

import pytest

from core.config import resolve
from core.errors import ConfigError
from core.gate import first_level, level_of

CONFIG = {"validation": {"level": "quick", "levels": {"support": "deep"}, "sources": {"scraped": "deep", "ours": "quick"}}}


@pytest.mark.parametrize(
    ("sidecar", "adapter", "source", "level"),
    [
        ({"validation.level": "standard"}, "support/main", "scraped", "standard"),
        ({}, "support/main", "ours", "quick"),
        ({}, "other/main", "scraped", "deep"),
        ({}, "support/main", "", "deep"),
        ({}, "other/main", "", "quick"),
    ],
)
def test_sidecar_before_source_before_adapter_before_config(sidecar: dict[str, object], adapter: str, source: str, level: str) -> None:
    assert level_of(resolve({"config.json": CONFIG, "sidecar": sidecar}), adapter, source) == level


def test_nothing_said_means_standard() -> None:
    assert level_of(resolve({}), "a/main", "") == "standard"


def test_a_mistyped_source_is_told_and_never_makes_the_check_shallower() -> None:
    with pytest.raises(ConfigError) as caught:
        level_of(resolve({"config.json": CONFIG}), "a/main", "scrapd")
    assert caught.value.code == "SOURCE_UNKNOWN"
    assert "'scraped'" in caught.value.hint


def test_a_source_is_a_mere_note_where_the_config_knows_none() -> None:
    assert level_of(resolve({}), "a/main", "the archive") == "standard"


@pytest.mark.parametrize(("level", "first"), [("quick", "quick"), ("standard", "standard"), ("deep", "standard")])
def test_in_the_background_everything_deeper_than_standard_comes_later(level: str, first: str) -> None:
    assert first_level(level, background_deep=True) == first
    assert first_level(level, background_deep=False) == level
