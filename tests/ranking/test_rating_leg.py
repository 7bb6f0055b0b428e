"""A person's blind rating as a leg: what it decides, and that a missing, damaged or old one never promotes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.ratings import Rating, key_of
from ranking.evidence import LegResult
from ranking.rated import rating_legs
from ranking.scores import EvidenceError
from store import codec


@pytest.fixture
def rated(desk):
    """The leg on a job that was rated; None where there is none."""

    def judge(better=0, worse=0, *, asked=True, rule="superior", spoil=None, **changes):
        rules = replace(desk.rules, rating=asked, rule=rule)
        task = desk.task
        if better or worse or changes:
            made = {"job": task.job, "candidate": task.best, "incumbent": "base", "ties": 1, "pairs_sha256": "a" * 64, "seed": 0, "by": "ann"}
            path = desk.folder / "rating.json"
            codec.write(path, Rating(**made | {"better": better, "worse": worse, "at": datetime(2026, 1, 1, tzinfo=UTC)} | changes))
            if spoil == "torn":
                path.write_bytes(path.read_bytes()[:-9])
            elif spoil == "gone":
                path.unlink()
            task = replace(task, scores={key_of(task.best): str(path)})
        legs, files = rating_legs(task, rules)
        return (legs[0] if legs else None), files

    return judge


@pytest.mark.parametrize(
    ("better", "worse", "rule", "result"),
    [
        (12, 1, "superior", LegResult.PASSED),
        (7, 5, "superior", LegResult.UNPROVEN),
        (7, 5, "retained", LegResult.PASSED),
        (5, 7, "retained", LegResult.UNPROVEN),
        (1, 12, "superior", LegResult.REGRESSION),
        (1, 12, "retained", LegResult.REGRESSION),
    ],
)
def test_a_rating_that_config_asks_for_decides(desk, rated, better, worse, rule, result):
    leg, files = rated(better, worse, rule=rule)
    assert leg.result is result
    assert leg.comparison.after == better / (better + worse)
    assert "blind pairs" in leg.reason
    assert list(files) == [key_of(desk.candidate.id)]


def test_ties_alone_prove_nothing(rated):
    leg, _ = rated(0, 0, ties=9)
    assert (leg.result, leg.comparison) == (LegResult.UNPROVEN, None)


def test_without_a_rating_it_holds_where_config_asks_for_one_and_says_nothing_else(rated):
    leg, _ = rated()
    assert leg.result is LegResult.UNPROVEN
    assert "lorad compare base job-7 --rate" in leg.reason
    assert rated(asked=False) == (None, {})


def test_a_rating_that_config_does_not_ask_for_is_told_and_decides_nothing(rated):
    leg, _ = rated(1, 12, asked=False)
    assert leg.result is LegResult.SKIPPED
    assert leg.passed


@pytest.mark.parametrize("changes", [{"incumbent": "9a" * 32}, {"candidate": "step_000001-b"}])
def test_a_rating_against_something_else_holds(rated, changes):
    leg, _ = rated(12, 1, **changes)
    assert leg.result is LegResult.UNPROVEN
    assert "rate again" in leg.reason


@pytest.mark.parametrize("spoil", ["torn", "gone"])
def test_a_rating_that_is_not_whole_is_missing_evidence(rated, spoil):
    with pytest.raises(EvidenceError):
        rated(12, 1, spoil=spoil)
