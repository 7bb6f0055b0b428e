"""The table of faults: what counts as held, and that a recipe that cannot fail does not."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults import CannotRun, Fault, Outcome, Trial, main, run, table


def fault_of(recipe, without: tuple[str, ...] = ()) -> Fault:  # type: ignore[no-untyped-def]
    return Fault(id="F99", what="something breaks", guard="a belt", without=without, recipe=recipe)


def guarded_well(trial: Trial) -> Outcome:
    return Outcome(held=trial.guarded, figure={"lost": 0 if trial.guarded else 3})


def test_a_fault_is_held_where_the_guard_holds_and_its_absence_is_seen() -> None:
    result = run(fault_of(guarded_well))
    assert (result.state, result.figure) == ("held", {"lost": 0})


def test_a_recipe_that_finds_nothing_wrong_without_the_guard_proves_nothing() -> None:
    result = run(fault_of(lambda trial: Outcome(held=True, figure=0)))
    assert result.state == "failed"
    assert "without its guard too (a belt)" in result.note


def test_what_a_machine_lacks_is_told_and_is_never_held(capsys: pytest.CaptureFixture[str]) -> None:
    def lacks(trial: Trial) -> Outcome:
        raise CannotRun("no root here")

    assert main("", "json", {"F99": fault_of(lacks)}) == 0
    assert json.loads(capsys.readouterr().out) == {"F99": {"held": False, "figure": None, "note": "not run: no root here"}}


def test_a_recipe_that_breaks_is_not_held_and_the_next_has_its_turn(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(trial: Trial) -> Outcome:
        raise AssertionError("never ready")

    assert main("", "table", {"F98": fault_of(breaks), "F99": fault_of(guarded_well)}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "what", "held", "figure", "note"]
    assert ["NO" in lines[1], "yes" in lines[2], "lost 0" in lines[2]] == [True, True, True]


def test_the_exit_status_says_whether_a_fault_did_harm() -> None:
    assert main("F99", "json", {"F99": fault_of(guarded_well)}) == 0
    assert main("F99", "json", {"F99": fault_of(lambda trial: Outcome(held=False, figure=1))}) == 1
    assert main("F77", "json", {"F99": fault_of(guarded_well)}) == 2


def test_every_guard_that_a_recipe_names_can_be_taken_away() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "faults" / "unguarded"))
    try:
        import guards
    finally:
        sys.path.pop(0)
    named = {name for one in table().values() for name in one.without}
    assert named <= guards.GUARDS.keys()
    for name, takers in guards.GUARDS.items():
        for module in takers:
            __import__(module)
            assert callable(takers[module]), name


def test_the_catalogue_of_crashes_and_intake_has_its_recipes() -> None:
    assert {"F01", "F02", "F05", "F06", "F07", "F08", "F09", "F10", "F18"} <= table().keys()
