"""Triggers of a daemon that is killed, sleeps for a week, is told to stop, and meets storms and clocks that are wrong."""

from datetime import timedelta
from pathlib import Path

import pytest
from firing_home import ADAPTER, NOON, FiringHome, settings

from core.commands import Command, CommandKind
from core.config import Config
from core.errors import ConfigError
from core.facts import DeviceSeen, DiskSeen
from core.trends import USER_SATISFACTION, Counted, Tally
from core.triggers import CALM_S, LINGER_S, LONGEST_S
from daemon.schedules import check_crons
from daemon.triggers import read_memory
from store.commands import read_answer
from store.journal import entries
from store.performance import remember_samples

ENOUGH = Config()
NIGHTLY = settings(nightly={"any": [{"cron": "0 3 * * *"}]})


def test_five_hundred_rows_become_one_batch_which_is_told(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(499)
    home.run(1, 60)
    assert home.fired == []
    home.come(1)
    home.run(1, 60)
    assert [(adapter, trigger, rows) for adapter, trigger, _, rows in home.fired] == [(ADAPTER, "enough", 500)]
    [entry] = [one for one in entries(home.home.journal) if one["action"] == "trigger.fired"]
    assert (entry["adapter"], entry["rows"], entry["reason"]) == (ADAPTER, 500, "500 of 500 pending rows")
    assert [one["action"] for one in home.told] == ["trigger.fired"]


def test_a_storm_of_ten_thousand_rows_in_ten_seconds_is_one_batch(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    for _ in range(10):
        home.come(1000)
        home.run(0.25, 4)
    home.run(1, 4000)
    assert [rows for *_, rows in home.fired] == [10_000]


def test_rows_that_never_cease_put_it_off_for_minutes_and_no_longer(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(499)
    for _ in range(600):
        home.come(1)
        home.run(1, 1)
    [(_, _, at, _)] = home.fired
    assert abs((at - NOON).total_seconds() - LONGEST_S) < 10


def test_after_a_week_of_downtime_the_times_of_every_night_and_all_that_was_said_are_one_batch(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, settings(nightly={"any": [{"cron": "0 3 * * *"}]}, enough={"any": [{"rows": 500}]}))
    home.come(10)
    home.run(1, 30)
    home.sleep(days=7)
    home.restart()
    for _ in range(20):  # the mirrors of the boxes are read by and by
        home.come(200)
        home.run(1, 2)
    home.run(60, 1200)
    assert [rows for *_, rows in home.fired] == [4010]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_daemon_that_dies_before_or_after_it_has_begun_a_batch_begins_that_batch_once_more(tmp_path: Path, cut: str) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(600)
    home.signals.fails, home.signals.ends = (3, 0) if cut == "before" else (0, 3)
    home.run(1, 60)
    assert len(home.fired) == 1
    [firing] = read_memory(home.home).pasts[ADAPTER].firings
    assert firing.batch == f"batch-{firing.key}"
    home.come(600)
    home.run(60, 30)
    assert len(home.fired) == 1, "the cool-down counts from the word"


def test_restarts_all_the_time_forget_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, settings(nightly={"any": [{"cron": "0 3 * * *"}], "cooldown_s": 0}))
    home.come(30)
    for _ in range(3 * 24 * 6):
        home.sleep(minutes=9)
        home.restart()
        home.turn()
        home.run(CALM_S, 2)
        home.sleep(seconds=40)
        if home.wall.hour == 12 and home.wall.minute < 10:
            home.come(25)
    times = [at for _, _, at, _ in home.fired]
    assert [at.replace(minute=0, second=0) for at in times] == [NOON.replace(day=day, hour=3) for day in (2, 3, 4)]
    assert all(at.minute < 11 for at in times)


def test_a_night_with_too_few_rows_is_passed_over_and_said_so(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, NIGHTLY)
    home.come(5)
    home.run(60, 16 * 60)
    assert [one["action"] for one in home.told] == ["trigger.passed_over"]
    assert "5 new rows, of at least 20" in home.told[0]["reason"]
    home.come(100)
    home.run(60, 60)
    assert home.fired == [], "the night is over"
    home.run(60, 24 * 60)
    assert [at for _, _, at, _ in home.fired] == [NOON.replace(day=3, hour=3)]


def test_rows_that_are_on_their_way_at_the_time_still_count_for_it(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, NIGHTLY)
    home.run(60, 15 * 60)
    home.run(60, int(LINGER_S / 60) - 2)
    home.come(40)
    home.run(60, 5)
    assert len(home.fired) == 1


def test_a_clock_that_swings_across_a_time_makes_no_storm(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, settings(nightly={"any": [{"cron": "0 3 * * *"}], "cooldown_s": 0, "per_day": 100}))
    home.run(1, 1)
    for _ in range(20):
        home.come(30)
        home.wall += timedelta(days=30)
        home.run(10, 3)
        home.wall -= timedelta(days=30)
        home.run(10, 3)
    assert len(home.fired) == 1
    home.run(600, 3 * 24 * 6)
    home.come(30)
    home.run(600, 2 * 24 * 6)
    assert len(home.fired) >= 2, "and it goes on coming"


def test_a_machine_whose_clock_was_years_ahead_in_an_earlier_boot_fires_again(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, settings(nightly={"any": [{"cron": "0 3 * * *"}]}), wall=NOON.replace(year=2050))
    home.come(30)
    home.run(3600, 48)
    assert len(home.fired) == 1
    home.wall, home.elapsed_s, home.boot = NOON, 5.0, "boot-2"
    home.restart()
    home.come(30)
    home.run(3600, 48)
    assert len(home.fired) == 2


TAKEN = (DeviceSeen(slot=0, name="cuda:0", foreign="pid 7 (game) with 9000 MiB"),)
HELD_UP = {
    "stopped": {},
    "paused": {"paused": "by ann"},
    "closed": {"closed": "quiet hours"},
    "taken": {"devices": TAKEN},
    "full": {"disk": DiskSeen(low="full")},
}


@pytest.mark.parametrize("trouble", HELD_UP)
def test_what_is_held_up_fires_once_when_it_may(tmp_path: Path, trouble: str) -> None:
    home = FiringHome(tmp_path, NIGHTLY)
    home.come(30)
    home.stopped = {ADAPTER} if trouble == "stopped" else set()
    home.facts = dict(HELD_UP[trouble])
    home.restart()
    home.run(600, 5 * 24 * 6)
    assert home.fired == []
    home.stopped.clear()
    home.facts = {}
    home.run(60, 60)
    assert len(home.fired) == 1


def test_rows_that_the_gate_gave_back_do_not_go_round_and_round(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(600)
    home.run(1, 30)
    home.signals.pending[ADAPTER] = [home.wall] * 600
    home.restart()
    home.run(600, 2 * 24 * 6)
    assert len(home.fired) == 1
    home.come(20)
    home.run(60, 2)
    assert [rows for *_, rows in home.fired] == [600, 620]


def test_adapters_fire_by_themselves(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    for number in range(5):
        home.come(300 + 100 * number, f"p{number}/main")
    home.run(1, 60)
    assert sorted(adapter for adapter, *_ in home.fired) == ["p2/main", "p3/main", "p4/main"]


def test_a_changed_source_fires_and_what_it_was_is_remembered_over_restarts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.md").write_text("one")
    home = FiringHome(tmp_path / "home", settings(faq={"any": [{"changed": str(source)}], "cooldown_s": 0}))
    home.come(50)
    home.run(60, 10)
    assert home.fired == []
    (source / "a.md").write_text("three")
    home.restart()
    home.run(60, 10)
    assert len(home.fired) == 1
    home.come(50)
    home.restart()
    home.run(60, 10)
    assert len(home.fired) == 1


def test_a_release_that_users_are_less_and_less_content_with_is_trained_again_and_its_successor_judged_by_itself(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, settings(worse={"any": [{"metric": USER_SATISFACTION}], "cooldown_s": 0}))
    home.live = {ADAPTER: "release-1"}
    home.come(50)
    remember_samples(home.home, ADAPTER, [judged(home, "release-1", bad=19, of=100), judged(home, "release-0", bad=90, of=100)])
    home.run(60, 10)
    assert home.fired == []
    remember_samples(home.home, ADAPTER, [judged(home, "release-1", bad=21, of=100)])
    home.run(60, 10)
    assert [trigger for _, trigger, _, _ in home.fired] == ["worse"]
    home.live = {ADAPTER: "release-2"}
    home.come(50)
    home.run(60, 10)
    assert len(home.fired) == 1, "nobody has judged the new one yet"


def judged(home: FiringHome, release: str, *, bad: int, of: int) -> Tally:
    since = NOON.replace(hour=11)
    known = {"release": release, "version": 1, "measure": USER_SATISFACTION, "counted": Counted.SHARE}
    return Tally(since=since, until=since + timedelta(hours=1), hits=bad, out_of=of, **known)  # type: ignore[arg-type]


def test_a_reload_takes_over_other_triggers_and_a_wrong_cron_is_told_by_its_place(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(100)
    home.run(1, 30)
    home.config = settings(few={"any": [{"rows": 100}]})
    home.run(1, 30)
    assert [trigger for _, trigger, _, _ in home.fired] == ["few"]
    with pytest.raises(ConfigError, match=r"triggers\.bad\.all\.1\.cron = '61 \* \* \* \*'"):
        check_crons(settings(bad={"all": [{"rows": 1}, {"cron": "61 * * * *"}]}))


def test_a_damaged_memory_begins_anew_and_fires_at_most_once_more(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(600)
    home.run(1, 30)
    home.home.triggers.write_text("{")
    home.restart()
    home.run(1, 30)
    assert len(home.fired) == 1


# ---------------------------------------------------------------- by hand


def command(name: str = "", **more: object) -> Command:
    known = {"id": "command-1", "kind": CommandKind.TRIGGER, "adapter": ADAPTER, "actor": "ann", "details": {"what": "fire", "name": name}}
    return Command(made_at=NOON, expires_at=NOON + timedelta(seconds=60), **(known | more))  # type: ignore[arg-type]


def asked(home: FiringHome, wish: Command) -> tuple[bool, str, str]:
    home.triggers.fire(wish, home.wall)
    answer = read_answer(home.home.commands / f"{wish.id}.answer.json")
    assert answer is not None
    return answer.ok, answer.code, answer.made


def test_a_person_fires_what_no_condition_would_and_a_repeat_of_the_wish_is_the_same_batch(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, NIGHTLY)
    home.come(3)
    home.stopped = {ADAPTER}
    home.restart()
    assert asked(home, command("nightly")) == (True, "", "batch-command-1")
    home.restart()
    home.come(3)
    assert asked(home, command("nightly")) == (True, "", "batch-command-1")
    assert [(trigger, rows) for _, trigger, _, rows in home.fired] == [("nightly", 3)]


def test_a_wish_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, NIGHTLY)
    assert asked(home, command())[:2] == (False, "NOTHING_PENDING")
    home.come(3)
    assert asked(home, command("weekly"))[:2] == (False, "TRIGGER_UNKNOWN")
    assert home.fired == []


def test_after_a_person_fired_the_cool_down_holds_for_the_others(tmp_path: Path) -> None:
    home = FiringHome(tmp_path, ENOUGH)
    home.come(10)
    asked(home, command())
    home.come(600)
    home.run(60, 59)
    assert len(home.fired) == 1
    home.run(60, 5)
    assert len(home.fired) == 2
