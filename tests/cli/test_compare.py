"""`lorad compare A B`: one child scores both, numbers with intervals, answers side by side, a blind rating that goes on where it was left."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import comparison, rating
from cli.comparing import compare
from cli.comparison import Compared, Shown
from cli.main import lorad
from cli.rating import Choice, pairs_of, rate_pairs, read_choices
from cli.sides import Side
from core.commands import Answer
from core.config import Config
from core.errors import LoradError
from core.ratings import Rating, details_of, rating_of
from core.tasks import RankTask, ScoreModel, ScoreTask
from ranking.preferred import preference
from trainer.backends.stub import write_stub_adapter

ROW = '{"messages": [{"role": "user", "content": "What is number %d?"}, {"role": "assistant", "content": "It is the number %d, as you know."}]}\n'
Told = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, and two adapters that the stub has made of them."""
    folder = tmp_path_factory.mktemp("compare")
    rows, config = folder / "rows.jsonl", folder / "config.json"
    rows.write_text("".join(ROW % (n, n) for n in range(60)))
    config.write_text(json.dumps({"home": "home", "backend": "stub", "allow_stub": True}))
    for name, steps in (("short", 2), ("long", 60)):
        (folder / name).mkdir()
        write_stub_adapter(folder / name, Config(), steps)
    return folder


@pytest.fixture
def told(made: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Compare and give what it says as JSON."""
    monkeypatch.chdir(made)

    def run(*words: str) -> dict[str, Any]:
        result: Result = CliRunner().invoke(compare, [*words, "--config", "config.json", "--format", "json"], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return run


def test_two_adapters_are_compared_on_a_file_by_one_child_with_intervals(told: Told, made: Path) -> None:
    found = told("base", "long", "--on", "rows.jsonl", "--rows", "0")
    loss = found["measures"][0]
    assert (loss["measure"], loss["rows"], loss["says"]) == ("loss per token", 60, "B is better")
    assert loss["difference"]["low"] < loss["difference"]["mean"] < loss["difference"]["high"] < 0
    assert found["made_up"] is True
    changes = [row["after"] - row["before"] for row in found["rows"]]
    assert changes == sorted(changes, reverse=True), "the worst for B comes first"
    assert found["rows"][0]["question"].startswith("What is number")
    assert found["rows"][0]["wanted"].startswith("It is the number")


def test_asked_again_nothing_is_scored_again(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told("short", "long", "--on", "rows.jsonl", "--rows", "0")

    def never(*args: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr("cli.scoringchild.score", never)
    assert told("short", "long", "--on", "rows.jsonl", "--rows", "0") == first


def test_a_torn_result_of_an_earlier_comparison_is_made_anew(told: Told, made: Path) -> None:
    first = told("base", "short", "--on", "rows.jsonl", "--rows", "0")
    for path in made.glob("home/caches/compare/*/score/scores/*short*"):
        path.unlink()
    assert told("base", "short", "--on", "rows.jsonl", "--rows", "0") == first


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("base", "base", "--on", "rows.jsonl"), "SAME_MODEL"),
        (("base", "long"), "ROWS_UNNAMED"),
        (("base", "long", "--on", "none.jsonl"), "FILE_MISSING"),
        (("base", "job-1"), "JOB_UNKNOWN"),
        (("base", "default/main@v9"), "RELEASE_UNKNOWN"),
        (("base", "long", "--on", "suite:nobody"), "SUITE_UNKNOWN"),
        (("base", "long", "--on", "suite:json", "--rate"), "NOTHING_TO_RATE"),
        (("base", "long", "--on", "rows.jsonl", "--rows", "0", "--rate"), "NOTHING_TO_RATE"),
    ],
)
def test_what_cannot_be_compared_says_why(told: Told, words: tuple[str, ...], code: str) -> None:
    with pytest.raises(LoradError) as refused:
        told(*words)
    assert refused.value.code == code
    assert refused.value.hint


def test_it_is_told_as_text_too(told: Told, made: Path) -> None:
    done = CliRunner().invoke(lorad, ["compare", "base", "long", "--on", "rows.jsonl", "--rows", "2", "--config", "config.json"])
    assert done.exit_code == 0, done.output
    assert "made up by the stub backend" in done.stdout
    assert "2 of " in done.stdout
    assert "question  What is number" in done.stdout


def test_answers_stand_side_by_side_and_are_measured_by_what_the_rows_want(told: Told, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = comparison._scored

    def scored(home: Any, resolved: Any, task: ScoreTask, key: str) -> dict[str, str]:
        scores = before(home, resolved, task, key)
        assert task.answers == 8
        for model, words in (("base", "No idea."), (task.models[1].id, "It is the number %d, as you know.")):
            head, *lines = Path(scores[f"gate/{model}"]).read_text().splitlines()
            rows = [json.loads(line) for line in lines][:8]
            told = [{**{key: row[key] for key in ("drop", "line", "group")}, "answer": words.replace("%d", str(row["line"] - 1))} for row in rows]
            path = made / f"answers-{model}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in [json.loads(head) | {"split": "answers/gate"}, *told]))
            scores[f"answers/gate/{model}"] = str(path)
        return scores

    monkeypatch.setattr(comparison, "_scored", scored)
    found = told("base", "short", "--on", "rows.jsonl", "--rows", "8")
    assert not found["notes"]
    measures = {measure["measure"]: measure for measure in found["measures"]}
    assert (measures["exact_match"]["before"], measures["exact_match"]["after"]) == (0.0, 1.0)
    assert measures["exact_match"]["says"] == "B is better"
    assert measures["f1"]["rows"] == 8
    assert measures["loss per token"]["rows"] == 60
    assert len(found["rows"]) == 8, "only rows that both answered are shown"
    assert all(row["answers"][0] == "No idea." and row["answers"][1] == row["wanted"] for row in found["rows"])
    text = CliRunner().invoke(compare, ["base", "short", "--on", "rows.jsonl", "--rows", "8", "--config", "config.json"]).stdout
    assert "A         No idea." in text


def test_on_a_suite_the_items_that_got_worse_and_better_are_named(told: Told, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(home: Any, resolved: Any, task: ScoreTask, key: str) -> dict[str, str]:
        (suite,), found = task.suites, {}
        assert task.rows == ()
        for model, right in zip(task.models, (range(10), range(1, 40)), strict=True):
            about = {"name": suite.name, "sha256": suite.sha256, "items": 40, "generated": False}
            head = {"header": True, "model": model.id, "backend": "stub", "base_sha256": "b", "settings": {}, "made_up": True, "suite": about}
            items = [{"item": f"i{n}", "group": f"i{n}", "value": float(n in right)} for n in range(40)]
            path = made / f"suite-{model.id}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in [head, *items]))
            found[f"suite/{suite.name}/{model.id}"] = str(path)
        return found

    monkeypatch.setattr(comparison, "_scored", scored)
    found = told("base", "long", "--on", "suite:json")
    (measure,) = found["measures"]
    assert (measure["measure"], measure["rows"], measure["says"]) == ("suite json", 40, "B is better")
    assert measure["p"] < 1e-6
    assert (found["lost"], len(found["won"])) == (["i0"], 30)


# ---------------------------------------------------------------- rating


def rows(count: int) -> tuple[Shown, ...]:
    return tuple(
        Shown(drop="d", line=n, group=f"g{n}", before=1.0, after=1.0, question=f"question {n}", answers=(f"answer of A {n}", f"answer of B {n}"))
        for n in range(count)
    )


def keys(*pressed: str) -> Callable[[], str]:
    left: Iterator[str] = iter(pressed)
    return lambda: next(left)


def test_sides_and_order_are_drawn_and_nothing_on_the_screen_says_which_is_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = pairs_of(rows(40), "k", 0)
    assert pairs == pairs_of(rows(40), "k", 0)
    assert pairs != pairs_of(rows(40), "k", 1)
    assert 8 < sum(pair.swapped for pair in pairs) < 32
    assert [pair.question for pair in pairs] != [row.question for row in rows(40)]
    blind = [replace(pair, answers=("left out", "something else")) for pair in pairs]
    rate_pairs(blind, {}, tmp_path / "kept", keys(*"12" * 20))
    screen = capsys.readouterr().err
    assert not {"A", "B", "base", "loss"} & set(screen.split())


def test_a_key_means_the_model_and_not_the_side(tmp_path: Path) -> None:
    pairs = pairs_of(rows(12), "k", 0)
    always_b = ["1" if pair.swapped else "2" for pair in pairs]
    known: dict[str, Choice] = {}
    assert rate_pairs(pairs, known, tmp_path / "kept", keys("x", *always_b))
    assert set(known.values()) == {Choice.B}, "a key that means nothing is asked again"


def test_equal_answers_and_second_rows_of_a_conversation_are_no_pairs() -> None:
    first, second, third = rows(3)
    found = pairs_of([first, replace(second, group="g0"), replace(third, answers=("the same", "the same "))], "k", 0)
    assert [pair.question for pair in found] == ["question 0"]


def test_quitting_keeps_what_was_rated_and_no_text(tmp_path: Path) -> None:
    pairs, path = pairs_of(rows(6), "k", 0), tmp_path / "kept"
    assert not rate_pairs(pairs, {}, path, keys("1", "=", "s", "q"))
    with open(path, "a") as file:
        file.write('{"pair": "to')
    known = read_choices(path)
    assert len(known) == 3
    asked = keys("1", "1", "1")
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:3]))
    assert rate_pairs(pairs, known, path, asked)
    assert len(read_choices(path)) == 6
    assert "answer" not in path.read_text()
    assert "question" not in path.read_text()


def judged(made: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Compared:
    """A comparison of a held job's candidate with what is live, and a daemon that takes ratings."""
    task = RankTask(
        job="job-9", purpose="verdict", backend="stub", this_drop="d", candidates=(), incumbent="base", scores={}, settings={}, best="step_000030-abc"
    )
    live = Side(word="base", name="the base model", model=ScoreModel(id="base", adapter=None))
    candidate = Side(word="job-9", name="the candidate", model=ScoreModel(id="step_000030-abc", adapter="x"), job="job-9", judged=task)

    def ask(home: object, kind: str, **fields: Any) -> Answer:
        sent.append({"kind": kind, **fields})
        return Answer(command="c", ok=True, message="job job-9 is judged again")

    monkeypatch.setattr("cli.asking.ask", ask)
    return Compared(sides=(live, candidate), on="rows", measures=(), rows=rows(8))


def test_a_whole_rating_of_a_held_job_goes_to_the_daemon_and_a_part_of_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from store.paths import Home

    sent: list[dict[str, Any]] = []
    found = judged(tmp_path, sent, monkeypatch)
    pairs = pairs_of(found.rows, rating.session_key(found, 0), 0)
    always_b = ["1" if pair.swapped else "2" for pair in pairs]
    monkeypatch.setattr("click.getchar", keys(*always_b[:3], "q"))
    rating.rate(Home(tmp_path), found, 0, "text")
    assert sent == []
    assert "the same command goes on from here" in capsys.readouterr().out

    monkeypatch.setattr("click.getchar", keys(*always_b[3:]))
    rating.rate(Home(tmp_path), found, 0, "text")
    said = capsys.readouterr()
    assert "going on after 3 pairs" in said.err
    assert "B was preferred 8 times, A 0 times" in said.out
    assert "B is better" in said.out
    (command,) = sent
    assert (command["kind"], command["job"]) == ("rate", "job-9")
    assert {"better": "8", "worse": "0", "candidate": "step_000030-abc", "incumbent": "base"}.items() <= command["details"].items()
    assert not any("answer" in value or "question" in value for value in command["details"].values())


def test_the_sign_test_is_exact() -> None:
    found = preference(9, 1)
    assert found.p == pytest.approx(2 * 11 / 1024)
    assert found.is_better
    assert found.share.low == pytest.approx(0.555, abs=1e-3)
    assert not preference(6, 4).is_better
    assert preference(1, 9).is_worse
    assert (preference(0, 0).p, preference(0, 0).share.low, preference(0, 0).share.high) == (1.0, 0.0, 1.0)


def test_a_rating_travels_as_words_and_comes_back(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    sent = Rating(job="j", candidate="c", incumbent="base", better=3, worse=1, ties=2, skipped=0, pairs_sha256="a" * 64, seed=4, by="eve", at=at)
    assert rating_of("j", details_of(sent), "eve", at) == sent
    for spoilt in ({"better": "-1"}, {"better": "many"}, {"pairs_sha256": "../x"}, {"better": "0", "worse": "0", "ties": "0"}):
        with pytest.raises(ValueError, match=r"."):
            rating_of("j", details_of(sent) | spoilt, "eve", at)
