"""Triggers over weeks of made-up days, changes of the clock, restarts and power cuts: never early, never twice, never forgotten."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from firing_home import ADAPTER, FiringHome, settings
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 10, 23, 12, tzinfo=UTC)  # two days before the clock changes
TICK_S = 300.0
SLACK = timedelta(seconds=5 * TICK_S + 20)  # ticks: to see it, until it is calm, and both again after a power cut
DAYS = 4
UP = 4  # ticks after each start
HOUR = timedelta(hours=1)


def nights(hour: int, minute: int, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The instants of `minute hour * * *` on a wall clock of Berlin, found minute by minute: a time that comes twice counts once, one
    that is left out comes as much later as the clock was set on."""
    for ahead in range((end - begin).days + 2):
        day = begin.astimezone(BERLIN).date() + timedelta(days=ahead)
        yield next(
            at for at in _minutes(day) if (shown := at.astimezone(BERLIN)) and (shown.hour, shown.minute) in ((hour, minute), _left_out(day, hour, minute))
        )


def _minutes(day: date) -> Iterator[datetime]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=BERLIN).astimezone(UTC)
    return (midnight + timedelta(minutes=minute) for minute in range(25 * 60))


def _left_out(day: date, hour: int, minute: int) -> tuple[int, int]:
    return (hour + 1, minute) if day == date(2026, 3, 29) and hour == 2 else (hour, minute)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(1, 60)),
        st.tuples(st.just("run"), st.integers(1, 60)),  # ticks
        st.tuples(st.just("down"), st.integers(1, 40)),  # hours
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 1)),  # in the middle of the next firing
    ),
    max_size=25,
)


def live_through(home: FiringHome, events: Sequence[tuple[str, int]]) -> None:
    """What happens, and then quiet days in which the daemon runs."""
    for what, much in events:
        if what == "come":
            home.come(much)
        elif what == "run":
            home.run(TICK_S, much)
        elif what == "down":
            home.sleep(hours=much)
            home.restart()
            home.run(TICK_S, UP)
        elif what == "restart":
            home.restart()
        elif much:
            home.signals.ends = 1
        else:
            home.signals.fails = 1
    home.run(TICK_S, int(DAYS * 86400 / TICK_S / 2))


def made(homes: pytest.TempPathFactory, begin: datetime, config: Any) -> FiringHome:
    return FiringHome(homes.mktemp("home"), config, wall=begin)


@effort(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, begin=st.sampled_from((SPRING, AUTUMN)), hour=st.integers(0, 4), least=st.integers(1, 40))
def test_each_night_fires_once_at_its_time_and_where_the_daemon_was_down_once_for_all_of_them(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], begin: datetime, hour: int, least: int
) -> None:
    home = made(
        tmp_path_factory, begin, settings("Europe/Berlin", nightly={"any": [{"cron": f"30 {hour} * * *"}], "min_rows": least, "cooldown_s": 0, "per_day": 99})
    )
    live_through(home, events)
    due = [at for at in nights(hour, 30, begin, home.wall) if begin < at <= home.wall]
    fired = [at for _, _, at, _ in home.fired]
    for before, at in zip([begin, *fired], fired, strict=False):
        assert any(before < time <= at for time in due), "each firing has a time of its own: never early, never twice"
    assert all(rows >= least for *_, rows in home.fired)


@effort(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(events=EVENTS, begin=st.sampled_from((SPRING, AUTUMN)), hour=st.integers(0, 4))
def test_no_night_is_forgotten_however_often_the_daemon_dies(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], begin: datetime, hour: int
) -> None:
    home = made(
        tmp_path_factory, begin, settings("Europe/Berlin", nightly={"any": [{"cron": f"30 {hour} * * *"}], "min_rows": 1, "cooldown_s": 0, "per_day": 99})
    )
    arrivals: list[datetime] = []
    come = home.come

    def noted(rows: int, adapter: str = ADAPTER) -> None:
        arrivals.append(home.wall)
        come(rows, adapter)

    home.come = noted  # type: ignore[method-assign]
    live_through(home, events)
    due = [at for at in nights(hour, 30, begin, home.wall) if begin < at < home.wall - 2 * HOUR]
    fired = [at for _, _, at, _ in home.fired]
    for row in arrivals:
        time = next((at for at in due if at >= row), None)
        if time is not None:
            up = home_was_up(events, begin, time)
            assert any(row <= at <= up + SLACK for at in fired), f"what came {row} has waited for {time}"


def home_was_up(events: Sequence[tuple[str, int]], begin: datetime, time: datetime) -> datetime:
    """When the daemon could first have seen that a time has come."""
    wall = begin
    for what, much in events:
        if what == "down" and wall <= time < wall + timedelta(hours=much):
            return wall + timedelta(hours=much)
        wall += timedelta(hours=much, seconds=UP * TICK_S) if what == "down" else timedelta(seconds=much * TICK_S) if what == "run" else timedelta()
    return time


@effort(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    events=EVENTS,
    rows=st.integers(1, 150),
    age_h=st.integers(1, 30),
    brakes=st.fixed_dictionaries({"min_rows": st.integers(1, 40), "cooldown_s": st.integers(0, 20 * 3600), "per_day": st.integers(1, 3)}),
    quiet=st.sampled_from((None, "22:00-06:30")),
)
def test_a_threshold_waits_for_all_that_brakes_it_and_for_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], rows: int, age_h: int, brakes: dict[str, int], quiet: str | None
) -> None:
    home = made(
        tmp_path_factory,
        SPRING,
        settings("Europe/Berlin", {"quiet_hours": [quiet] if quiet else []}, enough={"any": [{"rows": rows}, {"after_s": age_h * 3600}], **brakes}),
    )
    closed = home.triggers._opens

    def guarded_turn() -> None:
        home.facts = {"closed": "quiet hours" if closed(home.wall) != home.wall else ""}
        FiringHome.turn(home)

    home.turn = guarded_turn  # type: ignore[method-assign]
    oldest_when_fired: list[datetime] = []
    begin_batch = home.signals.begin_batch

    def noted(adapter: str, trigger: str, key: str, now: datetime) -> str:
        if key not in home.signals.batches and not home.signals.fails:
            pending = home.signals.pending[adapter]
            oldest_when_fired.append(min(pending))
            assert len(pending) >= rows or now - min(pending) >= age_h * HOUR, "never early"
            assert len(pending) >= brakes["min_rows"]
        return begin_batch(adapter, trigger, key, now)

    home.signals.begin_batch = noted  # type: ignore[method-assign]
    live_through(home, events)
    times = [at for _, _, at, _ in home.fired]
    assert all(after - before >= timedelta(seconds=brakes["cooldown_s"]) for before, after in pairwise(times))
    assert all(sum(at - timedelta(hours=24) < other <= at for other in times) <= brakes["per_day"] for at in times)
    assert all(closed(at) == at for at in times), "never in quiet hours"
    left = home.signals.pending.get(ADAPTER, [])
    if times and home.wall - times[-1] < timedelta(seconds=brakes["cooldown_s"], hours=25):
        return  # it may still be held up
    if len(left) >= brakes["min_rows"]:
        assert len(left) < rows, "never forgotten"
        assert home.wall - min(left) < age_h * HOUR + 9 * HOUR, "nor by its age: at most the night longer"
