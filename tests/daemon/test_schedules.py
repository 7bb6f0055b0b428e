"""When the entries of a schedule come, by a clock that the test sets: missed times, jitter, changes of the clock, jumps, restarts."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.errors import ConfigError
from core.facts import Due
from core.sections import ScheduleConfig
from daemon.schedules import Schedules, Times, mark_of, read_plans
from store.paths import Home

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)  # a Monday


class Clock:
    """The wall clock, and one that never jumps."""

    def __init__(self, now: datetime = NOON) -> None:
        self.wall = now
        self.elapsed_s = 1000.0

    def now(self) -> datetime:
        return self.wall

    def elapsed(self) -> float:
        return self.elapsed_s

    def sleep(self, **time: float) -> None:
        """Time passes."""
        self.wall += timedelta(**time)
        self.elapsed_s += timedelta(**time).total_seconds()

    def jump(self, **time: float) -> None:
        """Somebody sets the clock."""
        self.wall += timedelta(**time)


def config(*, zone: str = "UTC", **entries: dict[str, object]) -> ScheduleConfig:
    return ScheduleConfig.model_validate({"time_zone": zone, "entries": entries})


def begin(home: Path, clock: Clock, settings: ScheduleConfig) -> Schedules:
    """A daemon that starts with this schedule."""
    made = Schedules(Home(home), now=clock.now, elapsed_s=clock.elapsed, rng=random.Random(7))  # noqa: S311 - a test
    made.follow(settings)
    return made


def run(schedules: Schedules, clock: Clock, step_s: float, steps: int) -> list[datetime]:
    """Let time pass and do what is due. Returns when something was."""
    fired = []
    for _ in range(steps):
        clock.sleep(seconds=step_s)
        for due in schedules.look():
            schedules.fired(due)
            fired.append(clock.wall)
    return fired


NIGHTLY = config(nightly={"does": "gc", "cron": "0 3 * * *"})


def test_an_entry_comes_at_its_time_once(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, NIGHTLY)
    assert run(schedules, clock, 60, 3 * 24 * 60) == [NOON.replace(day=day, hour=3) for day in (2, 3, 4)]


def test_an_interval_counts_from_when_it_was_first_seen_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    clock, hourly = Clock(), config(hourly={"does": "gc", "every_s": 3600})
    begin(tmp_path, clock, hourly)
    for _ in range(5):  # a daemon that never lives for an hour
        clock.sleep(minutes=10)
        assert begin(tmp_path, clock, hourly).look() == ()
    clock.sleep(minutes=10)
    [due] = begin(tmp_path, clock, hourly).look()
    assert due.at == NOON + timedelta(hours=1)


def test_times_that_were_missed_while_the_daemon_was_down_are_made_up_once(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock, NIGHTLY)
    clock.sleep(days=30)
    schedules = begin(tmp_path, clock, NIGHTLY)
    assert schedules.look() == (Due(entry="nightly", does="gc", at=datetime(2026, 7, 1, 3, tzinfo=UTC)),), "the newest of thirty"
    schedules.fired(schedules.look()[0])
    assert schedules.look() == ()
    assert run(begin(tmp_path, clock, NIGHTLY), clock, 600, 6 * 24) == [datetime(2026, 7, 2, 3, tzinfo=UTC)]


def test_many_missed_times_of_every_minute_are_counted_quickly(tmp_path: Path) -> None:
    clock, often = Clock(), config(often={"does": "gc", "every_s": 1}, minutely={"does": "gc", "cron": "* * * * *"})
    begin(tmp_path, clock, often)
    clock.sleep(days=365, seconds=30)
    schedules = begin(tmp_path, clock, often)
    assert [due.at for due in schedules.look()] == [clock.wall, clock.wall.replace(second=0)]


def test_what_was_not_yet_remembered_is_due_again_after_a_crash_with_the_same_mark(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock, NIGHTLY)
    clock.sleep(days=1)
    [first] = begin(tmp_path, clock, NIGHTLY).look()
    clock.sleep(seconds=5)
    [again] = begin(tmp_path, clock, NIGHTLY).look()
    assert mark_of(again) == mark_of(first)


def test_a_changed_entry_begins_anew_and_one_that_was_taken_out_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, NIGHTLY)
    clock.sleep(days=2)
    schedules.follow(config(nightly={"does": "gc", "cron": "30 4 * * *"}))
    assert schedules.look() == (), "the new text has missed nothing"
    schedules.follow(config())
    assert read_plans(Home(tmp_path)) == {}


def test_a_changed_entry_does_not_wait_for_what_the_former_one_fired(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, config(work={"does": "gc", "cron": "0 3 * * sun"}))
    assert len(run(schedules, clock, 3600, 24 * 7)) == 1
    schedules.follow(config(work={"does": "gc", "cron": "0 * * * *"}))
    assert len(run(schedules, clock, 600, 12)) == 2, "an hour each, not half a week later"


def test_jitter_puts_each_time_off_anew_and_never_beyond_the_next(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, config(often={"does": "gc", "cron": "0 * * * *", "jitter_s": 600}))
    late = [(at - at.replace(minute=0, second=0)).total_seconds() for at in run(schedules, clock, 10, 6 * 60 * 12)]
    assert len(late) in (11, 12), "the twelfth may be put off"
    assert len(set(late)) > 6
    assert max(late) <= 610
    (tmp_path / "b").mkdir()
    plan = Schedules(Home(tmp_path / "b"), now=clock.now, elapsed_s=clock.elapsed)
    plan.follow(config(often={"does": "gc", "every_s": 60, "jitter_s": 86_400}))
    assert read_plans(Home(tmp_path / "b"))["often"].put_off_s < 60


# ---------------------------------------------------------------- the clock is wrong


def test_a_clock_that_is_set_forward_makes_up_one_time_and_back_again_makes_no_storm(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, NIGHTLY)
    fired = []
    for _ in range(20):  # it swings by a month each minute
        clock.jump(days=30)
        fired += run(schedules, clock, 1, 30)
        clock.jump(days=-30)
        fired += run(schedules, clock, 1, 30)
    assert len(fired) == 1


def test_after_a_clock_that_was_a_month_ahead_the_next_night_is_not_a_month_away(tmp_path: Path) -> None:
    clock = Clock()
    clock.jump(days=30)
    schedules = begin(tmp_path, clock, NIGHTLY)
    run(schedules, clock, 3600, 24)
    clock.jump(days=-30)
    assert len(run(schedules, clock, 3600, 24 * 3)) == 3
    clock.jump(days=-300)
    restarted = begin(tmp_path, clock, NIGHTLY)
    assert len(run(restarted, clock, 3600, 24 * 3)) == 3, "nor after a restart"


def test_an_interval_that_began_in_the_future_begins_now(tmp_path: Path) -> None:
    clock, hourly = Clock(), config(hourly={"does": "gc", "every_s": 3600})
    schedules = begin(tmp_path, clock, hourly)
    clock.jump(days=-300)
    assert len(run(schedules, clock, 60, 150)) == 2


def test_a_machine_that_slept_over_its_time_makes_it_up_when_it_wakes(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, NIGHTLY)
    run(schedules, clock, 3600, 24)
    clock.sleep(hours=20)  # the clock that never jumps counts sleep
    assert len(schedules.look()) == 1


# ---------------------------------------------------------------- cron as it is read


def times(cron: str, start: datetime, count: int) -> list[str]:
    [(name, entry)] = config(entry={"does": "gc", "cron": cron}).entries.items()
    found, at = Times(name, entry, BERLIN, start), start
    shown = []
    for _ in range(count):
        after = found.after(at)
        assert after is not None
        at = after
        shown.append(at.astimezone(BERLIN).strftime("%a %d %H:%M %z"))
    return shown


def test_a_time_that_is_left_out_comes_after_the_change_and_one_that_comes_twice_comes_once() -> None:
    spring, autumn = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)
    assert times("30 2 * * *", spring, 3) == ["Sat 28 02:30 +0100", "Sun 29 03:30 +0200", "Mon 30 02:30 +0200"]
    assert times("30 2 * * *", autumn, 3) == ["Sat 24 02:30 +0200", "Sun 25 02:30 +0200", "Mon 26 02:30 +0100"]


def test_an_entry_of_every_hour_comes_in_every_real_hour() -> None:
    start = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    assert times("0 * * * *", start, 4) == ["Sun 25 02:00 +0200", "Sun 25 02:00 +0100", "Sun 25 03:00 +0100", "Sun 25 04:00 +0100"]


@pytest.mark.parametrize(
    ("field", "days"), [("0", ["Sun"]), ("7", ["Sun"]), ("1-2", ["Mon", "Tue"]), ("5,0", ["Fri", "Sun"]), ("sat", ["Sat"]), ("0-1", ["Sun", "Mon"])]
)
def test_weekdays_count_from_sunday_as_cron_counts_them(field: str, days: list[str]) -> None:
    assert {shown[:3] for shown in times(f"0 3 * * {field}", NOON, 4)} == set(days)


@pytest.mark.parametrize(("field", "days"), [("1-5/2", "Mon Wed Fri"), ("*/2", "Sun Tue Thu Sat"), ("sun-tue", "Sun Mon Tue"), ("fri-sun", "Fri Sat Sun")])
def test_steps_and_spans_of_weekdays_count_from_sunday_too(field: str, days: str) -> None:
    assert {shown[:3] for shown in times(f"0 3 * * {field}", NOON, 7)} == set(days.split())


def test_of_a_day_of_the_month_and_one_of_the_week_either_will_do() -> None:
    assert [shown[:6] for shown in times("0 3 15 * mon", NOON + timedelta(days=7), 3)] == ["Mon 15", "Mon 22", "Mon 29"]
    assert [shown[:6] for shown in times("0 3 10 * mon", NOON, 3)] == ["Mon 08", "Wed 10", "Mon 15"]


@pytest.mark.parametrize("cron", ["0 3 * *", "61 * * * *", "0 3 31 2 *", "0 3 * * xyz", "0 3 * * 8", "0 3 * * 1/0", "0 3 * * fri-mon", "every day"])
def test_a_wrong_text_is_a_config_error_that_names_the_entry_and_changes_nothing(tmp_path: Path, cron: str) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, NIGHTLY)
    with pytest.raises(ConfigError, match=r"schedule\.entries\.weekly\.cron"):
        schedules.follow(config(weekly={"does": "gc", "cron": cron}))
    clock.sleep(days=1)
    assert [due.entry for due in schedules.look()] == ["nightly"]


@pytest.mark.parametrize("every_s", [1e-6, 0.5, 1e18])
def test_an_interval_that_would_never_or_always_come_is_refused(every_s: float) -> None:
    [(name, entry)] = config(often={"does": "gc", "every_s": every_s}).entries.items()
    with pytest.raises(ConfigError, match=r"schedule\.entries\.often\.every_s"):
        Times(name, entry, BERLIN, NOON)


def test_a_damaged_memory_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    begin(tmp_path, clock, NIGHTLY)
    Home(tmp_path).schedule.write_text("{")
    assert begin(tmp_path, clock, NIGHTLY).look() == ()


def test_the_calendar_says_until_when_nothing_trains(tmp_path: Path) -> None:
    clock = Clock()
    schedules = begin(tmp_path, clock, ScheduleConfig(time_zone="Europe/Berlin", windows=("22:00-06:30",)))
    assert schedules.closed() == "outside the training windows 22:00-06:30, until Mon 22:00"
    clock.sleep(hours=8)
    assert schedules.closed() == ""
