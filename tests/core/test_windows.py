"""When training may run: windows and quiet hours, across midnight and across the changes of the clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import resolve
from core.errors import ConfigError
from core.windows import DAYS, Closed, closed_at, in_words, instant, never_open, parse_span

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2026, 3, 29, tzinfo=BERLIN)  # 02:00 becomes 03:00
AUTUMN = datetime(2026, 10, 25, tzinfo=BERLIN)  # 03:00 becomes 02:00


def at(text: str, *, fold: int = 0) -> datetime:
    """A wall time in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def closed(now: datetime, *, windows: tuple[str, ...] = (), quiet: tuple[str, ...] = ()) -> Closed | None:
    return closed_at(windows, quiet, now, BERLIN)


def test_without_windows_and_quiet_hours_training_may_always_run() -> None:
    assert closed(at("2026-01-01T12:00")) is None


def test_a_window_across_midnight_is_open_on_both_sides_of_it_and_closed_by_day() -> None:
    night = ("22:00-06:30",)
    assert closed(at("2026-01-01T23:59"), windows=night) is None
    assert closed(at("2026-01-02T00:00"), windows=night) is None
    assert closed(at("2026-01-02T06:29:59"), windows=night) is None
    found = closed(at("2026-01-02T06:30"), windows=night)
    assert found == Closed("outside the training windows 22:00-06:30", at("2026-01-02T22:00"))
    assert in_words(found, BERLIN) == "outside the training windows 22:00-06:30, until Fri 22:00"


def test_a_window_belongs_to_the_day_on_which_it_begins() -> None:
    week = ("mon-fri 20:00-07:00",)
    assert closed(at("2026-01-03T06:00"), windows=week) is None, "Friday's window runs into Saturday"
    found = closed(at("2026-01-03T20:30"), windows=week)
    assert found is not None
    assert found.until == at("2026-01-05T20:00"), "Saturday has none of its own"


def test_days_may_be_named_one_by_one_and_across_the_end_of_the_week() -> None:
    assert parse_span("sat,sun 00:00-24:00").days == {5, 6}
    assert parse_span("fri-mon 10:00-11:00").days == {4, 5, 6, 0}
    assert parse_span("Mon 10:00-11:00").days == {0}


def test_quiet_hours_win_over_windows_and_the_end_names_when_both_let_it() -> None:
    found = closed(at("2026-01-01T23:00"), windows=("22:00-06:00",), quiet=("22:30-23:30",))
    assert found == Closed("quiet hours 22:30-23:30", at("2026-01-01T23:30"))
    found = closed(at("2026-01-01T20:00"), windows=("22:00-06:00",), quiet=("21:00-23:00",))
    assert found is not None
    assert found.until == at("2026-01-01T23:00"), "the window opens at 22:00, but not into the quiet hours"


def test_a_night_over_the_change_of_the_clock_is_an_hour_shorter_or_longer_and_never_broken() -> None:
    for change, hours in ((SPRING, 7), (AUTUMN, 9)):
        begin, end = instant(change.date() - timedelta(days=1), 22 * 60, BERLIN), instant(change.date(), 6 * 60, BERLIN)
        assert end - begin == timedelta(hours=hours)
        for minutes in range(hours * 60):
            assert closed(begin + timedelta(minutes=minutes), windows=("22:00-06:00",)) is None
        assert closed(end, windows=("22:00-06:00",)) is not None
        assert closed(begin - timedelta(seconds=1), windows=("22:00-06:00",)) is not None


def test_a_time_that_the_clock_leaves_out_is_the_instant_of_the_change() -> None:
    assert instant(SPRING.date(), 150, BERLIN) == at("2026-03-29T03:00")
    found = closed(at("2026-03-29T01:59:59"), windows=("02:30-05:00",))
    assert found is not None
    assert found.until == at("2026-03-29T03:00")
    assert closed(at("2026-03-29T03:00"), windows=("02:30-05:00",)) is None
    assert closed(at("2026-03-29T03:00"), quiet=("02:15-02:45",)) is None, "the whole of it was left out"


def test_of_a_time_that_comes_twice_the_first_counts() -> None:
    assert instant(AUTUMN.date(), 150, BERLIN) == at("2026-10-25T02:30")
    assert closed(at("2026-10-25T02:30"), quiet=("02:15-02:45",)) is not None
    assert closed(at("2026-10-25T02:30", fold=1), quiet=("02:15-02:45",)) is None


@pytest.mark.parametrize("text", ["", "22-06", "22:00", "25:00-26:00", "10:60-11:00", "24:00-06:00", "10:00-10:00", "xyz 10:00-11:00", "mon-xyz 10:00-11:00"])
def test_bad_text_is_a_config_error_that_names_the_entry(text: str) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.windows") as error:
        resolve({"config.json": {"schedule": {"windows": ["22:00-06:00", text]}}})
    assert repr(text) in error.value.what


def test_a_calendar_that_leaves_no_minute_is_refused() -> None:
    assert never_open(("10:00-12:00",), ("09:00-13:00",))
    assert never_open((), ("00:00-24:00",))
    assert not never_open(("10:00-12:00",), ("mon-sat 09:00-13:00",))
    with pytest.raises(ConfigError, match="no minute"):
        resolve({"config.json": {"schedule": {"quiet_hours": ["mon-sat 00:00-24:00", "sun 00:00-24:00"]}}})


def test_a_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="Europe/Nowhere"):
        resolve({"config.json": {"schedule": {"time_zone": "Europe/Nowhere"}}})


minutes_of_day = st.integers(0, 24 * 60 - 1)


@st.composite
def spans(draw: st.DrawFn) -> str:
    begin, end = draw(minutes_of_day), draw(st.integers(1, 24 * 60))
    days = draw(st.one_of(st.just(""), st.lists(st.sampled_from(DAYS), min_size=1, max_size=3).map(lambda names: ",".join(names) + " ")))
    end = end if end != begin else (end % (24 * 60)) + 1
    return f"{days}{begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"


moments = st.integers(0, 2 * 366 * 24 * 3600).map(lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))


@settings(max_examples=200, deadline=None)
@given(st.lists(spans(), max_size=2), st.lists(spans(), max_size=2), moments)
def test_until_is_the_first_instant_at_which_training_may_run_again(windows: list[str], quiet: list[str], now: datetime) -> None:
    if never_open(windows, quiet):
        return
    found = closed_at(windows, quiet, now, BERLIN)
    if found is None or found.until is None:
        return
    assert found.until > now
    assert closed_at(windows, quiet, found.until, BERLIN) is None
    for share in (0.25, 0.5, 0.75, 0.999):
        assert closed_at(windows, quiet, now + (found.until - now) * share, BERLIN) is not None
    assert closed_at(windows, quiet, found.until - timedelta(seconds=1), BERLIN) is not None or found.until - now < timedelta(seconds=1)


@settings(max_examples=200, deadline=None)
@given(spans(), st.integers(0, 30 * 24 * 60).map(lambda minutes: datetime(2026, 6, 1, tzinfo=BERLIN) + timedelta(minutes=minutes)))
def test_away_from_a_change_of_the_clock_a_window_is_what_a_wall_clock_says(text: str, wall: datetime) -> None:
    span = parse_span(text)
    minute = wall.hour * 60 + wall.minute
    today = wall.weekday() in span.days and span.begin <= minute < span.end
    yesterday = (wall.weekday() - 1) % 7 in span.days and minute + 24 * 60 < span.end
    is_open = closed_at([text], (), wall.astimezone(UTC), BERLIN) is None
    assert is_open == (today or yesterday)
