"""Whether an adapter got worse: what is proven is said, with since when and by how much; noise is not."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from core.trends import Against, Change, Counted, Regression, Score, Tally, difference, rate_interval, regressions, share_interval

START = datetime(2026, 1, 1, tzinfo=UTC)
ADAPTER = "default/main"


def days(release: str, first: int, counts: Sequence[tuple[float, float]], measure: str = "bad answers", counted: Counted = Counted.SHARE) -> list[Tally]:
    """One tally a day of a release, from day `first` on."""
    version = int(release.removeprefix("r"))
    return [
        Tally(
            since=START + timedelta(days=first + day),
            until=START + timedelta(days=first + day + 1),
            release=release,
            version=version,
            measure=measure,
            counted=counted,
            hits=hits,
            out_of=out_of,
        )
        for day, (hits, out_of) in enumerate(counts)
    ]


def score(version: int, value: float, change: Change | None, *, measure: str = "suite/arithmetic", higher: bool = True) -> Score:
    return Score(
        at=START + timedelta(days=version),
        release=f"r{version}",
        version=version,
        measure=measure,
        value=value,
        count=200,
        higher_is_better=higher,
        replaced=f"r{version - 1}" if version > 1 else "",
        change=change,
    )


def only(found: Sequence[Regression]) -> Regression:
    (one,) = found
    return one


def test_a_release_that_people_like_less_than_the_one_before_is_named() -> None:
    tallies = days("r1", 0, [(5, 100)] * 5) + days("r2", 5, [(20, 100)] * 2)
    found = only(regressions(ADAPTER, [], tallies, "r2"))
    assert (found.against, found.release, found.goes_back_to) == (Against.BEFORE, "r2", "r1")
    assert found.since == START + timedelta(days=5)
    assert (found.before, found.now) == (0.05, 0.2)
    assert 0.02 < found.low < found.worse_by < found.high
    assert "default/main@v2: bad answers is 0.2, the release before it 0.05: worse by 0.15" in found.sentence


def test_a_release_that_was_better_once_is_named_and_going_back_is_not_offered() -> None:
    tallies = days("r1", 0, [(5, 100)] * 10 + [(25, 100)] * 2)
    found = only(regressions(ADAPTER, [], tallies, "r1"))
    assert (found.against, found.goes_back_to) == (Against.BEGINNING, None)
    assert found.since == START + timedelta(days=10), "the beginning of the newest window"


def test_what_serves_no_more_is_not_accused() -> None:
    tallies = days("r1", 0, [(5, 100)] * 5) + days("r2", 5, [(50, 100)] * 2)
    assert regressions(ADAPTER, [], tallies, "r1") == ()
    assert regressions(ADAPTER, [], tallies, None) == ()


def test_a_rollback_is_not_compared_with_what_came_after_it() -> None:
    """r1 is live again: what it replaced this time is r2, but what it is measured against is what served before its first day."""
    tallies = days("r1", 0, [(20, 100)] * 5) + days("r2", 5, [(1, 100)] * 2) + days("r1", 7, [(20, 100)] * 2)
    assert regressions(ADAPTER, [], tallies, "r1") == ()


@pytest.mark.parametrize(
    ("before", "now"),
    [((5, 100), (8, 100)), ((0, 29), (29, 29)), ((5000, 100_000), (6000, 100_000)), ((20, 100), (5, 100))],
    ids=["within the noise", "too few answers", "proven, but smaller than what is tolerated", "better"],
)
def test_what_is_no_regression_is_not_told(before: tuple[float, float], now: tuple[float, float]) -> None:
    assert regressions(ADAPTER, [], days("r1", 0, [before]) + days("r2", 1, [now]), "r2") == ()


def test_incidents_are_counted_by_the_day() -> None:
    quiet = days("r1", 0, [(0, 1.0)] * 20, "incidents", Counted.RATE)
    assert regressions(ADAPTER, [], quiet + days("r2", 20, [(1, 1.0)], "incidents", Counted.RATE), "r2") == (), "one incident proves nothing"
    found = only(regressions(ADAPTER, [], quiet + days("r2", 20, [(8, 1.0)], "incidents", Counted.RATE), "r2"))
    assert (found.before, found.now, found.goes_back_to) == (0, 8, "r1")


def test_a_release_that_a_person_let_out_although_it_is_worse() -> None:
    scores = [score(1, 0.9, None), score(2, 0.8, Change(mean=-0.1, low=-0.15, high=-0.05))]
    found = only(regressions(ADAPTER, scores, [], "r2"))
    assert (found.against, found.before, found.now, found.goes_back_to) == (Against.BEFORE, 0.9, 0.8, "r1")
    assert (found.worse_by, found.low) == (0.1, 0.05)


def test_a_slide_in_steps_that_were_each_allowed() -> None:
    """Every step is within its margin, five of them are not."""
    step = Change(mean=0.015, low=-0.002, high=0.032)
    scores = [score(version, 1.0 + 0.015 * version, step if version > 1 else None, measure="loss", higher=False) for version in range(1, 8)]
    found = only(regressions(ADAPTER, scores, [], "r7"))
    assert (found.against, found.goes_back_to, found.since) == (Against.BEST, "r1", START + timedelta(days=2))
    assert found.worse_by == pytest.approx(0.09)
    assert found.low > 0
    assert found.before == pytest.approx(1.015)
    assert regressions(ADAPTER, scores[:3], [], "r3") == (), "two steps are not enough to be sure"


def test_a_step_up_ends_a_slide() -> None:
    step = Change(mean=0.015, low=-0.002, high=0.032)
    scores = [score(version, 1.0, step, measure="loss", higher=False) for version in range(1, 7)]
    scores.append(score(7, 0.9, Change(mean=-0.2, low=-0.22, high=-0.18), measure="loss", higher=False))
    assert regressions(ADAPTER, scores, [], "r7") == ()


def test_a_chain_that_goes_round_ends() -> None:
    scores = [score(1, 0.9, Change(mean=0.0, low=-0.1, high=0.1)), score(2, 0.9, Change(mean=0.0, low=-0.1, high=0.1))]
    looped = [Score(**{**{name: getattr(scores[0], name) for name in Score.__dataclass_fields__}, "replaced": "r2"}), scores[1]]
    assert regressions(ADAPTER, looped, [], "r2") == ()


def test_a_steady_adapter_is_left_alone_for_two_months() -> None:
    """A look a day for 60 days, 200 adapters with 8 % bad answers on 40 a day, the first 30 days by the release before."""
    rng, accused = Random(7), 0  # noqa: S311 - a simulation
    for _ in range(200):
        counts = [(float(sum(rng.random() < 0.08 for _ in range(40))), 40.0) for _ in range(60)]
        tallies = days("r1", 0, counts[:30]) + days("r2", 30, counts[30:])
        accused += any(regressions(ADAPTER, [], tallies[:day], "r1" if day <= 30 else "r2") for day in range(1, 61))
    assert accused <= 4, f"{accused} of 200 were accused of nothing"


def test_a_release_twice_as_bad_is_found_within_a_week() -> None:
    rng, found = Random(11), 0  # noqa: S311 - a simulation
    for _ in range(100):
        before = [(float(sum(rng.random() < 0.08 for _ in range(40))), 40.0) for _ in range(14)]
        after = [(float(sum(rng.random() < 0.24 for _ in range(40))), 40.0) for _ in range(7)]
        found += bool(regressions(ADAPTER, [], days("r1", 0, before) + days("r2", 14, after), "r2"))
    assert found >= 90


def test_intervals_agree_with_exact_ones() -> None:
    from scipy.stats import binomtest, chi2

    exact = binomtest(8, 100).proportion_ci(confidence_level=0.995, method="wilson")
    assert share_interval(8, 100) == pytest.approx((exact.low, exact.high), abs=1e-9)
    for hits in (0, 1, 4, 20):
        low, high = rate_interval(hits, 2.0)
        assert high == pytest.approx(chi2.ppf(0.9975, 2 * hits + 2) / 4, rel=0.03)
        assert low == pytest.approx(chi2.ppf(0.0025, 2 * hits) / 4 if hits else 0.0, abs=0.05)
    change = difference(Counted.SHARE, (5, 100), (20, 100))
    assert change.low < 0.15 < change.high
