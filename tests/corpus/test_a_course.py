"""A course over restarts, rows that are held for evaluations, and the drops that the loop makes by itself."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty_teacher import FaultyTeacher, adding, teaching

from core.config import Config
from core.curriculum import Evaluation, Move, learnt
from core.errors import IntegrityError, UsageError
from core.learning import SkillConfig
from core.tasks import RowsOf
from corpus.curriculum.client import SkillAPIClient, TeacherError
from corpus.curriculum.drawing import Order, draw, draw_held, draw_into_inbox, held_seeds
from corpus.curriculum.generation import DataManager, chore_draw, chore_exam, chore_marks
from corpus.curriculum.progression import CurriculumManager
from corpus.curriculum.services import running
from corpus.curriculum.skills import TEACHERS, skill_of
from corpus.curriculum.teachers.port import PER_SEED
from corpus.curriculum.wire import LevelOffer
from rendering.rows import read_rows
from store.curriculum import add_history, course_history, read_course, write_course
from store.paths import Home
from store.skills import read_drawn
from store.weaknesses import read_failed
from validation import DataValidator

NOW = datetime(2026, 1, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def teacher() -> Iterator[FaultyTeacher]:
    with teaching() as teacher:
        yield teacher


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def config_of(teacher: FaultyTeacher, **auto: Any) -> Config:
    return Config(skills={"adding": SkillConfig(url=teacher.url)}, auto_generate={"enabled": True, "evaluate_rows": 40, **auto})  # type: ignore[arg-type]


def data(home: Home, teacher: FaultyTeacher, **auto: Any) -> DataManager:
    config = config_of(teacher, **auto)
    return DataManager(home=home, config=config, skill=skill_of(config, "adding"))


def manager_of(home: Home, level: int = 1, adapter: str = "") -> CurriculumManager:
    config = Config(skills={"adding": SkillConfig(url="http://127.0.0.1:1", level=level, adapter=adapter)})
    return CurriculumManager(home, skill_of(config, "adding"), NOW)


def evaluation(number: int, right: int, level: int, **more: Any) -> Evaluation:
    at = NOW + number * HOUR
    made = {"first_seed": 4, "last_seed": 4, "generator": "adder", "generator_version": "7", "base_sha256": "b"}
    return Evaluation(id=f"exam-{number}", at=at, skill="adding", level=level, rows=100, right=right, **(made | more))


# --- the course


def test_a_course_that_is_restarted_again_and_again_is_the_same_course(home: Home) -> None:
    rng, manager = random.Random(1), manager_of(home)  # noqa: S311 - a simulation
    course, moves = manager.course, list[Move]()
    for number in range(100):
        one = evaluation(number, rng.choice((10, 40, 85, 95) if number < 60 else (0, 10, 20, 85)), course.level)
        before, course = course, learnt(course, one, manager.skill.settings, (1, 2, 3))
        manager = manager_of(home) if rng.random() < 0.2 else manager
        move = manager.record(one, (1, 2, 3))
        assert manager.course == course
        assert move == (course.moved if course.moved != before.moved else None)
        moves += [move] if move is not None else []
    assert {move.after - move.before for move in moves} == {1, -1}
    assert [entry for entry in manager.history() if isinstance(entry, Move)] == moves
    assert sum(isinstance(entry, Evaluation) for entry in manager_of(home).history()) == 100


def test_a_history_whose_last_lines_a_crash_lost_is_completed_once(home: Home) -> None:
    manager = manager_of(home)
    manager.record(evaluation(0, 90, 1), (1, 2))
    manager.record(evaluation(1, 90, 1), (1, 2))
    lines = home.course_history("adding").read_text().splitlines(keepends=True)
    home.course_history("adding").write_text(lines[0] + lines[1][:40])  # the second is torn
    for _ in range(2):
        assert [entry.id for entry in manager_of(home).history() if isinstance(entry, Evaluation)] == ["exam-0", "exam-1"]


def test_a_level_set_by_a_person_begins_a_new_count_and_stays_over_a_restart(home: Home) -> None:
    manager = manager_of(home, level=2)
    manager.record(evaluation(0, 90, 2), (1, 2, 3))
    manager.failed("TEACHER_DOWN", "hangs", NOW, drawing=True)
    manager.set_level(3, "ann", NOW + HOUR)
    course = manager_of(home, level=1).course
    assert (course.level, course.evaluations, course.draw_trouble) == (3, (), None)
    assert course.moved == Move(at=NOW + HOUR, skill="adding", before=2, after=3, why="set by ann")


def test_a_skill_that_another_adapter_learns_begins_anew(home: Home) -> None:
    manager = manager_of(home)
    for number in range(3):
        manager.record(evaluation(number, 90, 1), (1, 2))
    assert manager.course.level == 2
    other = manager_of(home, adapter="games/sums")
    other.follow(other.skill, NOW + 9 * HOUR)
    assert (other.course.adapter, other.course.level, other.course.evaluations) == ("games/sums", 1, ())


def test_a_damaged_course_is_named_and_not_begun_anew(home: Home) -> None:
    manager_of(home).record(evaluation(0, 90, 1), (1, 2))
    home.course("adding").write_text("{")
    with pytest.raises(IntegrityError, match=r"adding\.json"):
        manager_of(home)


def test_the_baseline_is_the_first_measure_of_the_base_until_base_or_teacher_change(home: Home) -> None:
    manager = manager_of(home)
    first, again, changed = (evaluation(number, right, 1, **more) for number, right, more in ((0, 10, {}), (1, 20, {}), (2, 30, {"generator_version": "8"})))
    for one in (first, again):
        manager.record(one, (1, 2), one)
    assert manager.course.baselines == {1: first}
    manager.record(changed, (1, 2), changed)
    assert manager.course.baselines == {1: changed}


def test_the_base_beside_a_release_is_kept_as_the_baseline_and_counted_by_no_rule(home: Home) -> None:
    manager = manager_of(home)
    base = evaluation(0, 5, 1, is_baseline=True)
    manager.record(evaluation(0, 50, 1, release="r1", version=1), (1, 2), base)
    assert manager.course.baselines == {1: base}
    assert [one.right for one in manager.course.evaluations] == [50]
    assert read_course(home, "adding") == manager.course
    write_course(home, manager.course)
    add_history(home, "adding", [base])
    assert len(course_history(home, "adding")) == 2, "a line that stands twice is shown once"


# --- rows that nobody trains on


@pytest.mark.parametrize(("seeds", "held"), [(129, range(113, 129)), (8, range(7, 8)), (5, range(4, 5)), (2, range(1, 2)), (1, range(1, 1))])
def test_the_last_eighth_of_the_seeds_is_held(seeds: int, held: range) -> None:
    assert held_seeds(LevelOffer(1, "", 50, seeds)) == held


def test_no_draw_takes_a_held_seed_also_not_by_force(teacher: FaultyTeacher, home: Home) -> None:
    config = config_of(teacher)
    skill = skill_of(config, "adding")
    for order in (Order(count=10, level=1, seed=4), Order(count=10, level=1, seed=4, again=True), Order(count=201, level=1)):
        with pytest.raises(UsageError) as caught:
            draw_into_inbox(home, config, skill, order, NOW)
        assert caught.value.code == "SKILL_EXHAUSTED"
    assert not (home.inbox / "skills").exists()
    batch, _ = draw_into_inbox(home, config, skill, Order(count=200, level=1), NOW)
    assert batch.seeds == (0, 1, 2, 3)


def test_evaluations_go_round_the_held_seeds(teacher: FaultyTeacher) -> None:
    client = SkillAPIClient(url=teacher.url)
    teacher.spoil["/levels"] = lambda reply: {"levels": [each | {"seeds": 24} for each in reply["levels"]]}
    assert [draw_held(client, "adding", Order(count=40, level=1), turn).seeds for turn in range(4)] == [(21,), (22,), (23,), (21,)]
    assert [draw_held(client, "adding", Order(count=80, level=1), turn).seeds for turn in range(2)] == [(21, 22), (23, 21)]
    assert len(draw_held(client, "adding", Order(count=500, level=1), 0).rows) == 150, "all that there are"
    teacher.spoil["/levels"] = lambda reply: {"levels": [each | {"seeds": 1} for each in reply["levels"]]}
    with pytest.raises(UsageError, match="nobody trains on"):
        draw_held(client, "adding", Order(count=40, level=1), 0)


@pytest.mark.parametrize("name", TEACHERS)
def test_the_held_rows_of_the_teachers_that_ship_are_none_of_those_that_are_trained_on(name: str) -> None:
    """Every seed is numbered; the questions of two seeds are different. So no row of a held seed is ever trained on."""
    teacher = TEACHERS[name]
    for level in teacher.levels:
        held = held_seeds(LevelOffer(level.level, level.title, PER_SEED, level.num_seeds))
        assert 0 < len(held) <= level.num_seeds / 8
        assert held.stop == level.num_seeds


def test_a_teacher_that_has_sent_the_held_rows_for_training_is_found_out(teacher: FaultyTeacher, home: Home) -> None:
    manager = data(home, teacher)
    manager.drop_mix(1, 40, 1.0, NOW)
    first = [adding(1, place) for place in range(40)]  # those of seed 0, whatever is asked for
    teacher.spoil["/generate"] = lambda reply: reply | {"rows": first}
    with pytest.raises(TeacherError, match="rows for seed 4 that it has sent for an earlier one"):
        manager.set_exam(home.tmp / "exam", 1, 0)
    assert not (home.tmp / "exam").exists()


# --- evaluations


def examined(home: Home, teacher: FaultyTeacher) -> tuple[DataManager, Path, dict[str, Any]]:
    manager = data(home, teacher)
    folder = home.tmp / "exam" / "rows"
    return manager, folder, manager.set_exam(folder, 2, 0)


def answers(path: Path, said: dict[int, str]) -> Path:
    lines = [json.dumps({"header": True}), *(json.dumps({"line": line, "answer": answer}) for line, answer in said.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_rows_of_an_evaluation_are_read_by_a_trainer_child_as_those_of_a_drop(teacher: FaultyTeacher, home: Home) -> None:
    _, folder, told = examined(home, teacher)
    assert {key: told[key] for key in ("rows", "schema_id", "generator", "version", "first_seed", "last_seed", "levels")} == {
        "rows": 40,
        "schema_id": "chat_sft_v1",
        "generator": "adder",
        "version": "7",
        "first_seed": 4,
        "last_seed": 4,
        "levels": [1, 2],
    }
    rows = read_rows([RowsOf(drop="exam", sha256=told["sha256"], folder=str(folder), schema_id=told["schema_id"])])
    assert [row.messages[0].content for row in rows][:2] == ["What is 200 and 2?", "What is 201 and 2?"]
    assert {row.split for row in rows} == {"gate"}
    assert len({row.group for row in rows}) == 40
    assert told["max_new_tokens"] >= len("It is 241.") * 1.5, "room for a right answer in other words"
    assert read_drawn(home, "adding").levels == {}, "nothing is counted as drawn"


def test_the_teacher_marks_each_answer_and_one_that_is_missing_is_wrong(teacher: FaultyTeacher, home: Home) -> None:
    manager, folder, _ = examined(home, teacher)
    right = {line: f"It is {200 + line - 1 + 2}." for line in range(1, 11)}
    assert manager.mark(folder, answers(home.tmp / "answers.jsonl", right | {11: "It is 7.", 12: ""})) == 10


def test_a_checker_that_calls_everything_right_is_not_believed(teacher: FaultyTeacher, home: Home) -> None:
    manager, folder, _ = examined(home, teacher)
    teacher.spoil["/check"] = lambda reply: {"results": [each | {"right": True} for each in reply["results"]]}
    with pytest.raises(TeacherError, match="calls an empty answer right"):
        manager.mark(folder, answers(home.tmp / "answers.jsonl", {1: "no"}))


# --- drops that the loop makes


def test_a_drop_of_the_loop_has_the_mix_and_says_where_each_row_comes_from(teacher: FaultyTeacher, home: Home) -> None:
    batches, dropped = data(home, teacher).drop_mix(2, 60, 0.5, NOW)
    assert [(batch.level, len(batch.rows)) for batch in batches] == [(2, 30), (1, 30)]
    sidecar = json.loads(dropped.path.with_suffix("").with_suffix(".job.json").read_text())
    draws = [{"level": level, "first_seed": 0, "last_seed": 0, "rows": 30} for level in (2, 1)]
    made = {"skill": "adding", "generator": "adder", "version": "7", "level": 2, "first_seed": 0, "last_seed": 0}
    assert sidecar["lineage"] == {"made_by": "curriculum", **made, "draws": draws}
    rows = [json.loads(line) for line in dropped.path.read_text().splitlines()]
    assert [sum(row["metadata"]["level"] == level for row in rows) for level in (1, 2)] == [30, 30]
    assert [read_drawn(home, "adding").level(level).next_seed for level in (1, 2)] == [1, 1]


def test_a_level_below_whose_rows_are_all_drawn_is_left_out_and_the_level_itself_is_not(teacher: FaultyTeacher, home: Home) -> None:
    manager = data(home, teacher)
    manager.drop_mix(1, 200, 1.0, NOW)
    batches, _ = manager.drop_mix(2, 60, 0.5, NOW)
    assert [batch.level for batch in batches] == [2]
    with pytest.raises(UsageError, match="4 seeds"):
        manager.drop_mix(1, 10, 1.0, NOW)


def test_the_chores_go_by_the_config_in_force(teacher: FaultyTeacher, home: Home) -> None:
    home.config_in_force.write_text(json.dumps(config_of(teacher, count=30).model_dump(mode="json") | {"home": str(home.root)}))
    told = chore_draw(home, {"skill": "adding", "level": 1, "now": NOW.isoformat()})
    assert told == {"file": "adding-level-1-seed-0.jsonl", "rows": 30, "levels": {"1": 30}}
    folder, run = home.tmp / "exam-1" / "rows", home.tmp / "exam-1" / "score"
    assert chore_exam(home, {"skill": "adding", "level": 1, "turn": 3, "folder": str(folder)})["rows"] == 40
    run.mkdir()
    answers(run / "a.jsonl", {1: "It is 201."})
    (run / "s.jsonl").write_text('{"header": true}\n{"loss": 6.0, "tokens": 3}\n{"loss": 2.0, "tokens": 1}\n')
    spec = {"skill": "adding", "folder": str(folder), "run": str(run), "models": ["base"], "scores": {"gate/base": "s.jsonl", "answers/gate/base": "a.jsonl"}}
    assert chore_marks(home, spec) == {"base": {"right": 1, "loss": 2.0}}
    failed = read_failed(home, "adding")
    assert failed is not None
    assert (failed.level, len(failed.rows)) == (1, 39), "what was wrong is kept for those who look for weaknesses"
    assert failed.rows[-1] == ("What is 239 and 1?", "It is 240.", "")


def test_a_draw_for_the_bench_or_a_lesson_is_still_one_of_consecutive_seeds(teacher: FaultyTeacher) -> None:
    assert draw(SkillAPIClient(url=teacher.url), "adding", Order(count=60, level=1), 0).seeds == (0, 1)


def test_a_mixed_drop_of_a_teacher_that_ships_passes_the_gate_at_its_deepest(home: Home) -> None:
    with running([TEACHERS["binary"]], {"binary": ("127.0.0.1", 0)}) as urls:
        config = Config(skills={"binary": SkillConfig(url=urls["binary"])})
        _, dropped = DataManager(home=home, config=config, skill=skill_of(config, "binary")).drop_mix(3, 150, 0.6, NOW)
    report = DataValidator().check_file(dropped.path, "chat_sft_v1", "DEEP")
    assert report.verdict == "accepted", report.to_text()
    levels = [json.loads(line)["metadata"]["level"] for line in dropped.path.read_text().splitlines()]
    assert [levels.count(level) for level in (3, 2, 1)] == [90, 30, 30]
