"""What `lorad iteration` and `lorad continuous` say: of a round under way, of one that waits for a person, of a loop that was stopped."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.main import lorad
from core.errors import StateError, UsageError
from core.iterations import Criterion, Flag, Iteration, State, Weight, begun, moved_to, step, with_part
from core.iterations import Event as E
from core.records import Claim, Drop, DropState, Settling
from store.iterations import Continuous, Stop, write_continuous, write_iteration
from store.paths import Home

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
LINEAGE = {"made_by": "feedback", "trigger": "enough", "signals": ["a", "b"]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": "home"}))
    Home(tmp_path / "home").prepare()
    return path


def made(config: Path, number: int, adapter: str = "a/main") -> Iteration:
    """An iteration whose file was taken in."""
    drop = f"drop-20261122-12000{number}-000-abcdef"
    claim = Claim(drop=drop, adapter=adapter, source="x", device=1, inode=1, size_bytes=1, mtime_ns=1, file="x.jsonl", claimed_at=AT)
    one = begun(Drop(claim=claim, state=DropState.SETTLING, facts=Settling(since=AT)), LINEAGE, AT)
    return kept(config, one)


def kept(config: Path, one: Iteration) -> Iteration:
    write_iteration(Home(config.parent / "home"), one)
    return one


def said(config: Path, *words: str) -> Result:
    return CliRunner().invoke(lorad, [*words, "--config", str(config)], standalone_mode=False)


def told(config: Path, *words: str) -> Any:
    result = said(config, *words, "--format", "json")
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def test_nothing_is_told_of_a_home_without_a_loop(config: Path) -> None:
    assert "no iteration" in said(config, "iteration", "list").stdout
    assert "each runs by itself" in said(config, "continuous", "status").stdout


def test_a_round_shows_every_stage_with_its_flag_its_count_and_what_was_missed(config: Path) -> None:
    one = moved_to(replace(made(config, 1), job="job-7"), State.TRAIN, AT)
    missed = Criterion(name="missing values", value=2, bound=0, met=False)
    slow = Criterion(name="use of cpu", value=0.9, bound=0.8, met=False, weight=Weight.WARNS)
    unknown = Criterion(name="perplexity", bound=30, why="no loss was measured on the gate split")
    one = with_part(one, State.GATE, flag=Flag.PAUSED, done=90, total=92, unit="rows", criteria=(missed, slow, unknown))
    kept(
        config, replace(with_part(one, State.TRAIN, done=3, total=8, unit="steps", flag=Flag.PAUSED), pause="missing values is 2, at most 0", waits="a person")
    )
    page = said(config, "iteration", "show", "job-7").stdout
    for words in (
        "train (4 of 8), paused; waits for a person",
        "by trigger 'enough', 2 signals",
        "! gate       paused  90 of 92 rows",
        "- missing values is 2, at most 0\n",
        "- use of cpu is 0.9, at most 0.8; only a warning",
        "? perplexity: not measured (no loss was measured on the gate split)",
        "! train      paused  3 of 8 steps",
        "· verdict",
        f"`lorad iteration continue {one.id}`",
    ):
        assert words in page
    plain = told(config, "iteration", "show", one.id)
    assert (plain["stage"], plain["of"], plain["stages"]["gate"]["criteria"][0]["met"]) == (4, 8, False)


def test_the_list_tells_the_newest_and_those_that_are_open(config: Path) -> None:
    for number in range(3):
        made(config, number)
    kept(config, step(moved_to(made(config, 3, "b/tone"), State.GATE, AT), E.FAIL, AT + timedelta(days=30), "the gate refused the drop: D07 secret, line 3"))
    assert [one["id"][-13:-11] for one in told(config, "iteration", "list", "--limit", "2")] == ["02", "03"]
    assert [one["adapter"] for one in told(config, "iteration", "list", "--open")] == ["a/main"] * 3
    assert [one["state"] for one in told(config, "iteration", "list", "--adapter", "b/tone")] == ["failed"]
    assert "failed: the gate refused the drop: D07 secret, line 3" in said(config, "iteration", "list").stdout


def test_without_a_name_the_newest_is_shown(config: Path) -> None:
    with pytest.raises(UsageError, match="there is no iteration yet"):
        told(config, "iteration", "show")
    made(config, 1)
    newest = made(config, 2)
    assert told(config, "iteration", "show")["id"] == newest.id


def test_an_unknown_or_ambiguous_name_is_refused(config: Path) -> None:
    made(config, 1)
    made(config, 2)
    for name, words in (("nothing", "no iteration 'nothing'"), ("20261122", "'20261122' is the beginning of 2 iterations")):
        with pytest.raises(UsageError, match=words):
            told(config, "iteration", "show", name)


def test_a_word_needs_the_daemon(config: Path) -> None:
    one = made(config, 1)
    for words in (("iteration", "continue", one.id), ("iteration", "stop", one.id), ("continuous", "stop", "--persona", "a")):
        with pytest.raises(StateError, match="no daemon runs"):
            told(config, *words)


def test_the_status_of_the_loop_names_who_stopped_it_what_is_open_and_how_the_last_one_ended(config: Path) -> None:
    one = kept(config, step(moved_to(made(config, 1), State.LIVE, AT), E.ROLL_BACK, AT, "error share is 0.2, at most 0.01"))
    made(config, 2)
    write_continuous(Home(config.parent / "home"), Continuous(stopped={"b/tone": Stop(at=AT, actor="ann", reason="audit")}))
    text = said(config, "continuous", "status").stdout
    assert "b/tone                   stopped by ann, 2026-11-22T12:00Z: audit; 0 rows pending" in text
    assert f"last: {one.id}  rolled back: error share is 0.2, at most 0.01" in text
    (row,) = told(config, "continuous", "status", "--persona", "a")
    assert (row["runs"], [len(row["open"]), row["last"]["id"]]) == (True, [1, one.id])
