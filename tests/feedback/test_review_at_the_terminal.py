"""The review with keys, and a person's words on single signals. The daemon is played by the shelf itself."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from feedbackhome import home_with, want
from said import ADAPTER, NOON, signal

from cli.main import lorad
from cli.reviewing import _waiting, asked
from core.commands import Answer
from core.errors import StateError
from core.signals import Signal, SignalKind, Standing
from feedback.batch import chore_batch
from feedback.rows import LEAST_JUDGED
from store.feedback import Decision, Shelf
from store.signallog import signal_of

PROPOSAL = signal("Who?", wrong="Bob.", right="Alice.", is_proposal=True, confidence=0.6, source="detected")
SURE = signal("When?", wrong="Never.", right="At noon.", is_proposal=True, confidence=0.9, source="detected")
MISTAKE = signal("Why?", wrong="Nonsense.\nMore.", kind="mistake", context="the customer was cross")
DONE = signal("Where?", wrong="There.", right="Here.")

Lorad = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lorad:
    home = home_with(tmp_path / "var", [PROPOSAL, SURE, MISTAKE, DONE])
    config = tmp_path / "config.json"
    config.write_text("{}")

    def tell(place: Any, adapter: str = "", reason: str = "", **details: str) -> Answer:
        shelf = Shelf(home)
        if details["what"] == "add":
            said = signal_of(details["signal"].encode())
            assert said is not None
            shelf.add([said], NOON, shelf.limits)
            return Answer(command="c", ok=True, message=f"signal {said.id}", made=said.id)
        decision = Decision(id=details["id"], what=details["what"], actor="me", reason=reason, correct_output=details.get("correct_output", ""))
        return Answer(command="c", ok=True, message=shelf.decide(decision, NOON))

    monkeypatch.setattr("cli.signalling.tell", tell)
    monkeypatch.setattr("cli.asking.require_daemon", lambda home: None)

    def lorad_feedback(*words: str, keys: str = "") -> Result:
        return CliRunner().invoke(lorad, ["feedback", *words, "--config", str(config)], input=keys)

    return lorad_feedback


def standing(run: Lorad, one: Signal) -> str:
    rows = json.loads(run("list", "--format", "json").stdout)
    return next(row["standing"] for row in rows if row["id"] == one.id)


def test_the_surest_proposal_comes_first_with_all_that_a_person_has_to_know(run: Lorad) -> None:
    shown = run("review", keys="q").stderr
    assert "1 of 3" in shown
    assert "correction for acme/support from detected (human), proposed with confidence 0.90" in shown
    for line in ("question  When?", "answer    Never.", "right     At noon.", "a accept, e edit"):
        assert line in shown
    last = run("review", keys="ssq").stderr
    assert last.index("When?") < last.index("Who?")
    assert "context   the customer was cross" in last
    assert "a keep it as a bad answer" in last


def test_a_sitting_accepts_rejects_and_answers(run: Lorad) -> None:
    keys = {"When": "a", "Who": "r", "Why": "e\neBecause of the rain.\n"}  # an empty answer is asked for again
    order = re.findall(r"question  (When|Who|Why)", run("review", keys="sss").stderr)
    done = run("review", keys="".join(keys[word] for word in order))
    assert done.stdout.strip() == "1 accepted, 1 answered, 1 rejected"
    assert [standing(run, one) for one in (SURE, PROPOSAL, MISTAKE)] == [Standing.PENDING, Standing.REJECTED, Standing.PENDING]
    shown = json.loads(run("show", MISTAKE.id[:8], "--format", "json").stdout)
    assert (shown["correct_output"], shown["kind"], shown["wrong_output"]) == ("Because of the rain.", SignalKind.CORRECTION, "Nonsense.\nMore.")
    assert run("review").stdout.strip() == "nothing waits for you"


def test_quitting_keeps_what_was_decided_and_leaves_the_rest(run: Lorad) -> None:
    done = run("review", keys="aq")
    assert done.stdout.strip() == "1 accepted"
    assert standing(run, PROPOSAL) == Standing.REVIEW
    assert run("review", keys="").stdout.strip() == "nothing decided"


def test_other_keys_are_asked_again() -> None:
    keys = iter("xy\x1bs")
    assert asked(PROPOSAL, lambda: next(keys)) == ("skip", "")


def test_who_was_slower_than_another_is_told_and_goes_on(run: Lorad, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*place: Any, **details: str) -> Answer:
        raise StateError("signal is in batch b already", hint="", code="SIGNAL_QUEUED")

    monkeypatch.setattr("cli.signalling.tell", tell)
    done = run("review", keys="aas")
    assert done.stdout.strip() == "3 skipped"
    assert "in batch b already" in done.stderr


def test_a_secret_is_shown_neither_in_the_review_nor_in_a_list(run: Lorad) -> None:
    key = "AKIAIOSFODNN7EXAMPLQ"
    assert run("add", "--adapter", ADAPTER, "--question", f"Why does {key} fail?", "--answer", f"{key} is wrong").exit_code == 0
    told = run("review", keys="ssss").stderr + run("list").stdout
    id = next(row["id"] for row in json.loads(run("list", "--format", "json").stdout) if "fail" in row["question"])
    assert "fail?" in told
    assert key not in told + run("show", id).stdout


def test_one_signal_is_accepted_with_its_right_answer_by_the_beginning_of_its_id(run: Lorad) -> None:
    assert run("accept", MISTAKE.id[:9], "--right", "Because.").exit_code == 0
    assert standing(run, MISTAKE) == Standing.PENDING
    assert run("reject", DONE.id, "--reason", "a joke").exit_code == 0
    assert "because   a joke by me" in run("show", DONE.id).stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("accept", "ffffffffff"), "SIGNAL_UNKNOWN"),
        (("accept",), "SIGNAL_UNKNOWN"),
        (("accept", "--source", "api"), "SIGNAL_SYNTAX"),
        (("accept", "a", "b", "--right", "x"), "SIGNAL_SYNTAX"),
        (("add", "--question", "Who?", "--answer", "Bob.", "--right", "Alice.", "--good"), "SIGNAL_SYNTAX"),
        (("add", "--question", " ", "--answer", "Bob."), "SIGNAL_SYNTAX"),
        (("import", "nowhere.json"), "FILE_MISSING"),
    ],
)
def test_words_that_make_no_sense_are_refused_with_what_to_do(run: Lorad, words: tuple[str, ...], code: str) -> None:
    error = run(*words).exception
    assert getattr(error, "code", "") == code
    assert getattr(error, "hint", "")


def test_add_says_each_kind_in_words_or_by_asking(run: Lorad) -> None:
    assert run("add", "--adapter", ADAPTER, "--question", "A?", "--answer", "b", "--right", "c").exit_code == 0
    assert run("add", "--adapter", ADAPTER, "--question", "B?", "--answer", "b", "--good").exit_code == 0
    assert run("add", "--adapter", ADAPTER, keys="C?\nb\n\n").exit_code == 0
    rows = {row["question"]: row for row in json.loads(run("list", "--source", "terminal", "--format", "json").stdout)}
    assert {question: (row["kind"], row["standing"]) for question, row in rows.items()} == {
        "A?": ("correction", "pending"),
        "B?": ("positive", "pending"),
        "C?": ("mistake", "review"),
    }


def test_status_and_list_tell_what_waits_for_whom(run: Lorad) -> None:
    told = run("status").stdout
    assert "acme/support: 1 rows pending" in told
    assert "3 review" in told
    assert len(run("list", "--standing", "review").stdout.splitlines()) == 3
    assert run("list", "--limit", "1").stdout.count("\n") == 1
    assert run("list", "--source", "nobody").stdout.strip() == "no such signal"


def test_a_bad_answer_that_was_taught_still_asks_for_the_right_one_until_somebody_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [signal(f"Why {number}?", wrong=f"Nonsense {number}", kind="mistake", minute=number) for number in range(LEAST_JUDGED)]
    good = [signal(f"How {number}?", right=f"Sense {number}", kind="positive", minute=number) for number in range(LEAST_JUDGED)]
    home = home_with(tmp_path / "var", [*bad, *good])
    chore_batch(home, want(home))
    shelf = Shelf(home)
    assert not list(shelf.signals(ADAPTER, Standing.REVIEW))
    assert len(list(_waiting(shelf, None, Standing.REVIEW))) == LEAST_JUDGED
    shelf.decide(Decision(id=bad[3].id, what="edit", correct_output="Because of the rain."), NOON)
    assert bad[3].id not in {one.id for _, one in _waiting(Shelf(home), ADAPTER, Standing.REVIEW)}
    assert len(list(_waiting(Shelf(home), ADAPTER, Standing.REVIEW))) == LEAST_JUDGED - 1
