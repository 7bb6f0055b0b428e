"""What the guard decides, over recorded series."""

from datetime import UTC, datetime
from typing import Any

import pytest

from core.guarding import Asked, Phase, Ruling, Series, first_phase, is_canary, is_rubbish, is_sampled, is_unusable, percentile, rehearsed, rule
from core.wire import Trial, TrialResult, Watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WATCH = Watch(window_s=600, min_requests=20, max_error_share=0.05, max_latency_ratio=2.0, max_negative_share=0.2)


def asked(requests: int = 32, *, errors: int = 0, broken: int = 0, ms: float = 50.0, seconds: float = 8.0) -> Asked:
    return Asked(requests=requests, errors=errors, broken=broken, first_ms=(ms,) * (requests - errors), seconds=seconds)


def users(answers: int, errors: int = 0, **more: Any) -> Series:
    return Series(answers=answers - errors, errors=errors, **more)


# ---------------------------------------------------------------- the rehearsal


def trial(**criteria: Any) -> TrialResult:
    new, live = criteria.pop("new", asked()), criteria.pop("live", asked())
    return rehearsed(Trial(id="t", alias="a/main", **criteria), "f" * 64, NOW, new, live)


def test_a_rehearsal_that_meets_its_criteria_passes_with_its_numbers() -> None:
    result = trial()
    assert (result.passed, result.reasons, result.requests, result.errors) == (True, (), 32, 0)
    assert (result.latency_ms, result.live_latency_ms, result.requests_s) == (50.0, 50.0, 4.0)


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        ({"new": asked(errors=1)}, "1 of 32 answers failed (0 of them unusable), 1.0% may"),
        ({"new": asked(broken=3)}, "3 of 32 answers failed (3 of them unusable)"),
        ({"max_latency_ms": 40}, "50 ms to the first token at the 95th percentile, 40 are allowed"),
        ({"min_requests_s": 5}, "4.00 answers a second, 5.00 are asked for"),
        ({"new": asked(ms=120)}, "the live release 50 ms: 2.4 times, 2.0 are allowed"),
    ],
)
def test_a_missed_criterion_is_named_with_its_numbers(criteria: dict[str, Any], says: str) -> None:
    result = trial(**criteria)
    assert not result.passed
    (reason,) = result.reasons
    assert says in reason


def test_a_latency_that_nobody_feels_is_no_reason() -> None:
    assert trial(new=asked(ms=12), live=asked(ms=2)).passed


def test_without_a_live_side_there_is_no_ratio() -> None:
    assert trial(new=asked(ms=900), live=Asked()).passed


@pytest.mark.parametrize(
    ("text", "unusable"),
    [
        ("", True),
        (" \n ", True),
        ("the the the the the the the the the the the the", True),
        ("\ufffd\ufffd\ufffd ok", True),
        ("No.", False),
        ("ja ja ja", False),
        ("Grüße aus Köln, 東京, and 🎉 to you all of you out there in the world", False),
    ],
)
def test_what_nobody_could_use(text: str, unusable: bool) -> None:
    assert is_unusable(text) is unusable


def test_rubbish_is_what_the_base_would_never_say() -> None:
    assert is_rubbish([[-14.0, -13.0], [-15.0], [-1.0]])
    assert not is_rubbish([[-14.0, -1.0], [-0.1], [-20.0]])
    assert is_rubbish([[float("nan")]])
    assert not is_rubbish([])


# ---------------------------------------------------------------- the watch, over series as they grew


def test_a_release_that_holds_passes_at_the_end_of_its_window_and_not_before() -> None:
    new, before = users(200, 2, canary=asked(80)), users(300, 3, canary=asked(80))
    assert rule(WATCH, new, before, 599) == Ruling()
    assert rule(WATCH, new, before, 600) == Ruling(passes=True)


def test_too_few_answers_pass_and_that_is_said() -> None:
    ruling = rule(WATCH, users(3), users(0), 600)
    assert ruling.passes
    assert "3 and 0, 20 are asked for" in ruling.reason


def test_errors_are_judged_when_they_are_proven_and_not_by_the_first_bad_luck() -> None:
    """A recorded series: one failure in five, of the new release; of the one before, one in a hundred."""
    ruled_at = None
    for answers in range(1, 200):
        if rule(WATCH, users(answers, answers // 5), users(400, 4), 10).rolls_back:
            ruled_at = answers
            break
    assert ruled_at is not None
    assert 20 <= ruled_at <= 60
    assert not rule(WATCH, users(25, 2), users(25, 0), 10).rolls_back, "two of 25 may be chance"
    assert not rule(WATCH, users(19, 19), users(400, 4), 10).rolls_back, "too few, however bad"


def test_a_trouble_of_the_whole_machine_is_not_the_releases_fault() -> None:
    assert not rule(WATCH, users(100, 40), users(100, 38), 10).rolls_back


def test_a_share_within_what_is_tolerated_stays_even_if_proven() -> None:
    assert not rule(WATCH, users(10_000, 400), users(10_000, 10), 10).rolls_back


def test_canary_prompts_that_mostly_fail_need_no_users() -> None:
    ruling = rule(WATCH, users(0, canary=asked(8, broken=8)), users(0, canary=asked(8)), 1)
    assert ruling.rolls_back
    assert "8 of 8 canary prompts failed (8 answers unusable), of the release before 0 of 8" in ruling.reason
    assert not rule(WATCH, users(0, canary=asked(8, errors=8)), users(0, canary=asked(8, errors=8)), 1).rolls_back


def test_slowness_is_measured_on_the_canary_prompts() -> None:
    slow, usual = users(0, canary=asked(24, ms=300)), users(0, canary=asked(24, ms=100))
    assert "300 ms to the first token, the release before 100 ms" in rule(WATCH, slow, usual, 10).reason
    assert not rule(WATCH, users(0, canary=asked(16, ms=300)), usual, 10).rolls_back, "too few yet"
    assert not rule(Watch(max_latency_ratio=0), slow, usual, 10).rolls_back


def test_negative_feedback_above_that_of_the_release_before() -> None:
    ruling = rule(WATCH, Series(rated=40, negative=24), Series(rated=60, negative=6), 10)
    assert "24 of 40 ratings are negative, of the release before 6 of 60: 50.0% more, 20.0% are tolerated" in ruling.reason
    assert not rule(WATCH, Series(rated=15, negative=15), Series(rated=60, negative=6), 10).rolls_back


# ---------------------------------------------------------------- canary and shadow


def test_a_canary_keeps_each_user_on_one_side_and_meets_its_share() -> None:
    users_ = [f"user-{number}" for number in range(4000)]
    first = [user for user in users_ if is_canary(user, "a" * 64, 0.1)]
    assert first == [user for user in users_ if is_canary(user, "a" * 64, 0.1)]
    assert 0.08 < len(first) / len(users_) < 0.12
    assert set(first) <= {user for user in users_ if is_canary(user, "a" * 64, 0.3)}, "a growing share takes nobody back"
    assert set(first) != {user for user in users_ if is_canary(user, "b" * 64, 0.1)}, "not always the same people"
    assert first_phase(Watch(canary_share=0.1)) is Phase.CANARY
    assert first_phase(Watch(canary_share=1)) is first_phase(Watch()) is Phase.ALL


def test_samples_are_spread_evenly() -> None:
    picked = [number for number in range(100) if is_sampled(number, 0.25)]
    assert picked == list(range(3, 100, 4))


def test_the_percentile_is_the_nearest_rank() -> None:
    assert percentile([]) == 0
    assert percentile([3.0, 1.0, 2.0]) == 3.0
    assert percentile([float(number) for number in range(1, 101)]) == 95.0
