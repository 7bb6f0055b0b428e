"""What signals say reaches the series, the metrics and the facts, once, over restarts; and a release that users like less goes back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from filled_index import index_of
from test_performance import ADAPTER, live, pack, release_id

from cli.history import history
from core.learning import FeedbackConfig
from core.signals import Signal, SignalKind
from core.trends import CORRECTION_RATE, USER_SATISFACTION
from daemon import clock
from daemon.index import Index
from daemon.opinions import Opinions
from daemon.performance import OPINIONS_EVERY_S, Performance
from store.feedback import Decision, Shelf
from store.performance import performance_of

NOW = datetime(2026, 3, 10, tzinfo=UTC)  # as in test_performance
LIMITS = FeedbackConfig(user_cap=0)


def said(first: int, bad: int, good: int, version: int, hours_ago: float) -> list[Signal]:
    """Ratings of answers of a release."""
    kinds = [SignalKind.MISTAKE] * bad + [SignalKind.POSITIVE] * good
    persona, domain = ADAPTER.split("/")
    at = NOW - timedelta(hours=hours_ago)
    return [
        Signal(id=f"s{first + n}", kind=kind, persona=persona, domain=domain, input=({"role": "user", "content": f"{first + n}?"},), wrong_output="so",
               at=at, release=release_id(version), response=f"r{first + n}", source="api", consent=True)
        for n, kind in enumerate(kinds)
    ]  # fmt: skip


class Watched:
    """A daemon's view, with a clock that the test sets."""

    def __init__(self, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = Shelf(index.home)
        self.performance = Performance(index, opinions=Opinions(self.shelf, NOW))
        self._s = 1000.0
        monkeypatch.setattr(clock, "monotonic_s", lambda: self._s)
        self.performance.look(NOW)

    def hears(self, signals: Sequence[Signal]) -> None:
        self.shelf.add(signals, NOW, LIMITS)

    def looks_later(self) -> Performance:
        self._s += OPINIONS_EVERY_S
        self.performance.look(NOW)
        return self.performance


def counted(index: Index) -> dict[tuple[str, int], tuple[float, float]]:
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for one in performance_of(index.home, ADAPTER).tallies:
        hits, out_of = found.get((one.measure, one.version), (0, 0))
        found[one.measure, one.version] = (hits + one.hits, out_of + one.out_of)
    return found


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = index_of(tmp_path)
    for version, days_ago in ((1, 9), (2, 1)):
        pack(made, version)
        live(made, version, days_ago)
    return made


def test_ratings_are_counted_once_whatever_restarts(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Watched(index, monkeypatch)
    first.hears(said(0, 2, 8, version=2, hours_ago=3))
    performance = first.looks_later()
    assert counted(index) == {(USER_SATISFACTION, 2): (2, 10), (CORRECTION_RATE, 2): (2, 10)}
    shown = {one.name: one.value for one in performance.measures}
    assert (shown["adapter_user_satisfaction"], shown["adapter_user_satisfaction_answers"]) == (0.8, 10)
    first.hears(said(10, 1, 0, version=2, hours_ago=3))  # and the daemon is killed before it looks
    again = Watched(index, monkeypatch)
    again.hears(said(0, 2, 8, version=2, hours_ago=3))  # the pull is repeated
    again.looks_later()
    assert counted(index)[USER_SATISFACTION, 2] == (3, 11)
    lines = index.home.performance(ADAPTER).read_text().splitlines()
    again.looks_later()
    assert index.home.performance(ADAPTER).read_text().splitlines() == lines, "nothing new, nothing written"


def test_a_person_who_rejects_a_signal_takes_its_word_back(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(index, monkeypatch)
    watched.hears(said(0, 4, 6, version=2, hours_ago=1))
    watched.shelf.decide(Decision(id="s0", what="reject"), NOW)
    watched.looks_later()
    assert counted(index)[USER_SATISFACTION, 2] == (3, 9)


def test_proposals_and_what_was_over_a_cap_count_once_they_may(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(index, monkeypatch)
    first, second, third = said(0, 3, 0, version=2, hours_ago=1)
    proposed = replace(first, is_proposal=True, kind=SignalKind.CORRECTION, correct_output="this")
    watched.shelf.add([proposed, replace(second, user="u"), replace(third, user="u")], NOW, FeedbackConfig(user_cap=1))
    watched.looks_later()
    assert counted(index)[CORRECTION_RATE, 2] == (1, 1)
    watched.shelf.decide(Decision(id=proposed.id, what="accept"), NOW)
    watched.looks_later()
    assert counted(index)[CORRECTION_RATE, 2] == (2, 2)
    watched.shelf.tend(NOW + timedelta(days=1))
    watched.looks_later()
    assert counted(index)[CORRECTION_RATE, 2] == (3, 3)
    index.home.performance(ADAPTER).unlink()
    again = Watched(index, monkeypatch)
    again.looks_later()
    assert counted(index)[CORRECTION_RATE, 2] == (3, 3), "a start knows all that from the shelf"


def test_a_release_that_users_like_less_is_in_the_facts_that_take_it_back(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(index, monkeypatch)
    watched.hears([*said(0, 10, 190, version=1, hours_ago=100), *said(1000, 80, 120, version=2, hours_ago=5)])
    found = {one.measure: one for one in watched.looks_later().regressions}
    assert found[USER_SATISFACTION].goes_back_to == release_id(1)
    assert found[USER_SATISFACTION].counted
    assert found[CORRECTION_RATE].goes_back_to is None


def test_users_who_liked_the_base_better_get_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(tmp_path)
    pack(index, 1)
    live(index, 1, 1)
    watched = Watched(index, monkeypatch)
    watched.hears([*(replace(one, release="base") for one in said(0, 10, 90, version=1, hours_ago=30)), *said(1000, 50, 50, version=1, hours_ago=2)])
    found = {one.measure: one for one in watched.looks_later().regressions}
    assert found[USER_SATISFACTION].goes_back_to == "", "the base"


def test_ratings_of_a_release_that_is_long_gone_are_counted_for_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(index, monkeypatch)
    watched.hears(said(0, 1, 1, version=1, hours_ago=2))
    watched.looks_later()
    assert counted(index)[USER_SATISFACTION, 1] == (1, 2)


def test_history_tells_how_satisfied_users_were(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(index, monkeypatch)
    watched.hears([*said(0, 2, 8, version=2, hours_ago=3), *said(100, 1, 3, version=1, hours_ago=30)])
    watched.looks_later()
    told = CliRunner().invoke(history, [ADAPTER, "--config", str(index.home.root.parent / "config.json")]).output
    assert "  v2    user_satisfaction  8 of 10 (0.8)" in told
    assert "  v1    correction_rate  1 of 4 (0.25)" in told
