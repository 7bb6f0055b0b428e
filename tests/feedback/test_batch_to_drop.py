"""A batch becomes exactly one drop of each schema, whatever dies on the way."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from feedbackhome import WISH, home_with, want
from said import ADAPTER, corrections, signal

from core.signals import SignalKind, Standing
from feedback import batch
from feedback.batch import MOST_OF_A_BATCH, batches_of, chore_batch, queued
from feedback.rows import LEAST_JUDGED
from store.drops import MAX_SIDECAR_BYTES
from store.feedback import Shelf


class Died(BaseException):
    """The child was killed here."""


def drops(home: Any) -> dict[str, list[dict[str, Any]]]:
    """The data files in the inbox, by name."""
    return {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted((home.inbox / ADAPTER).glob("*.jsonl"))}


def test_pending_signals_become_one_drop_that_names_each_of_them(tmp_path: Path) -> None:
    said = corrections(30)
    home = home_with(tmp_path, said)
    done = chore_batch(home, want(home))
    assert done == {"batches": [f"{WISH}-sft"], "rows": 30, "left_out": 0}
    (name,) = drops(home)
    sidecar = json.loads((home.inbox / ADAPTER / name.replace(".jsonl", ".job.json")).read_text())
    assert sidecar["lineage"] == {"made_by": "feedback", "batch": f"{WISH}-sft", "trigger": "enough", "signals": sorted(one.id for one in said)}
    assert sidecar["schema_id"] == "correction_v1"
    assert sidecar["level"] == "deep"
    assert "source" not in sidecar
    (made,) = batches_of(home, ADAPTER)
    assert [row["id"] for row in drops(home)[name]] == sorted(made.rows, key=lambda id: made.rows[id])


def test_what_the_chore_has_made_is_queued_and_a_later_batch_takes_only_what_is_new(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(20))
    chore_batch(home, want(home))
    shelf = Shelf(home)
    assert shelf.counts()[ADAPTER].rows == 0
    new = corrections(3, start=100)
    shelf.add(new, new[0].at, shelf.limits)
    chore_batch(home, want(home, "batch-later"))
    assert {row["id"] for row in drops(home)["feedback-batch-later-sft.jsonl"]} == {one.id for one in new}


def test_every_death_of_the_chore_ends_in_exactly_one_drop_of_each_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [signal(f"Why {number}?", wrong=f"Nonsense {number}", kind="mistake", minute=number) for number in range(LEAST_JUDGED)]
    good = [signal(f"How {number}?", right=f"Sense {number}", kind="positive", minute=number) for number in range(LEAST_JUDGED)]
    said = [*corrections(5), *bad, *good]
    plain = home_with(tmp_path / "plain", said)
    chore_batch(plain, want(plain))
    expected = drops(plain)
    assert [len(rows) for rows in expected.values()] == [2 * LEAST_JUDGED, 5]
    calls = _counting(monkeypatch)
    for fatal in range(1, 40):
        home = home_with(tmp_path / str(fatal), said)
        spec = want(home)
        calls["left"] = fatal
        try:
            chore_batch(home, spec)
            died = False
        except Died:
            died = True
        calls["left"] = -1
        assert all((home.inbox / ADAPTER / name.replace(".jsonl", ".job.json")).exists() for name in drops(home)), "the sidecar comes first"
        taken = {name: (home.inbox / ADAPTER / name).rename(tmp_path / f"{fatal}-{name}") for name in drops(home)}  # the daemon claims at once
        chore_batch(home, spec)
        chore_batch(home, spec)
        now = drops(home)
        assert not set(now) & set(taken)
        assert {**{name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in taken.items()}, **now} == expected
        if not died:
            assert fatal > 8
            return
    raise AssertionError("the chore has no end")


def _counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let the chore die at its n-th write, sync or rename, before or after it."""
    calls = {"left": -1}
    for owner, name in ((batch, "replace_file"), (batch, "sync_dir"), (os, "rename")):
        real = getattr(owner, name)

        def step(*args: Any, _real: Any = real, **words: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Died
            found = _real(*args, **words)
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Died
            return found

        monkeypatch.setattr(owner, name, step)
    return calls


def test_signals_that_make_no_row_leave_the_pending_ones_all_the_same(tmp_path: Path) -> None:
    said = signal("Who?", wrong="Alice", right="Alice ")
    home = home_with(tmp_path, [said])
    assert chore_batch(home, want(home))["rows"] == 0
    assert not drops(home)
    assert Shelf(home).counts()[ADAPTER].rows == 0


def test_a_bad_answer_in_the_review_is_taught_once(tmp_path: Path) -> None:
    bad = [signal(f"Why {number}?", wrong=f"Nonsense {number}", kind="mistake", minute=number) for number in range(LEAST_JUDGED)]
    good = [signal(f"How {number}?", right=f"Sense {number}", kind="positive", minute=number) for number in range(2 * LEAST_JUDGED)]
    home = home_with(tmp_path, [*bad, *good[:LEAST_JUDGED]])
    assert {one.kind for one in Shelf(home).signals(ADAPTER, Standing.REVIEW)} == {SignalKind.MISTAKE}
    chore_batch(home, want(home))
    shelf = Shelf(home)
    shelf.add(good[LEAST_JUDGED:], good[0].at, shelf.limits)
    chore_batch(home, want(home, "batch-later"))
    assert sorted(drops(home)) == [f"feedback-{WISH}-judged.jsonl", "feedback-batch-later-sft.jsonl"]


def test_what_nobody_agreed_to_takes_no_place_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_OF_A_BATCH", 3)
    silent = [signal(f"Silent {number}?", right="x", consent=False, minute=-number) for number in range(5)]
    home = home_with(tmp_path, [*silent, *corrections(5)])
    assert chore_batch(home, want(home))["rows"] == 3
    assert chore_batch(home, want(home, "batch-later"))["rows"] == 2
    assert Shelf(home).counts()[ADAPTER].pending == 5


def test_the_config_says_how_deep_the_gate_looks_where_it_says_anything(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(2))
    values = json.loads(home.config_in_force.read_text())
    values["validation"]["levels"] = {ADAPTER: "quick"}
    home.config_in_force.write_text(json.dumps(values))
    chore_batch(home, want(home))
    (sidecar,) = (home.inbox / ADAPTER).glob("*.job.json")
    assert "level" not in json.loads(sidecar.read_text())


def test_the_ids_of_the_largest_batch_fit_into_a_sidecar() -> None:
    assert MOST_OF_A_BATCH * len(json.dumps(["0" * 32], indent=1)) < MAX_SIDECAR_BYTES


def test_the_files_of_a_batch_are_the_owners_alone(tmp_path: Path) -> None:
    home = home_with(tmp_path, corrections(2))
    chore_batch(home, want(home))
    assert (queued(home, ADAPTER) / f"{WISH}-sft.jsonl").stat().st_mode & 0o077 == 0
