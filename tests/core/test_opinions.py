"""What users and programs say of answers becomes tallies: an answer counts once, by the newest word, and only users are satisfied or not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.opinions import MOST_OF_A_USER, Book, Measured, by_day, is_heard, merged, metric_of, newer, opinion_of
from core.signals import Origin, Signal, SignalKind, Standing
from core.trends import CORRECTION_RATE, USER_SATISFACTION, Against, Counted, Score, Tally, regressions

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
RELEASE = "ab" * 32
OTHER = "cd" * 32
RELEASES = {label: (one, version) for version, one in enumerate((RELEASE, OTHER), 1) for label in (one, one[:12])}


def signal(number: int, kind: SignalKind, **more: Any) -> Signal:
    known = {"release": RELEASE, "response": f"chatcmpl-{number}", "at": NOW, "source": "api"}
    return Signal(id=f"s{number}", kind=kind, persona="ada", domain="main", input=({"role": "user", "content": "?"},), **(known | more))


def tallies(*signals: Signal) -> dict[tuple[str, str], tuple[float, float]]:
    return counted(book_of(*signals))


def book_of(*signals: Signal) -> Book:
    book = Book()
    for one in signals:
        book.hear(one.id, opinion_of(one))
    return book


def counted(book: Book) -> dict[tuple[str, str], tuple[float, float]]:
    return {(one.measure, one.release): (one.hits, one.out_of) for one in book.tallies(RELEASES)}


GOOD, BAD, RIGHT = SignalKind.POSITIVE, SignalKind.MISTAKE, SignalKind.CORRECTION


def test_users_are_satisfied_or_not_and_what_programs_find_wrong_counts_beside() -> None:
    found = tallies(signal(1, GOOD), signal(2, BAD), signal(3, RIGHT), signal(4, BAD, origin=Origin.AUTOMATED), signal(5, RIGHT, origin=Origin.AI))
    assert found[USER_SATISFACTION, RELEASE] == (2, 3)
    assert found[CORRECTION_RATE, RELEASE] == (4, 5)


def test_an_answer_counts_once_by_the_newest_word_of_its_users() -> None:
    first, second = signal(1, BAD), replace(signal(1, GOOD, at=NOW + timedelta(minutes=5)), id="s2")
    peer = replace(signal(1, RIGHT, at=NOW + timedelta(minutes=9), origin=Origin.AI), id="s3")
    for order in ((first, second, peer), (peer, second, first)):
        found = tallies(*order)
        assert found[USER_SATISFACTION, RELEASE] == (0, 1), "the user changed their mind"
        assert found[CORRECTION_RATE, RELEASE] == (1, 1), "the peer model spoke last"


@pytest.mark.parametrize(
    "silent",
    [
        signal(1, SignalKind.IMPORT),
        signal(1, BAD, release="", response="from-another-server"),
        signal(1, BAD, release="ef" * 32),
    ],
)
def test_an_import_and_an_answer_of_nobody_say_nothing(silent: Signal) -> None:
    assert tallies(silent) == {}


def test_what_was_found_in_a_conversation_is_no_rating() -> None:
    assert tallies(signal(1, RIGHT, source="detected")) == {(CORRECTION_RATE, RELEASE): (1, 1)}


def test_the_release_is_known_by_its_mark_in_the_response_and_the_base_is_one_too() -> None:
    marked, base = signal(1, GOOD, release="", response=f"chatcmpl-{OTHER[:12]}-0123456789abcdef"), signal(2, BAD, release="base")
    found = tallies(marked, base)
    assert found[USER_SATISFACTION, OTHER] == (0, 1)
    assert found[USER_SATISFACTION, ""] == (1, 1)


def test_no_user_counts_for_many() -> None:
    flood = [signal(number, BAD, user="one") for number in range(100)] + [signal(1000 + number, GOOD, user=f"u{number}") for number in range(10)]
    assert tallies(*flood)[USER_SATISFACTION, RELEASE] == (MOST_OF_A_USER, MOST_OF_A_USER + 10)
    assert tallies(*(signal(number, BAD) for number in range(100)))[USER_SATISFACTION, RELEASE] == (100, 100), "who names no user is not one user"


def test_a_proposal_counts_once_a_person_took_it_for_true() -> None:
    heard = {(standing, proposal) for standing in Standing for proposal in (True, False) if is_heard(standing, proposal)}
    both = {(standing, proposal) for standing in (Standing.PENDING, Standing.QUEUED) for proposal in (True, False)}
    assert heard == both | {(Standing.REVIEW, False)}, "a mistake without its right answer lies in the review, and is one"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_comes_goes_and_comes_again_the_counts_are_those_of_what_is_there(data: st.DataObject) -> None:
    """Against counting everything anew; one user is named, so that the bound of a user is met too."""
    book, there = Book(), dict[int, Signal]()
    for number in data.draw(st.lists(st.integers(0, 30), max_size=60)):
        answer, kind, hour = number % 7, data.draw(st.sampled_from([GOOD, BAD, RIGHT])), data.draw(st.integers(0, 30))
        if number in there and data.draw(st.booleans()):
            del there[number]
            book.hear(f"s{number}", None)
            continue
        origin = data.draw(st.sampled_from([Origin.HUMAN, Origin.AI]))
        one = signal(number, kind, response=f"chatcmpl-{answer}", at=NOW - timedelta(hours=hour, seconds=number), origin=origin)
        there[number] = one
        book.hear(one.id, opinion_of(one))
        assert not book.hear(one.id, opinion_of(one)), "the same again is no news"
    assert counted(book) == counted(book_of(*there.values()))
    assert len(book) == len(there)


def test_what_is_older_than_two_weeks_leaves_the_book_whole() -> None:
    signals = [signal(number, BAD if number % 3 else GOOD, at=NOW - timedelta(hours=number), user="u") for number in range(15)]
    book = book_of(*signals)
    book.forget(NOW - timedelta(hours=6))
    kept = [one for one in signals if one.at >= (NOW - timedelta(hours=6)).replace(minute=0)]
    assert counted(book) == counted(book_of(*kept))
    assert len(book) == len(kept)


def tally(hours_ago: int, hits: float, out_of: float, measure: str = USER_SATISFACTION, release: str = RELEASE) -> Tally:
    since = NOW.replace(minute=0) - timedelta(hours=hours_ago)
    version = dict(RELEASES.values()).get(release, 0)
    words = {"measure": measure, "counted": Counted.SHARE, "release": release, "version": version}
    return Tally(since=since, until=since + timedelta(hours=1), hits=hits, out_of=out_of, **words)  # type: ignore[arg-type]


def test_a_count_that_was_told_never_shrinks() -> None:
    """Signals leave the shelf (forgotten, or after two weeks); what they said of a release stays."""
    known = [tally(2, 3, 30), tally(1, 1, 10)]
    counted = [tally(2, 2, 20), tally(1, 1, 10), tally(0, 0, 4)]
    assert newer(known, counted) == (tally(0, 0, 4),)
    assert merged(known, counted) == (*known, tally(0, 0, 4))
    assert merged(known, [tally(1, 2, 12)]) == (tally(2, 3, 30), tally(1, 2, 12))


def test_a_metric_is_of_what_serves_within_the_window() -> None:
    series = [tally(30, 9, 10), tally(3, 2, 10), tally(0, 1, 10), tally(3, 9, 9, release=OTHER), tally(3, 5, 10, CORRECTION_RATE)]
    day = timedelta(days=1)
    assert metric_of(USER_SATISFACTION, (), series, RELEASE, day, NOW) == Measured(value=0.85, count=20)
    assert metric_of(USER_SATISFACTION, (), series, RELEASE, 2 * day, NOW) == Measured(value=pytest.approx(0.6), count=30)
    assert metric_of(CORRECTION_RATE, (), series, RELEASE, day, NOW) == Measured(value=0.5, count=10)
    assert metric_of(USER_SATISFACTION, (), series, None, day, NOW) is None, "nobody judged the base"
    score = Score(at=NOW, release=RELEASE, version=1, measure="suite json, mean value of an item", value=0.7, count=50, higher_is_better=True)
    assert metric_of(score.measure, [score], series, RELEASE, day, NOW) == Measured(value=0.7, count=50)
    assert metric_of(score.measure, [score], series, OTHER, day, NOW) is None


def test_a_regression_is_looked_for_once_a_day_as_every_look_may_accuse_by_luck() -> None:
    other = tally(1, 1, 9, "wrong answers, binary level 1")
    found = by_day([tally(30, 1, 10), tally(20, 2, 10), tally(14, 3, 10), tally(2, 9, 9), other], NOW)
    assert [(one.since.day, one.hits, one.out_of) for one in found if one is not other] == [(9, 6, 30)], "the 10th goes on"
    assert other in found


def test_users_take_a_release_back_and_programs_do_not() -> None:
    """Who judges beside the users, and how often, changes with the config; it must not look like a worse release."""
    for measure, goes_back_to in ((USER_SATISFACTION, RELEASE), (CORRECTION_RATE, None)):
        series = [tally(20, 5, 100, measure), tally(2, 60, 100, measure, OTHER)]
        (found,) = regressions("ada/main", [], series, OTHER)
        assert (found.against, found.goes_back_to) == (Against.BEFORE, goes_back_to)
        assert found.low > 0.02
    (found,) = regressions("ada/main", [], [tally(20, 5, 100), tally(2, 60, 100, release=OTHER)], OTHER)
    assert "user_satisfaction is 0.4, the release before it 0.95: worse by 0.55" in found.sentence
