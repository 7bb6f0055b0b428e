"""When pending signals become a drop: each kind of condition, what brakes it, and the words in which it is explained."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from core.conditions import Came, Firing, Part, Past, Seen, Stamp, cron_key, mark_key, metric_key, span
from core.learning import DEFAULT_TRIGGERS, TriggerConfig
from core.opinions import Measured
from core.triggers import CALM_S, LINGER_S, LONGEST_S, Judgement, after_firing, anchored, covered, first_marks, judge, passed_over, pruned

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)  # a Monday
NOW = Stamp(at=NOON, elapsed_s=5000, boot="b")
ENOUGH = DEFAULT_TRIGGERS["enough"]


def seen(rows: int = 0, **more: object) -> Seen:
    known = {"adapter": "support/tone", "now": NOW, "rows": rows, "arrived": rows, "oldest_at": NOON - timedelta(hours=1) if rows else None}
    return Seen(**(known | more))  # type: ignore[arg-type]


def trigger(*any: dict[str, object], all: tuple[dict[str, object], ...] = (), **more: object) -> TriggerConfig:
    return TriggerConfig.model_validate({"any": any, "all": all, **more})


def fired(ago_s: float, rows: int = 500) -> Past:
    stamp = Stamp(at=NOON - timedelta(seconds=ago_s), elapsed_s=NOW.elapsed_s - ago_s, boot="b")
    return Past(firings=(Firing(key="k", trigger="enough", stamp=stamp, rows=rows, why="", batch="batch-1"),), arrived=0)


def part(found: Judgement, number: int = 0) -> Part:
    return (*found.any, *found.all)[number]


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(("rows", "hours", "fires"), [(499, 1, False), (500, 1, True), (20, 167.9, False), (20, 168, True), (19, 1000, False), (0, 0, False)])
def test_five_hundred_rows_or_a_week_with_at_least_the_minimum_whichever_comes_first(rows: int, hours: float, fires: bool) -> None:
    assert judge("enough", ENOUGH, seen(rows, oldest_at=NOON - timedelta(hours=hours)), Past()).fires is fires


def test_an_age_says_when_it_will_be_reached_by_itself() -> None:
    found = judge("enough", ENOUGH, seen(30, oldest_at=NOON - timedelta(days=6)), Past())
    assert found.next_at == NOON + timedelta(days=1)
    assert found.words == "30 of 500 pending rows and the oldest pending row is 6 d old, of 7 d"
    assert found.next_in_words == "Tue 2026-06-02 12:00 (in 1 d)"


def test_too_few_new_rows_have_no_time_at_which_they_will_be_enough() -> None:
    found = judge("enough", ENOUGH, seen(5), Past())
    assert (found.next_at, found.next_in_words) == (None, "when there are more new rows")
    assert "5 new rows, of at least 20" in found.words


def test_a_cron_holds_from_its_time_until_it_has_fired_or_was_passed_over() -> None:
    config, key = trigger({"cron": "0 3 * * *"}), cron_key("nightly", "0 3 * * *")
    three = NOON.replace(hour=3)
    waiting = seen(50, comes={key: three + timedelta(days=1)})
    assert judge("nightly", config, waiting, Past()).next_at == three + timedelta(days=1)
    came = replace(waiting, came={key: Came(at=three, noticed=NOW)})
    assert judge("nightly", config, came, Past()).fires
    assert judge("nightly", config, came, Past()).why == '"0 3 * * *" came Mon 2026-06-01 03:00'
    assert not judge("nightly", config, came, Past(done={key: three})).fires


def test_the_time_of_a_cron_is_passed_over_only_after_rows_on_their_way_had_time_to_arrive() -> None:
    config, key = trigger({"cron": "0 3 * * *"}), cron_key("nightly", "0 3 * * *")

    def late(seconds: float) -> Seen:
        return seen(5, came={key: Came(at=NOON, noticed=replace(NOW, elapsed_s=NOW.elapsed_s - seconds))})

    assert passed_over("nightly", config, late(LINGER_S - 1), Past()) == {}
    assert passed_over("nightly", config, late(LINGER_S), Past()) == {key: NOON}
    assert passed_over("nightly", config, late(LINGER_S), Past(done={key: NOON})) == {}, "once"


@pytest.mark.parametrize(("value", "count", "fires"), [(0.79, 50, True), (0.8, 50, False), (0.0, 19, False)])
def test_a_quality_drop_fires_below_its_bound_with_enough_that_was_judged(value: float, count: float, fires: bool) -> None:
    config = trigger({"metric": "user_satisfaction"})
    readings = {metric_key("user_satisfaction", 86400): Measured(value=value, count=count)}
    found = judge("worse", config, seen(50, readings=readings), Past())
    assert found.fires is fires
    assert f"user_satisfaction is {value:g} (of {count:g}), wanted below 0.8" in part(found).words
    assert not judge("worse", config, seen(50), Past()).fires, "nothing is known of it"


def test_a_changed_file_fires_once_and_one_that_is_seen_for_the_first_time_does_not() -> None:
    config, key = trigger({"changed": "/d/faq.md"}, cooldown_s=0), mark_key("faq", "/d/faq.md")
    first = seen(50, marks={"/d/faq.md": "1"})
    assert not judge("faq", config, first, Past()).fires
    past = Past(marks=first_marks("faq", config, first, Past()))
    assert past.marks == {key: "1"}
    changed = replace(first, marks={"/d/faq.md": "2"})
    assert judge("faq", config, changed, past).fires
    after = after_firing(past, Firing(key="k", trigger="faq", stamp=NOW, rows=50, why=""), config, changed)
    assert not judge("faq", config, replace(changed, rows=90, arrived=90), after).fires
    assert not judge("faq", config, replace(changed, marks={"/d/faq.md": ""}), past).fires, "a file that is gone is no data"


def test_conditions_are_combined_by_and_and_or() -> None:
    night, key = {"cron": "0 3 * * *"}, cron_key("t", "0 3 * * *")
    came = {key: Came(at=NOON, noticed=NOW)}
    both, either = trigger(all=({"rows": 100}, night)), trigger({"rows": 100}, night)
    assert not judge("t", both, seen(50, came=came), Past()).fires
    assert not judge("t", both, seen(100), Past()).fires
    assert judge("t", both, seen(100, came=came), Past()).fires
    assert judge("t", either, seen(50, came=came), Past()).fires
    assert judge("t", either, seen(100), Past()).fires
    assert not judge("t", either, seen(50), Past()).fires
    assert not judge("t", trigger({"rows": 100}, all=(night,)), seen(50, came=came), Past()).fires


@pytest.mark.parametrize("text", [{"any": []}, {"any": [{"rows": 5, "after_s": 9}]}, {"any": [{}]}, {"any": [{"rows": 5}], "adapter": "A/b/c"}])
def test_a_trigger_that_asks_for_nothing_or_for_two_things_at_once_is_refused(text: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TriggerConfig.model_validate(text)


def test_a_trigger_is_about_one_adapter_or_about_each() -> None:
    assert covered(ENOUGH, "a/b")
    assert covered(trigger({"rows": 1}, adapter="a/b"), "a/b")
    assert not covered(trigger({"rows": 1}, adapter="a/b"), "a/c")


# ---------------------------------------------------------------- brakes


def test_rows_that_were_there_when_it_fired_last_are_not_new() -> None:
    past = replace(fired(7200), arrived=600)
    assert not judge("enough", ENOUGH, seen(600, arrived=619), past).fires, "given back by the gate, with 19 more"
    assert judge("enough", ENOUGH, seen(600, arrived=620), past).fires
    assert judge("enough", ENOUGH, seen(599, arrived=600, quarantined=1), past).fires, "the row that the gate refused is out"
    assert not judge("enough", ENOUGH, seen(599, arrived=600, quarantined=1), replace(past, quarantined=1)).fires
    assert judge("enough", ENOUGH, seen(600, arrived=600), replace(past, arrived=9000)).fires, "signals of an older backup"


def test_rows_beyond_one_batch_are_new_until_they_are_in_the_next() -> None:
    storm = seen(50_000, arrived=50_000)
    past = after_firing(Past(), fired(0).firings[0], ENOUGH, storm)
    rest = seen(30_000, arrived=50_000)
    assert judge("enough", ENOUGH, rest, replace(past, firings=())).fires
    assert not judge(
        "enough", ENOUGH, seen(20, arrived=50_000), replace(after_firing(Past(), fired(0).firings[0], ENOUGH, rest), arrived=50_000, firings=())
    ).fires


def test_a_cool_down_counts_from_the_last_firing_of_the_adapter_whoever_fired() -> None:
    found = judge("enough", ENOUGH, seen(600), fired(3599))
    assert not found.fires
    assert found.next_at == NOON + timedelta(seconds=1)
    assert found.words == "cools down after 'enough' until Mon 2026-06-01 12:00"
    assert judge("enough", ENOUGH, seen(600), fired(3600)).fires


def test_the_cap_per_day_counts_any_twenty_four_hours() -> None:
    times = [
        Firing(key=str(ago), trigger="enough", stamp=replace(NOW, elapsed_s=NOW.elapsed_s - ago * 3600), rows=1, why="", batch="b") for ago in (23, 15, 10, 2)
    ]
    found = judge("enough", ENOUGH, seen(600), Past(firings=tuple(times)))
    assert not found.fires
    assert found.next_at == NOON + timedelta(hours=1), "when the first of the four is a day ago"
    assert judge("enough", ENOUGH, seen(600), Past(firings=tuple(times[1:]))).fires


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"stopped": True}, "continuous mode of support/tone is stopped"),
        ({"busy": "job-1 is training"}, "job-1 is training"),
        ({"waits": "cuda:0 is held by pid 7"}, "nothing may train: cuda:0 is held by pid 7"),
    ],
)
def test_what_holds_up_training_holds_up_firing_so_that_later_rows_come_along(more: dict[str, object], words: str) -> None:
    found = judge("enough", ENOUGH, seen(600, **more), Past())
    assert (found.fires, found.holds, found.words, found.next_at) == (False, True, words, None)


def test_the_next_time_lies_where_the_calendar_is_open() -> None:
    ten = NOON + timedelta(hours=10)
    closed = seen(600, waits="quiet hours", opens=lambda at: max(at, ten))
    assert judge("enough", ENOUGH, closed, Past()).next_at == ten
    aging = seen(30, oldest_at=NOON - timedelta(days=6, hours=23), opens=lambda at: ten if NOON < at < ten else at)
    assert judge("enough", ENOUGH, aging, Past()).next_at == ten, "the age is reached within quiet hours"


def test_while_rows_pour_in_nothing_fires_but_not_for_ever() -> None:
    pouring = seen(600, calm_s=CALM_S - 1)
    found = judge("enough", ENOUGH, pouring, Past())
    assert (found.fires, found.pours, found.words) == (False, True, "rows are still coming in")
    assert found.next_at == NOON + timedelta(seconds=1)
    assert judge("enough", ENOUGH, replace(pouring, calm_s=CALM_S), Past()).fires
    assert judge("enough", ENOUGH, pouring, Past(), ripe_s=LONGEST_S).fires


# ---------------------------------------------------------------- clocks


def test_a_clock_that_is_set_neither_ends_a_cool_down_nor_makes_it_endless() -> None:
    past = fired(60)
    for jump in (timedelta(days=30), timedelta(days=-30)):
        later = seen(600, now=Stamp(at=NOON + jump, elapsed_s=NOW.elapsed_s + 3000, boot="b"))
        assert not judge("enough", ENOUGH, later, past).fires
        assert judge("enough", ENOUGH, replace(later, now=replace(later.now, elapsed_s=NOW.elapsed_s + 3540)), past).fires


def test_a_firing_that_lies_ahead_because_the_clock_of_an_earlier_boot_was_wrong_counts_as_now() -> None:
    after_boot = Stamp(at=NOON - timedelta(days=300), elapsed_s=9, boot="c")
    past = anchored(replace(fired(60), done={"nightly 0 3 * * *": NOON}), after_boot)
    assert past.last is not None
    assert past.last.stamp == after_boot
    assert past.done["nightly 0 3 * * *"] == after_boot.at
    assert anchored(fired(60), NOW) == fired(60)


# ---------------------------------------------------------------- memory and words


def test_what_is_remembered_stays_short_and_forgets_triggers_that_are_gone() -> None:
    past = Past()
    for hour in range(72):
        now = Stamp(at=NOON + timedelta(hours=hour), elapsed_s=hour * 3600.0, boot="b")
        past = after_firing(past, Firing(key=str(hour), trigger="t", stamp=now, rows=1, why=""), None, seen(now=now))
    assert [one.key for one in past.firings] == [str(hour) for hour in range(48, 72)]
    past = replace(past, done={"gone 0 3 * * *": NOON, "kept 0 3 * * *": NOON}, marks={"gone /x": "1"})
    assert pruned(past, {"kept": trigger({"cron": "0 3 * * *"})}).done == {"kept 0 3 * * *": NOON}
    assert pruned(past, {}).marks == {}


def test_times_are_told_in_the_zone_of_the_schedule() -> None:
    found = judge("enough", ENOUGH, seen(600, zone=ZoneInfo("Asia/Tokyo")), fired(60))
    assert found.words == "cools down after 'enough' until Mon 2026-06-01 21:59"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59.6, "1 min"), (3600, "1 h"), (90061, "1 d 1 h"), (604800, "7 d"), (-5, "0 s")])
def test_a_span_of_time_has_two_units_at_most(seconds: float, words: str) -> None:
    assert span(seconds) == words
