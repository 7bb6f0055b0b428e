"""What an adapter gets wrong is gathered from signals, suites and evaluations; each weakness keeps its name; what is measured by is never taught."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lexicon import WordVectors
from said import ADAPTER, NOON, signal

import feedback.weaknesses
from core.errors import LockHeldError
from core.learning import FeedbackConfig
from core.signals import Signal
from core.tasks import ExitNote
from core.weaknesses import Failed, Failure, Taught, Weakness, Weaknesses, recognised
from core.wire import Manifest
from daemon.chores import work_of
from feedback.failures import of_signals, of_suites, question_of
from feedback.weaknesses import Search, find, template_lines, template_of, weaknesses_in
from store.codec import write
from store.feedback import Decision, Shelf
from store.holdings import holder
from store.paths import Home
from store.releases import Release
from store.weaknesses import all_weaknesses, finding, read_weaknesses, weaknesses_file, write_failed, write_weaknesses

SEARCH = Search(adapter=ADAPTER, embedder="", demand_consent=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(feedback.weaknesses, "Embedder", WordVectors)
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def parcels(count: int, **more: Any) -> list[Signal]:
    return [signal(f"When does parcel {n} arrive at our depot?", wrong="Soon.", right=f"On day {n}.", minute=n, **more) for n in range(count)]


def invoices(count: int, **more: Any) -> list[Signal]:
    return [signal(f"Which invoice has the amount {n} euros?", wrong="None.", kind="mistake", minute=n, **more) for n in range(count)]


def shelve(home: Home, *signals: Signal) -> Shelf:
    shelf = Shelf(home)
    shelf.add(signals, NOON, FeedbackConfig())
    return shelf


# ---------------------------------------------------------------- what counts as a failure


def test_mistakes_and_corrections_are_failures_and_proposals_are_not() -> None:
    said = [
        signal("A?", wrong="a", right="b"),
        signal("B?", wrong="a", kind="mistake", consent=False),
        signal("C?", right="c", kind="positive"),
        signal("D?", right="d", kind="import"),
        signal("E?", wrong="a", right="b", is_proposal=True),
        signal("", wrong="a", right="b", input=({"role": "assistant", "content": "hello"},)),
    ]
    found = list(of_signals(said, demand_consent=True))
    assert [(one.question, one.may_train) for one in found] == [("A?", True), ("B?", False)]
    assert [one.may_train for one in of_signals(said, demand_consent=False)] == [True, True]


def test_the_question_is_the_last_turn_of_the_user_also_in_parts() -> None:
    turns = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "last"}]}]
    assert question_of(turns) == "last"
    assert question_of([{"role": "user", "content": None}]) == ""


def ranked(home: Home, values: dict[str, float], *, made_up: bool = False, sha256: str = "") -> Release:
    """A release whose candidate was scored on a suite of one's own."""
    home.suites.mkdir(exist_ok=True)
    lines = [{"id": id, "prompt": f"Ask {id}?", "choices": ["yes", "no"], "right": 1} for id in values]
    (home.suites / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    import hashlib

    digest = sha256 or hashlib.sha256((home.suites / "mine.jsonl").read_bytes()).hexdigest()
    run = home.runs("job-1") / "03-score"
    (run / "scores").mkdir(parents=True)
    header = {"header": True, "model": "step-9", "made_up": made_up, "suite": {"name": "mine", "sha256": digest, "items": len(values), "generated": False}}
    rows = [{"item": id, "group": id, "value": value} for id, value in values.items()]
    (run / "scores" / "suite-mine-step-9.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (header, *rows)))
    write(run / "exit.json", ExitNote(code=0, ended_at=NOON, scores={"suite/mine/step-9": "scores/suite-mine-step-9.jsonl", "gate/step-9": "scores/x"}))
    folder = home.release(ADAPTER, 1)
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text(json.dumps({"candidate": "step-9"}))
    nothing: dict[str, Any] = dict.fromkeys(("base_sha256", "tokenizer_sha256", "template_sha256", "checkpoint_sha256", "verdict_sha256"), "0")
    manifest = Manifest(format=1, adapter=ADAPTER, version=1, backend="stub", parent=None, drops=(), created_at=NOON, files={}, job="job-1", **nothing)
    return Release(id="a" * 64, adapter=ADAPTER, version=1, folder=folder, manifest=manifest)


def test_items_that_the_live_release_failed_are_failures(home: Home) -> None:
    found = list(of_suites(home, ranked(home, {"one": 0.1, "two": 0.9}), home.suites))
    assert found == [Failure(ref="suite:mine/one", question="Ask one?", right="no")]
    assert not found[0].may_train


@pytest.mark.parametrize("more", [{"made_up": True}, {"sha256": "0" * 64}])
def test_results_that_prove_nothing_are_left_alone(home: Home, more: dict[str, Any]) -> None:
    """Made up by the stub, or of a suite that was changed since."""
    assert list(of_suites(home, ranked(home, {"one": 0.1}, **more), home.suites)) == []


def test_runs_and_suites_that_are_gone_or_torn_bring_no_failure_and_no_trouble(home: Home) -> None:
    release = ranked(home, {"one": 0.1})
    scores = home.runs("job-1") / "03-score" / "scores" / "suite-mine-step-9.jsonl"
    scores.write_bytes(scores.read_bytes()[:-20])
    assert list(of_suites(home, release, home.suites)) == []
    scores.unlink()
    assert list(of_suites(home, release, home.suites)) == []
    (release.folder / "verdict.json").write_text("{")
    assert list(of_suites(home, release, home.suites)) == []


# ---------------------------------------------------------------- weaknesses


def test_a_home_full_of_signals_has_named_weaknesses(home: Home) -> None:
    shelf = shelve(home, *parcels(5), *invoices(4), signal("Do you sell bread?", wrong="Yes.", right="No."))
    found = find(home, SEARCH, NOON)
    assert [(one.name, one.size, dict(one.origins)) for one in found.found] == [
        ("arrive-depot-parcel", 5, {"signal": 5}),
        ("amount-euros-invoice", 4, {"signal": 4}),
    ]
    assert (found.failures, found.alone) == (10, 1)
    assert found.found[0].pattern == "When does parcel <number> arrive at our depot?"
    assert read_weaknesses(home, ADAPTER) == found
    shelf.decide(Decision(id=invoices(1)[0].id, what="reject"), NOON)
    assert [one.size for one in find(home, SEARCH, NOON).found] == [5, 3], "a person said that it was none"


def test_a_weakness_keeps_its_name_and_lessons_while_its_failures_come_and_go(home: Home) -> None:
    shelve(home, *parcels(4))
    lesson = Taught(at=NOON, rows=9, file="x.jsonl")
    write_weaknesses(home, find(home, SEARCH, NOON).with_lesson("arrive-depot-parcel", lesson))
    others = [signal(f"Does parcel {n} arrive by ship at the depot or by train?", wrong="?", right="By train.", minute=50 + n) for n in range(5)]
    shelve(home, *others)
    found = find(home, SEARCH, NOON + timedelta(days=1))
    one = next(one for one in found.found if parcels(1)[0].id in one.refs[0] or any(parcels(1)[0].id in ref for ref in one.refs))
    assert (one.name, one.since, one.taught) == ("arrive-depot-parcel", NOON, (lesson,))


def weakness(name: str, *refs: str, **more: Any) -> Weakness:
    return Weakness(name=name, adapter=ADAPTER, size=len(refs), refs=refs, examples=(Failure(ref=refs[0], question="?"),), **more)


def test_names_are_kept_by_failures_and_never_stand_twice() -> None:
    before = [weakness("old", "a", "b", "c", since=NOON), weakness("gone", "x", "y", "z", since=NOON)]
    found = recognised([weakness("new", "a", "b", "d"), weakness("old", "p", "q", "r"), weakness("old", "s", "t", "u")], before)
    assert [one.name for one in found] == ["old", "old-2", "old-3"]
    assert [one.since for one in found] == [NOON, None, None]


def test_what_was_found_goes_with_the_caches_and_is_found_again(home: Home) -> None:
    shelve(home, *parcels(4))
    found = find(home, SEARCH, NOON)
    write_failed(home, Failed(skill="binary", level=1, rows=(("1 + 1?", "10", "2"),)))
    assert {path.name for path in holder(home, "caches").paths()} >= {"weaknesses", "exams"}, "a forgetting takes both"
    weaknesses_file(home, ADAPTER).write_text("{")
    assert read_weaknesses(home, ADAPTER) is None
    assert find(home, SEARCH, NOON) == found


def test_two_do_not_look_at_once(home: Home) -> None:
    with finding(home, ADAPTER), pytest.raises(LockHeldError):
        find(home, SEARCH, NOON)


def test_the_chore_does_what_the_daemon_asks_and_may_be_repeated(home: Home) -> None:
    shelve(home, *parcels(4))
    spec = {"adapter": ADAPTER, "embedder": "", "demand_consent": True, "skills": [], "now": NOON.isoformat()}
    for _ in range(2):
        assert work_of("weaknesses")(home, spec) == {"weaknesses": 1, "failures": 4, "message": f"{ADAPTER}: 1 kinds of failures"}
    assert [one.name for one in all_weaknesses(home) for one in one.found] == ["arrive-depot-parcel"]


def test_nothing_to_look_at_is_no_trouble(home: Home) -> None:
    assert find(home, SEARCH, NOON) == Weaknesses(adapter=ADAPTER, at=NOON, release="", failures=0, alone=0)


# ---------------------------------------------------------------- what is done about them


def failures(count: int, **more: Any) -> list[Failure]:
    return [Failure(ref=f"signal:{n}", question=f"What is {n} plus {n}?", may_train=True, **more) for n in range(count)]


def only(found: Sequence[Failure], *skills: str) -> Weakness:
    (one,) = weaknesses_in(found, WordVectors(), replace(SEARCH, skills=skills), NOON).found
    return one


def test_rows_of_an_evaluation_name_their_teacher_and_level(home: Home) -> None:
    rows = tuple((f"What is {n} plus {n} in binary?", str(n), "no") for n in range(4))
    write_failed(home, Failed(skill="binary", level=3, rows=rows))
    (one,) = find(home, replace(SEARCH, skills=("binary",)), NOON).found
    assert (one.skill, one.level, dict(one.origins)) == ("binary", 3, {"skill": 4})


def test_the_users_of_a_skills_adapter_are_taught_by_its_teacher() -> None:
    assert (only(failures(4), "binary").skill, only(failures(4), "binary").level) == ("binary", 0)
    assert only(failures(4), "binary", "syllo").skill == "", "which of the two is not known"
    suite = [replace(one, ref=f"suite:arithmetic/{n}") for n, one in enumerate(failures(4))]
    assert only(suite, "binary").skill == "", "a suite asks for other things than the skill"


def test_a_template_holds_what_users_agreed_to_and_no_item_of_a_suite() -> None:
    mixed = [
        *failures(2, right="it is so"),
        *(replace(one, ref=f"suite:mine/{n}", question=f"What is {n + 5} plus {n}?", may_train=False) for n, one in enumerate(failures(2))),
    ]
    rows = template_of(only(mixed))
    asked = [row["messages"][0]["content"] for row in rows]
    assert sorted(asked) == ["What is 0 plus 0?", "What is 1 plus 1?", "What is <number> plus <number>?"]
    assert [row["messages"][1]["content"] for row in rows][-1] == "", "to be filled in"
    assert len(template_lines(only(mixed)).splitlines()) == 3
