"""The config: strict, with the nearest key, and with the origin of each value."""

import re
from typing import Any

import pytest

from core.config import Config, identity_of, leaves, resolve, sidecar_layer
from core.errors import ConfigError
from core.jsonc import loads
from core.urgency import priority_of


def test_a_typo_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"config.json": {"learning_rat": 1e-4}})
    assert "'learning_rat'" in caught.value.what
    assert "'learning_rate'" in caught.value.hint


def test_a_typo_in_a_section_names_the_nearest_key_there() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"config.json": {"serving": {"prot": 1}}})
    assert "'serving.port'" in caught.value.hint


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": "fast"},
        {"learning_rate": 7},
        {"batch_size": 0},
        {"lora": 16},
        {"backend": "cuda"},
        {"batch_size": True},
        {"batch_size": 10**20},
        {"training": {"epochs": float("inf")}},
        {"training": {"epochs": 1e308}},
        {"deploy": {"targets": [{"name": "../x"}]}},
        {"deploy": {"targets": [{"name": "cellar"}, {"name": "cellar"}]}},
        {"validation": {"levels": {"support/tone": "profound"}}},
        {"validation": {"levels": {"Not A Name": "deep"}}},
        {"validation": {"sources": {"scraped": True}}},
        {"validation": {"profiles": {"mine": 3}}},
        {"validation": {"profiles": {"mine": {"B02.warn_share": "much"}}}},
        {"validation": {"quarantine_share": 2}},
        {"validation": {"references": "one.jsonl"}},
        {"columns": "lang"},
        {"specs": ["mine.json"]},
    ],
)
def test_a_wrong_value_names_key_and_value(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"config.json": bad})
    assert next(iter(bad)) in caught.value.what
    assert caught.value.hint


def test_a_wrong_value_that_may_be_a_secret_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"config.json": {"alerts": {"webhook": ["https://hooks.example/T0/B0/token"]}}})
    assert "alerts.webhook" in caught.value.what
    assert "token" not in caught.value.what


def test_half_a_surrogate_is_no_json_for_us() -> None:
    """No file could hold it again: a sidecar with one would be read and never frozen."""
    with pytest.raises(ValueError, match="surrogates"):
        loads('{"notes": "\\ud800"}')
    assert loads('{"notes": "\\ud83d\\ude00"}') == {"notes": "\U0001f600"}


@pytest.mark.parametrize("value", [1001, -(10**26), "10000", True, 1.5])
def test_a_priority_has_bounds(value: object) -> None:
    with pytest.raises(ConfigError, match="priority"):
        priority_of(value, "the sidecar")


def test_later_layers_win_and_the_origin_of_each_value_is_known() -> None:
    resolved = resolve({"config.json": {"batch_size": 8, "lora.r": 4}, "sidecar": {"batch_size": 9}, "command line": {"max_length": 99}})
    assert (resolved.config.batch_size, resolved.config.lora.r, resolved.config.max_length) == (9, 4, 99)
    assert resolved.origins["batch_size"] == "sidecar"
    assert resolved.origins["lora.r"] == "config.json"
    assert resolved.origins["max_length"] == "command line"
    assert resolved.origins["learning_rate"] == "default"


def test_where_two_keys_name_a_base_the_path_wins_and_says_so() -> None:
    resolved = resolve({"config.json": {"model_name": "other", "model_path": "/models/mine"}})
    assert "/models/mine" in resolved.warnings[0]
    assert resolve({"config.json": {"model_path": "/models/mine"}}).warnings == ()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"rates": {"chats": "1/minute"}}, "no route is called 'chats'"),
        ({"rates": {"chat": "often"}}, "'often' is no rate"),
        ({"filters": {"mine": {"does": "log"}}}, "either pattern, or classifier"),
        ({"filters": {"mine": {"classifier": "a.ftz"}}}, "either pattern, or classifier and label"),
    ],
)
def test_a_rate_or_a_filter_that_means_nothing_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        resolve({"config.json": {"serving": values}})


@pytest.mark.parametrize(
    "key",
    [
        *("model_path", "home", "serving.port", "deploy.targets", "backend", "allow_stub", "training.threads", "specs"),
        *("validation.quarantine_share", "validation.profile", "validation.levels", "validation.references", "validation.background_deep"),
    ],
)
def test_whoever_drops_a_file_may_not_choose_base_path_network_or_target(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sidecar_layer({key: "x"}, "the sidecar")
    assert caught.value.code == "SIDECAR_FORBIDDEN_KEY"


def test_a_sidecar_may_set_what_its_job_needs() -> None:
    said = {"schema_id": "completion_v1", "priority": 5, "again": True, "notes": "n", "source": "scraped"}
    values, job = sidecar_layer(said | {"lora": {"r": 8}, "level": "quick", "columns": ["lang"]}, "the sidecar")
    assert values == {"schema_id": "completion_v1", "lora.r": 8, "validation.level": "quick", "columns": ["lang"]}
    assert job == {"priority": 5, "again": True, "notes": "n", "source": "scraped"}


@pytest.mark.parametrize(("key", "value"), [("not_before", "tomorrow"), ("not_before", "2026-03-01T22:00"), ("not_before", 5)])
def test_a_time_that_is_none_or_has_no_zone_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=r"not_before = .* (no date|no zone)"):
        sidecar_layer({key: value}, "the sidecar")


@pytest.mark.parametrize(("said", "number"), [("high", 10), ("normal", 0), ("Low", -10), ("7", 7), (-3, -3)])
def test_a_priority_is_a_word_or_a_number(said: object, number: int) -> None:
    assert sidecar_layer({"priority": said}, "the sidecar")[1] == {"priority": number}


def test_a_time_is_kept_in_utc() -> None:
    assert sidecar_layer({"not_before": "2026-03-01T22:00+01:00"}, "the sidecar")[1] == {"not_before": "2026-03-01T21:00:00+00:00"}


@pytest.mark.parametrize(("key", "value"), [("priority", "urgent"), ("again", 1), ("notes", 3), ("priority", True), ("source", ["scraped"])])
def test_a_job_key_of_the_wrong_type_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        sidecar_layer({key: value}, "the sidecar")


def test_the_identity_keys_change_rows_or_objective_only() -> None:
    rows = {"schema_id", "max_length", "profile.name", "profile.options"}
    assert set(identity_of(Config())) == rows | {"objective", "training.corrections", "training.last_turn_only"}


def test_names_below_a_mapping_are_names_and_not_keys() -> None:
    profiles = {"mine": {"B02.warn_share": 0.05, "B11": False}}
    nested = resolve(
        {"config.json": {"validation": {"profiles": profiles, "levels": {"support": "deep"}, "sources": {"a.b": "quick"}}, "specs": {"x": "x.json"}}}
    )
    dotted = resolve(
        {"config.json": {"validation.profiles": profiles, "validation.levels.support": "deep", "validation.sources": {"a.b": "quick"}, "specs.x": "x.json"}}
    )
    for resolved in (nested, dotted):
        assert resolved.config.validation.profiles == profiles
        assert resolved.config.validation.levels == {"support/main": "deep"}
        assert resolved.config.validation.sources == {"a.b": "quick"}
        assert resolved.config.specs == {"x": "x.json"}
        assert resolved.origins["validation.profiles"] == "config.json"
    assert nested.record()["values"]["validation"]["profiles"] == profiles


def test_a_frozen_config_reads_back_as_it_was() -> None:
    said = {"columns": ["lang"], "validation": {"references": ["x.jsonl"], "profiles": {"mine": {"B11": False}}}}
    frozen = resolve({"config.json": said}).record()["values"]
    assert resolve({"config.json": frozen}).config == resolve({"config.json": said}).config


def test_every_key_has_a_help_text() -> None:
    for key, _ in leaves():
        model, *rest = [Config], *key.split(".")
        section = Config
        for part in rest[:-1]:
            section = section.model_fields[part].annotation  # type: ignore[assignment]
        assert section.model_fields[rest[-1]].description, (key, model)


def test_comments_are_allowed_and_strings_with_slashes_survive() -> None:
    assert loads('{"a": "http://x//y", // note "q"\n "b": 1} // end') == {"a": "http://x//y", "b": 1}


def test_a_trailing_comma_is_allowed_and_commas_in_strings_survive() -> None:
    assert loads('{"a": [1, 2,], "b": ",]", // last\n}') == {"a": [1, 2], "b": ",]"}


def test_a_key_that_stands_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        loads('{"a": 1, "a": 2}')
