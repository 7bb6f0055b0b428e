"""A teacher that hangs, lies, repeats itself or answers HTML: nothing of it is believed, and nothing is dropped."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faulty_teacher import FaultyTeacher, adding, teaching

from core.config import Config
from core.errors import LockHeldError, UsageError
from core.learning import SkillConfig
from corpus.curriculum.client import SkillAPIClient, TeacherError
from corpus.curriculum.drawing import Order, draw, draw_into_inbox
from corpus.curriculum.skills import skill_of
from corpus.curriculum.wire import Question, Wish
from store.paths import Home
from store.skills import drawing, read_drawn

NOW = datetime(2026, 1, 6, tzinfo=UTC)
HTML = b"<!doctype html><title>Sign in</title>"


@pytest.fixture
def teacher() -> Iterator[FaultyTeacher]:
    with teaching() as teacher:
        yield teacher


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def client_of(teacher: FaultyTeacher, timeout_s: float = 10.0) -> SkillAPIClient:
    return SkillAPIClient(url=teacher.url, timeout_s=timeout_s, waits_s=(0.01, 0.01))


def drop(home: Home, teacher: FaultyTeacher, **wish: Any) -> Any:
    config = Config(skills={"adding": SkillConfig(url=teacher.url)})
    return draw_into_inbox(home, config, skill_of(config, "adding"), Order(**{"count": 40, "level": 1} | wish), NOW)


def refused(teacher: FaultyTeacher, home: Home, **wish: Any) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        drop(home, teacher, **wish)
    assert not (home.inbox / "skills").exists(), "nothing is dropped"
    assert read_drawn(home, "adding").levels == {}
    return caught.value


def test_rows_of_a_good_teacher_come_over_as_many_seeds_as_it_takes(teacher: FaultyTeacher) -> None:
    batch = draw(client_of(teacher), "adding", Order(count=120, level=2), 1)
    assert (len(batch.rows), batch.seeds, batch.left_out) == (120, (1, 2, 3), {"repeated": 0, "wrong": 0})
    made = {"skill": "adding", "generator": "adder", "version": "7", "level": 2}
    assert batch.rows[0]["metadata"] == {**made, "seed": 1}
    assert batch.rows[-1]["metadata"] == {**made, "seed": 3}
    assert batch.lineage == {**made, "first_seed": 1, "last_seed": 3}


def test_a_teacher_that_hangs_is_given_up(teacher: FaultyTeacher) -> None:
    teacher.spoil["/generate"] = lambda reply: (teacher.released.wait(30), reply)[1]
    with pytest.raises(TeacherError, match=r"no answer within 0\.2 s") as caught:
        client_of(teacher, 0.2).generate(Wish(1, 5, 0))
    assert (caught.value.code, teacher.asked["/generate"]) == ("TEACHER_DOWN", 3)


def test_a_teacher_that_is_not_there_is_named_with_what_to_do() -> None:
    with teaching() as gone:
        url = gone.url
    with pytest.raises(TeacherError, match="cannot be reached") as caught:
        SkillAPIClient(url=url, waits_s=()).health()
    assert (caught.value.code, "lorad skills serve" in caught.value.hint) == ("TEACHER_DOWN", True)


@pytest.mark.parametrize("path", ["/health", "/levels", "/generate", "/check"])
def test_a_page_of_html_is_no_reply(teacher: FaultyTeacher, home: Home, path: str) -> None:
    teacher.spoil[path] = lambda reply: HTML
    config = Config(skills={"adding": SkillConfig(url=teacher.url)})
    with pytest.raises(TeacherError, match="a page of HTML") as caught:
        draw(client_of(teacher), skill_of(config, "adding").name, Order(count=3, level=1), 0)
    assert (caught.value.code, teacher.asked[path]) == ("TEACHER_REPLY", 3)


def test_a_failure_in_passing_is_tried_again(teacher: FaultyTeacher) -> None:
    teacher.spoil["/health"] = lambda reply: (503, HTML) if teacher.asked["/health"] < 3 else reply
    assert client_of(teacher).health().generator == "adder"
    teacher.spoil["/levels"] = lambda reply: (422, {"error": {"message": "the year is wrong"}})
    with pytest.raises(TeacherError, match="HTTP 422 to /levels: 'the year is wrong'"):
        client_of(teacher).levels()
    assert teacher.asked["/levels"] == 1


def test_a_redirect_is_not_followed(teacher: FaultyTeacher) -> None:
    teacher.spoil["/health"] = lambda reply: (302, b"")
    with pytest.raises(TeacherError, match="HTTP 302"):
        client_of(teacher).health()
    assert "/elsewhere" not in teacher.asked


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/health", {"skill": "adding"}),
        ("/health", ["adding"]),
        ("/levels", {"levels": []}),
        ("/levels", {"levels": [{"level": 0, "title": "", "per_seed": 1, "seeds": 1}]}),
        ("/levels", {"levels": [{"level": 1, "title": "", "per_seed": 1, "seeds": 1}] * 2}),
        ("/generate", {"level": 1, "seed": 0, "rows": "none"}),
        ("/check", {"results": [{"right": "yes", "level": 1}]}),
        ("/check", {"results": []}),
    ],
)
def test_a_reply_of_another_shape_is_none(teacher: FaultyTeacher, path: str, reply: object) -> None:
    teacher.spoil[path] = lambda _: reply
    with pytest.raises(TeacherError) as caught:
        draw(client_of(teacher), "adding", Order(count=3, level=1), 0)
    assert caught.value.code == "TEACHER_REPLY"


# --- lies


@pytest.mark.parametrize(
    "lie",
    [
        lambda reply: reply | {"level": 2},
        lambda reply: reply | {"seed": 9},
        lambda reply: reply | {"rows": [adding(2, place) for place in range(40)]},
        lambda reply: reply | {"rows": reply["rows"][:-1]},
        lambda reply: reply | {"rows": [*reply["rows"][:-1], {"text": "buy"}]},
        lambda reply: reply | {"rows": [*reply["rows"][:-1], {"messages": [{"role": "user", "content": "and?"}]}]},
    ],
    ids=["level of the reply", "seed of the reply", "level of the rows", "too few", "no row of the schema", "no answer"],
)
def test_rows_that_are_not_what_was_asked_for_are_refused(teacher: FaultyTeacher, home: Home, lie: Any) -> None:
    teacher.spoil["/generate"] = lie
    assert refused(teacher, home).code == "TEACHER_ROWS"


def test_a_level_that_the_checker_sees_otherwise_is_a_lie(teacher: FaultyTeacher, home: Home) -> None:
    teacher.spoil["/check"] = lambda reply: {"results": [each | {"level": 2} for each in reply["results"]]}
    assert "its own checker puts at level 2" in refused(teacher, home).what


def test_the_same_example_for_ever_is_refused(teacher: FaultyTeacher, home: Home) -> None:
    teacher.spoil["/generate"] = lambda reply: reply | {"rows": [reply["rows"][0]] * len(reply["rows"])}
    assert "39 rows again" in refused(teacher, home).what


def test_the_same_rows_for_every_seed_are_refused_within_a_draw_and_between_draws(teacher: FaultyTeacher, home: Home) -> None:
    teacher.spoil["/generate"] = lambda reply: reply | {"rows": [adding(reply["level"], place) for place in range(len(reply["rows"]))]}
    assert "again" in refused(teacher, home, count=100).what
    drop(home, teacher)
    with pytest.raises(TeacherError, match="rows for seed 1 that it has sent for an earlier one"):
        drop(home, teacher)
    assert len(list((home.inbox / "skills" / "adding").glob("*.jsonl"))) == 1


def test_a_few_wrong_rows_are_left_out_and_many_are_refused(teacher: FaultyTeacher, home: Home) -> None:
    def wrong(count: int) -> Any:
        return lambda reply: {"results": [each | {"right": place >= count} for place, each in enumerate(reply["results"])]}

    teacher.spoil["/check"] = wrong(30)
    assert "30 that its own checker calls wrong" in refused(teacher, home).what
    teacher.spoil["/check"] = wrong(0)
    teacher.spoil["/generate"] = lambda reply: reply | {"rows": reply["rows"][:1] + reply["rows"][:-1]} if len(reply["rows"]) > 5 else reply
    batch, _ = drop(home, teacher)
    assert (len(batch.rows), batch.left_out, batch.seeds) == (40, {"repeated": 1, "wrong": 0}, (0, 1))


@pytest.mark.parametrize("health", [{"skill": "poker"}, {"schema_id": "preference_v1"}, {"schema_id": "mine_v1"}])
def test_the_teacher_of_another_skill_or_of_other_rows_is_refused(teacher: FaultyTeacher, home: Home, health: dict[str, str]) -> None:
    teacher.spoil["/health"] = lambda reply: reply | health
    assert refused(teacher, home).code == "TEACHER_REPLY"


# --- seeds


def test_seeds_go_on_where_the_last_draw_ended_and_come_again_only_by_force(teacher: FaultyTeacher, home: Home) -> None:
    assert drop(home, teacher, count=60)[0].seeds == (0, 1)
    assert drop(home, teacher, level=2)[0].seeds == (0,)
    assert drop(home, teacher)[0].seeds == (2,)
    with pytest.raises(UsageError) as caught:
        drop(home, teacher, seed=1)
    assert (caught.value.code, "--force" in caught.value.hint) == ("SEEDS_DRAWN", True)
    batch, dropped = drop(home, teacher, seed=1, again=True)
    assert batch.seeds == (1,)
    assert json.loads(dropped.path.with_suffix("").with_suffix(".job.json").read_text())["again"] is True
    assert read_drawn(home, "adding").level(1).next_seed == 3
    with pytest.raises(UsageError, match="4 seeds") as caught:
        drop(home, teacher, count=60)
    assert caught.value.code == "SKILL_EXHAUSTED"


def test_a_level_that_the_teacher_has_not_is_named(teacher: FaultyTeacher, home: Home) -> None:
    with pytest.raises(UsageError, match="has no level 3") as caught:
        drop(home, teacher, level=3)
    assert "1, 2" in caught.value.hint


def test_two_draws_of_one_skill_do_not_take_the_same_seeds(teacher: FaultyTeacher, home: Home) -> None:
    with drawing(home, "adding"), pytest.raises(LockHeldError):
        drop(home, teacher)
    drop(home, teacher)


def test_a_checker_gets_answers_in_portions(teacher: FaultyTeacher) -> None:
    row = adding(1, 1)
    results = client_of(teacher).check([Question(row, "It is 2."), Question(row, "no")] * 600)
    assert [result.right for result in results] == [True, False] * 600
    assert teacher.asked["/check"] == 2
