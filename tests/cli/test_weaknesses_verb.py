"""`lorad weaknesses`: a person sees what goes wrong, asks the skill's teacher for more of the kind, or takes a template."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import lorad
from core.errors import LoradError, UsageError
from core.weaknesses import Failure, Weakness, Weaknesses
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS
from store.paths import Home
from store.weaknesses import read_weaknesses, write_weaknesses

NOW = datetime(2026, 3, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running([TEACHERS["binary"]], {"binary": ("127.0.0.1", 0)}) as urls:
        yield urls["binary"]


@pytest.fixture
def config(url: str, tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": "home", "models_dir": "models", "skills": {"binary": {"url": url, "level": 2}}}))
    home = Home(tmp_path / "home")
    home.prepare()
    for adapter, skill in (("skills/binary", "binary"), ("acme/support", "")):
        told = Failure(ref="signal:1", question="What is 3 plus 4?", right="7", wrong="8", may_train=True)
        untold = Failure(ref="suite:arithmetic/001", question="What is 5 plus 4?", right="9")
        one = Weakness(name="plus-what", adapter=adapter, size=2, refs=("signal:1", "suite:arithmetic/001"), examples=(told, untold), skill=skill,
                       origins={"signal": 1, "suite": 1}, pattern="What is <number> plus <number>?", since=NOW)  # fmt: skip
        write_weaknesses(home, Weaknesses(adapter=adapter, at=NOW, release="", failures=5, alone=3, found=(one,)))
    return path


def said(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(lorad, ["weaknesses", *words, "--config", str(config)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def told(config: Path, *words: str) -> Any:
    return json.loads(said(config, *words, "--format", "json").stdout)


def test_the_list_says_how_many_of_which_kind(config: Path) -> None:
    shown = said(config, "list").stdout
    assert "acme/support: 1 kinds in 5 failures, 3 alone; 2026-03-10 00:00" in shown
    assert "plus-what" in shown
    assert "1 signal, 1 suite" in shown
    assert [one["adapter"] for one in told(config, "list", "acme/support")] == ["acme/support"]


def test_one_is_shown_with_examples_and_what_can_be_done(config: Path) -> None:
    shown = said(config, "show", "skills/binary:plus-what").stdout
    assert "asked  What is 3 plus 4?" in shown
    assert "right  7" in shown
    assert "next: lorad weaknesses teach plus-what: rows of binary, from its teacher" in shown


def test_the_teacher_is_asked_for_more_of_the_kind_and_the_lesson_is_remembered(config: Path) -> None:
    lesson = told(config, "teach", "skills/binary:plus-what", "--count", "12")
    assert (lesson["skill"], lesson["level"], lesson["rows"]) == ("binary", 2, 12)
    assert len(Path(lesson["file"]).read_text().splitlines()) == 12
    assert Path(lesson["file"]).parent == config.parent / "home" / "inbox" / "skills" / "binary"
    again = told(config, "teach", "skills/binary:plus-what", "--count", "12")
    assert Path(again["file"]).read_text() != Path(lesson["file"]).read_text(), "other rows each time"
    found = read_weaknesses(Home(config.parent / "home"), "skills/binary")
    assert found is not None
    assert [one.rows for one in found.found[0].taught] == [12, 12]
    assert "taught" in said(config, "show", "skills/binary:plus-what").stdout


def test_without_a_teacher_a_person_gets_a_template(config: Path, tmp_path: Path) -> None:
    printed = [json.loads(line) for line in said(config, "teach", "acme/support:plus-what").stdout.splitlines()]
    assert [[turn["content"] for turn in row["messages"]] for row in printed] == [["What is 3 plus 4?", "7"], ["What is <number> plus <number>?", ""]]
    out = tmp_path / "lesson.jsonl"
    assert f"lorad drop {out} --adapter acme/support" in said(config, "teach", "acme/support:plus-what", "--out", str(out)).stdout
    assert [json.loads(line) for line in out.read_text().splitlines()] == printed


def test_a_name_of_nobody_or_of_two_is_told(config: Path) -> None:
    with pytest.raises(UsageError) as nobody:
        said(config, "show", "minus")
    assert nobody.value.hint == "known: plus-what"
    with pytest.raises(UsageError) as two:
        said(config, "show", "plus-what")
    assert two.value.hint == "name one of acme/support:plus-what, skills/binary:plus-what"


def test_without_the_sentence_model_looking_says_how_to_get_it(config: Path) -> None:
    with pytest.raises(LoradError) as missing:
        said(config, "list", "--again")
    assert (missing.value.code, missing.value.hint) == ("SENTENCE_MODEL_MISSING", "`lorad models pull all-minilm-l6-v2`")
