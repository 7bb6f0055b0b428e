"""`lorad metrics`: what answers can be measured by, and whether it runs here."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.metrics import metrics
from core.errors import ConfigError


def call(*words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(metrics, [*words, "--format", "json"], catch_exceptions=False, standalone_mode=False)
    return int(result.return_value or 0), json.loads(result.output)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    path = tmp_path / "config.json"
    path.write_text('{"home": "var", "models_dir": "models"}')
    return path


def test_the_list_names_every_metric_and_those_that_can_be_the_task_metric() -> None:
    status, found = call("list")
    by_name = {one["name"]: one for one in found}
    assert status == 0
    assert by_name["exact_match"]["can_be_task_metric"] is True
    assert by_name["length"]["can_be_task_metric"] is False
    assert by_name["bleu"]["library"] == "sacrebleu"
    text = CliRunner().invoke(metrics, ["list"]).output
    assert "* exact_match" in text
    assert "  perplexity" in text


def test_a_metric_says_whether_it_runs_here(config: Path) -> None:
    assert call("show", "f1")[0] == 0
    status, found = call("show", "relevance")
    assert (status, found["runs"], found["targets"]) == (2, False, {"persona": 0.85})
    assert "lorad models pull" in found["why_not"]
    status, found = call("show", "judge", "--config", str(config))
    assert (status, found["why_not"]) == (2, "no judge is named: set url and model in ranking.judge")
    text = CliRunner().invoke(metrics, ["show", "relevance"], standalone_mode=False)
    assert "target in the profile persona: 0.85" in text.output
    assert "does not run here" in text.output


def test_without_a_config_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    assert call("show", "judge")[0] == 2


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'blue'") as caught:
        call("show", "blue")
    assert "bleu" in caught.value.hint
