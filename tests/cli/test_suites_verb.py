"""`lorad suites`: what there is, what is wrong with one's own, and a run without a daemon."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.suites import suites


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "var" / "suites").mkdir(parents=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": str(tmp_path / "var"), "backend": "stub", "ranking": {"suites": ["auto", "mine"]}}))
    line = {"id": "1", "prompt": "Which colour is snow?", "choices": ["White.", "Green."], "right": 0}
    (tmp_path / "var" / "suites" / "mine.jsonl").write_text(json.dumps(line) + "\n")
    return str(path)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(suites, list(words), standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value or 0, result.output


def test_the_list_marks_what_runs_and_tells_a_damaged_file(config: str) -> None:
    status, text = run("list", "--config", config)
    assert status == 0
    assert "* mine " in text
    assert "200 items by answers" in text
    Path(config).with_name("var").joinpath("suites", "torn.jsonl").write_text("{")
    status, text = run("list", "--config", config, "--format", "json")
    assert status == 2
    assert [row["name"] for row in json.loads(text) if "fault" in row] == ["torn"]


def test_a_suite_is_shown_with_its_right_choice(config: str) -> None:
    _, text = run("show", "mine", "--config", config)
    assert "* 'White.'" in text
    _, whole = run("show", "json", "--config", config, "--format", "json")
    assert len(json.loads(whole)["items"]) == 50


def test_a_run_gives_a_mean_and_keeps_nothing_made_up_as_if_it_were_real(config: str) -> None:
    _, text = run("run", "mine", "--config", config)
    assert "made up" in text
    _, whole = run("run", "mine", "--config", config, "--format", "json")
    assert [row["item"] for row in json.loads(whole)["items"]] == ["1"]
    assert not Path(config).with_name("var").joinpath("caches").exists()
