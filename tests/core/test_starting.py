"""Where a training starts: base or incumbent."""

from dataclasses import replace

import pytest

from core.recipe import StartFrom
from core.starting import FAR_MORE, MUCH_HISTORY, Incumbent, choose_start

LIVE = Incumbent(release="r" * 64, base_sha256="base", drops=frozenset({"old-1", "old-2"}))
ROWS = {"old-1": MUCH_HISTORY, "old-2": 500, "new": 300}


def test_much_history_is_not_repeated_for_a_few_new_rows() -> None:
    start = choose_start("auto", LIVE, "base", ROWS)
    assert start.release == LIVE.release
    assert start.learnt == {"old-1", "old-2"}
    assert "300 are new" in start.why


@pytest.mark.parametrize("rows", [ROWS | {"old-1": MUCH_HISTORY - 501}, ROWS | {"new": MUCH_HISTORY // FAR_MORE + 51}])
def test_little_history_is_trained_on_anew(rows: dict[str, int]) -> None:
    assert choose_start("auto", LIVE, "base", rows).release is None


def test_a_person_may_ask_for_either() -> None:
    assert choose_start("base", LIVE, "base", ROWS).release is None
    assert choose_start("incumbent", LIVE, "base", {"old-1": 5, "old-2": 5, "new": 5}).release == LIVE.release


@pytest.mark.parametrize("wanted", ["auto", "incumbent"])
def test_a_change_of_base_retrains_on_all_history(wanted: StartFrom) -> None:
    start = choose_start(wanted, LIVE, "another base", ROWS)
    assert (start.release, start.learnt) == (None, frozenset())
    assert "another" in start.why


@pytest.mark.parametrize("wanted", ["auto", "incumbent"])
def test_an_adapter_that_learnt_from_a_drop_set_aside_is_no_start(wanted: StartFrom) -> None:
    rows = {drop: count for drop, count in ROWS.items() if drop != "old-2"}
    start = choose_start(wanted, LIVE, "base", rows)
    assert start.release is None
    assert "set aside" in start.why


def test_without_a_live_adapter_or_with_a_made_up_one_the_base_is_the_start() -> None:
    assert choose_start("incumbent", None, "base", ROWS).release is None
    assert choose_start("incumbent", replace(LIVE, made_up=True), "base", ROWS).release is None


def test_a_retry_on_drops_that_are_all_learnt_starts_from_the_base() -> None:
    assert choose_start("incumbent", LIVE, "base", {"old-1": 5, "old-2": 5}).release is None
