"""What `lorad curriculum` says: of a skill that has not begun, of one on its way, and over time."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.curriculum import drawn
from cli.main import lorad
from core.config import Config
from core.curriculum import Evaluation
from core.errors import StateError, UsageError
from core.learning import SkillConfig
from corpus.curriculum.progression import CurriculumManager
from corpus.curriculum.skills import skill_of
from store.paths import Home

NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)
URL = "http://127.0.0.1:1"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": "home", "skills": {"adding": {"url": URL, "up_evaluations": 2}}, "auto_generate": {"enabled": True}}))
    Home(tmp_path / "home").prepare()
    return path


@pytest.fixture
def manager(config: Path) -> CurriculumManager:
    """A course with a base of 10 %, then a release of 50 %, 90 % and 95 %: the level has moved up."""
    settings = Config(skills={"adding": SkillConfig(url=URL, up_evaluations=2)})
    manager = CurriculumManager(Home(config.parent / "home"), skill_of(settings, "adding"), NOW)
    manager.record(evaluation(0, 10), (1, 2))
    base = evaluation(1, 12, is_baseline=True)
    for number, right in enumerate((50, 90, 95), 1):
        manager.record(evaluation(number, right, release="r" * 64, version=1), (1, 2), base if number == 1 else None)
    return manager


def evaluation(hour: int, right: int, **more: Any) -> Evaluation:
    made = {"level": 1, "first_seed": 4, "last_seed": 4, "generator": "adder", "generator_version": "7", "base_sha256": "b", "loss": 1.25}
    return Evaluation(id=f"exam-{hour}", at=NOW + timedelta(hours=hour), skill="adding", rows=100, right=right, **(made | more))


def said(config: Path, *words: str) -> Result:
    return CliRunner().invoke(lorad, ["curriculum", *words, "--config", str(config)], standalone_mode=False)


def told(config: Path, *words: str) -> Any:
    result = said(config, *words, "--format", "json")
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def test_a_skill_that_has_not_begun_says_what_begins_it(config: Path) -> None:
    assert "adding: level 1 for skills/adding; not begun" in said(config, "status").stdout
    assert "nothing was evaluated of adding yet" in said(config, "plot", "adding").stdout
    assert told(config, "history", "adding") == []
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_generate": {"enabled": False}}))
    assert "auto_generate.enabled is false" in said(config, "status").stdout


def test_status_has_level_baseline_trouble_and_what_comes_next(config: Path, manager: CurriculumManager) -> None:
    manager.failed("TEACHER_DOWN", "the teacher cannot be reached", NOW, drawing=True)
    text = said(config, "status", "adding").stdout
    assert "adding: level 2 of 2 for skills/adding since 2026-01-06T15:00" in text
    assert "evaluations  none yet; up at 80% over 2, down below 30%" in text
    assert "TEACHER_DOWN: the teacher cannot be reached; tried again at 2026-01-06T12:01" in text
    assert "next         no daemon has run here yet" in text
    (row,) = told(config, "status", "adding")["skills"]
    assert (row["level"], row["baseline"], row["mastered"]) == (2, None, False)


def test_status_says_why_the_daemon_waits(config: Path, manager: CurriculumManager) -> None:
    status = {"live": {"skills/adding": {"release": "r" * 64}}, "schedule": {"paused": ""}, "queue": {"queued": 2}, "drops": {"gating": 1}}
    manager.record(evaluation(5, 40, release="r" * 64, version=1, level=2), (1, 2))
    (config.parent / "home" / "status.json").write_text(json.dumps(status))
    assert "next         wait: 3 jobs wait, rows are made below 1" in said(config, "status").stdout
    (config.parent / "home" / "status.json").write_text(json.dumps(status | {"schedule": {"paused": "paused by ann"}}))
    assert "next         wait: paused by ann" in said(config, "status").stdout


def test_history_and_plot_tell_the_same_story(config: Path, manager: CurriculumManager) -> None:
    lines = said(config, "history", "adding").stdout.splitlines()
    assert lines[0] == "2026-01-06 12:00  level 1  the base                 10 of 100 right, 10%, loss 1.250"
    assert lines[1].startswith("2026-01-06 13:00  level 1  the base, to compare")
    assert lines[-1] == "2026-01-06 15:00  level 1 -> 2: 92% right over 2 evaluations, 80% are wanted"
    points = told(config, "plot", "adding")
    assert [(point["accuracy"], point["baseline"]) for point in points] == [(0.1, 0.1), (0.5, 0.12), (0.9, 0.12), (0.95, 0.12)]
    picture = said(config, "plot", "adding").stdout.splitlines()
    assert picture[:2] == [" 100 % |   *", "  90 % |  *"]
    assert picture[9] == "  10 % |*---"
    assert picture[12] == " level  1111"


def test_a_plot_of_many_evaluations_shows_the_newest() -> None:
    point = {"accuracy": 0.5, "baseline": None, "level": 3, "at": NOW.isoformat()}
    assert drawn([point] * 5)[5] == "  50 % |*****"
    assert drawn([point] * 5)[12] == " level  33333"


def test_a_level_is_set_by_the_daemon_alone(config: Path) -> None:
    with pytest.raises(StateError, match="no daemon runs"):
        told(config, "set", "adding", "--level", "2")
    with pytest.raises(UsageError, match="no skill 'chess'"):
        told(config, "set", "chess", "--level", "2")


def test_rows_are_generated_at_the_level_of_the_course(config: Path, manager: CurriculumManager, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(home: Any, config: Any, skill: Any, order: Any, now: Any) -> Any:
        asked.append(order.level)
        raise UsageError("enough", hint="", code="ENOUGH")

    monkeypatch.setattr("corpus.curriculum.drawing.draw_into_inbox", refuse)
    for words in ((), ("--level", "1")):
        result = CliRunner().invoke(lorad, ["skills", "generate", "adding", "--count", "5", *words, "--config", str(config)], standalone_mode=False)
        assert isinstance(result.exception, UsageError)
    assert asked == [2, 1]
