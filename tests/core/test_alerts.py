"""Which alerts come up, when each is told, told again and taken back, and what is sent again when a channel fails."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.alerts import RULES, Alert, Happening, Scene, Severity, find, holds, window_key
from core.config import Config
from core.facts import DeviceSeen, DiskSeen, Facts
from core.logtail import shareable, without_quotes
from core.measures import Measure
from core.notices import BURST, Book, Notice, turn
from core.outbox import MOST, Outbox, Sent, after, due, put
from core.records import JobState, VerdictWord
from core.sections import AlertsConfig
from core.stillness import movement, queue_should_move, should_move
from core.trends import Against, Regression

sys.path.insert(0, str(Path(__file__).parent))
from world import START, World

CONFIG = AlertsConfig()
HOUR = timedelta(hours=1)


def scene(facts: Facts, **more: object) -> Scene:
    return Scene(facts=facts, now=START, **more)  # type: ignore[arg-type]


def config(**values: object) -> Config:
    return Config(allow_stub=True, alerts=AlertsConfig(**values))  # type: ignore[arg-type]


def low_disk() -> dict[str, Alert]:
    return find(scene(replace(World().facts(), disk=DiskSeen(low="12 MB free of the 1024 MB floor"))))


def refusals(*drops: str) -> dict[str, Alert]:
    happened = tuple(Happening(kind="drop.rejected", about=drop, words={"adapter": "a/main", "file": "x.jsonl", "code": "M02"}) for drop in drops)
    return find(scene(World().facts(), happenings=happened))


def fallen() -> Regression:
    return Regression(
        adapter="ada/main",
        measure="bad answers",
        release="r2",
        version=2,
        against=Against.BEFORE,
        since=datetime(2026, 3, 1, tzinfo=UTC),
        before=0.05,
        now=0.2,
        worse_by=0.15,
        low=0.06,
        high=0.24,
        count=200,
        goes_back_to="r1",
    )


def to_verdict(world: World, job: str, word: VerdictWord) -> None:
    """Let every child of the job succeed until it is held, or waits for the box."""
    for _ in range(20):
        while world.tick():
            pass
        for owner, _run in world.working():
            world.finish(owner, word=word)
        if world.state(job) is JobState.HELD or (world.desired is not None and not world.working()):
            return
    raise AssertionError(world.starts)


def kinds(notices: tuple[Notice, ...]) -> list[str]:
    return [notice.kind for notice in notices]


# ---------------------------------------------------------------- what comes up


def test_a_world_in_order_has_no_alert() -> None:
    world = World()
    world.queue()
    assert find(scene(world.facts())) == {}


def test_each_thing_that_is_wrong_comes_up_under_its_name() -> None:
    hot = DeviceSeen(slot=0, name="cuda:0 X", hot="cuda:0 has 92 °C")
    facts = replace(World().facts(), disk=DiskSeen(low="no room"), devices=(hot,), regressions=(fallen(),))
    happened = (
        Happening(kind="job.failed", about="job-1", words={"code": "BAD_DATA", "reason": "no rows are left", "adapter": "a/main", "run": "01-train"}),
        Happening(kind="drop.rejected", about="drop-1", words={"file": "x.jsonl", "code": "M02"}),
        Happening(kind="daemon.restarted", words={"at": "2026-03-01T00:00:00Z"}),
    )
    found = find(scene(facts, happenings=happened, still_s={"queue": 99999.0}))
    assert {alert.rule for alert in found.values()} == set(RULES) - {"no_activation", "verdict_waits", "rolled_back", "iteration_waits", "iteration_went_back"}
    failed = found["failed_job/job-1"]
    assert (failed.job, failed.run, failed.severity, failed.next) == ("job-1", "01-train", Severity.CRITICAL, "lorad jobs show job-1")
    assert "BAD_DATA: no rows are left" in failed.reason
    fell = found["quality_fell/ada/main, bad answers"]
    assert (fell.title, fell.next) == ("ada/main@v2 got worse", "lorad adapters history ada/main")
    assert "worse by 0.15 (+0.06 to +0.24), since 2026-03-01" in fell.reason
    assert all(alert.next for alert in found.values())


def test_a_held_job_waits_for_a_person_and_the_alert_names_the_command() -> None:
    world = World()
    job = world.queue()
    to_verdict(world, job, VerdictWord.HOLD)
    alert = find(scene(world.facts()))[f"verdict_waits/{job}"]
    assert f"lorad jobs approve {job}" in alert.next
    assert alert.reason == "the verdict is hold"


def test_a_release_that_no_target_confirms_is_told_after_stuck_s_with_the_targets_own_words() -> None:
    world = World(box_up=False)
    job = world.queue()
    to_verdict(world, job, VerdictWord.PROMOTE)
    facts = world.facts()
    assert world.state(job) == "releasing"
    assert find(scene(facts, still_s={job: CONFIG.stuck_s - 1})) == {}
    alert = find(scene(facts, still_s={job: CONFIG.stuck_s + 1}))[f"no_activation/{job}"]
    assert alert.severity is Severity.CRITICAL
    assert "30 min" in alert.reason


def test_what_config_turns_off_is_not_found_and_no_end_is_told_of_it() -> None:
    book, _ = turn(Book(begun_at=START), low_disk(), CONFIG, START)
    off = AlertsConfig(off=("low_disk",))
    facts = replace(World(config=config(off=("low_disk",))).facts(), disk=DiskSeen(low="no room"))
    assert find(scene(facts)) == {}
    assert turn(book, {}, off, START + HOUR)[1] == ()


# ---------------------------------------------------------------- what should move


def test_a_training_moves_by_its_steps_and_a_pause_for_heat_is_no_standstill() -> None:
    world = World()
    job_id = world.queue()
    world.tick()
    facts = world.facts()
    job, child = facts.jobs[job_id], facts.children[job_id]
    steps = [replace(facts, children={job_id: replace(child, step=step, median_step_s=1.0)}) for step in (4, 4, 5)]
    marks = [movement(job, one) for one in steps]
    assert marks[0] == marks[1] != marks[2]
    assert should_move(job, facts)
    assert not should_move(job, replace(facts, devices=(DeviceSeen(slot=0, name="cpu", held="hot"),)))
    assert not should_move(job, replace(facts, stopping=True))


def test_a_queue_should_move_only_while_nothing_says_why_it_waits() -> None:
    world = World()
    world.queue()
    facts = world.facts()
    assert queue_should_move(facts, START)
    assert not queue_should_move(replace(facts, paused="paused by ann"), START)
    assert not queue_should_move(replace(facts, free_slots=()), START)
    assert not queue_should_move(replace(facts, disk=DiskSeen(low="no room")), START)


# ---------------------------------------------------------------- rules of one's own


@pytest.mark.parametrize(("bound", "value", "true"), [({"above": 80.0}, 81.0, True), ({"above": 80.0}, 80.0, False), ({"below": 5.0}, 4.0, True)])
def test_an_own_rule_holds_beyond_its_bound(bound: dict[str, float], value: float, true: bool) -> None:
    rule = config(rules={"warm": {"metric": "lorad_gpu_celsius", **bound}}).alerts.rules["warm"]
    assert holds(rule, Measure("gpu_celsius", value)) is true
    assert not holds(rule, Measure("cpu_celsius", value))


def test_an_own_rule_is_told_once_it_has_held_for_its_window_for_each_gpu_by_itself() -> None:
    world = World(config=config(rules={"warm": {"metric": "gpu_celsius", "above": 80.0, "for_s": 60.0, "severity": "critical"}}))
    measures = tuple(Measure("gpu_celsius", 85.0, (("gpu", name),)) for name in ("cuda:0", "cuda:1"))
    keys = [window_key("warm", measure) for measure in measures]
    found = find(scene(world.facts(), measures=measures, true_s={keys[0]: 61.0, keys[1]: 59.0}))
    assert list(found) == ["rules.warm/gpu=cuda:0"]
    assert found["rules.warm/gpu=cuda:0"].severity is Severity.CRITICAL
    assert "85" in found["rules.warm/gpu=cuda:0"].reason


# ---------------------------------------------------------------- when it is told


def test_an_alert_is_told_once_while_it_lasts_and_once_more_when_it_is_over() -> None:
    book = Book(begun_at=START)
    told = []
    for second in range(30):
        book, notices = turn(book, low_disk() if second < 20 else {}, CONFIG, START + timedelta(seconds=second))
        told += kinds(notices)
    assert told == ["opened", "resolved"]


def test_what_lasts_is_told_again_after_the_cooldown_and_then_ever_more_rarely() -> None:
    book = Book(begun_at=START)
    told = []
    for minute in range(12 * 60):
        book, notices = turn(book, low_disk(), CONFIG, START + timedelta(minutes=minute))
        told += [(minute // 60, kind) for kind in kinds(notices)]
    assert told == [(0, "opened"), (1, "reminder"), (3, "reminder"), (7, "reminder")]


def test_what_flaps_is_told_once_in_a_cooldown_and_says_how_often_it_came_up() -> None:
    book = Book(begun_at=START)
    told = []
    for minute in range(61):
        book, notices = turn(book, low_disk() if minute % 2 == 0 else {}, CONFIG, START + timedelta(minutes=minute))
        told += notices
    assert kinds(tuple(told)) == ["opened", "resolved", "opened"]
    assert told[-1].more == 29  # at minutes 2, 4 … 58


def test_the_same_passing_alert_within_the_cooldown_is_counted_and_not_told() -> None:
    restarted = find(scene(World().facts(), happenings=(Happening(kind="daemon.restarted"),)))
    book, first = turn(Book(begun_at=START), restarted, CONFIG, START)
    for minute in range(1, 6):
        book, notices = turn(book, restarted, CONFIG, START + timedelta(minutes=minute))
        assert notices == ()
    book, last = turn(book, restarted, CONFIG, START + HOUR)
    assert (kinds(first), kinds(last), last[0].more) == (["happened"], ["happened"], 5)
    assert turn(book, {}, CONFIG, START + HOUR)[1] == ()


def test_of_a_flood_the_first_are_told_and_the_rest_as_one_number() -> None:
    book, first = turn(Book(begun_at=START), refusals(*(f"drop-{number}" for number in range(5000))), CONFIG, START)
    assert kinds(first) == ["happened"] * BURST
    book, quiet = turn(book, {}, CONFIG, START + timedelta(minutes=5))
    assert quiet == ()
    book, later = turn(book, {}, CONFIG, START + timedelta(minutes=11))
    assert kinds(later) == ["more"]
    assert f"{5000 - BURST:,} more" in later[0].alert.title
    assert turn(book, {}, CONFIG, START + timedelta(minutes=12))[1] == ()
    assert len(book.entries) <= 500


def test_a_clock_set_back_by_a_day_silences_nothing() -> None:
    book, _ = turn(Book(begun_at=START), refusals("drop-1"), CONFIG, START)
    assert kinds(turn(book, refusals("drop-1"), CONFIG, START - timedelta(days=1))[1]) == ["happened"]


def test_a_cooldown_of_nothing_is_no_storm_of_reminders() -> None:
    at_once = AlertsConfig(cooldown_s=0)
    book, told = Book(begun_at=START), 0
    for second in range(50):
        book, notices = turn(book, low_disk(), at_once, START + timedelta(seconds=second))
        told += len(notices)
    assert told == 1


def test_the_book_is_the_same_object_where_nothing_is_new_so_that_nothing_is_saved() -> None:
    book, _ = turn(Book(begun_at=START), low_disk(), CONFIG, START)
    assert turn(book, low_disk(), CONFIG, START + timedelta(seconds=1))[0] is book


# ---------------------------------------------------------------- what leaves the machine


def test_no_text_of_a_row_leaves_with_a_log() -> None:
    secret = "my name is Alice"
    lines = [
        f"2026-03-01 10:00:00,000 ERROR trainer.run: ValueError: cannot read {secret!r}",
        "Traceback (most recent call last):",
        '  File "/opt/lorad/trainer/rows.py", line 12, in read',
        f"    parse({secret!r})",
        '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode',
        f"json.decoder.JSONDecodeError: {secret}",
        f"2026-03-01 10:00:00,000 INFO transformers.tokens: {secret}",
        "2026-03-01 10:00:01,000 WARNING trainer.run: the disk is full",
        secret,
    ]
    kept = shareable(lines)
    assert secret not in " ".join(kept)
    assert kept == ("ERROR trainer.run: ValueError", "at trainer/rows.py:12 in read", "json.decoder.JSONDecodeError", "WARNING trainer.run: the disk is full")
    assert secret not in without_quotes(f"KeyError: {secret}")
    assert without_quotes("no sign of life for 300 s") == "no sign of life for 300 s"


# ---------------------------------------------------------------- sending


def _notices(count: int) -> tuple[Notice, ...]:
    alert = next(iter(low_disk().values()))
    return tuple(Notice(id=f"n{number}", kind="opened", at=START, alert=alert, opened_at=START) for number in range(count))


def test_a_channel_that_failed_is_tried_again_later_and_later_and_the_others_are_not() -> None:
    outbox, now = put(Outbox(), _notices(1)), START
    waits = []
    for _ in range(5):
        outbox = after(outbox, {"n0": Sent(delivered=("webhook",), failed={"mailto-1": "no route"})}, now)
        assert outbox.waiting[0].delivered == ("webhook",)
        assert due(outbox, now) == ()
        not_before = outbox.waiting[0].not_before
        assert not_before is not None
        waits.append((not_before - now).total_seconds())
        now = not_before
        assert len(due(outbox, now)) == 1
    assert waits == sorted(waits)
    assert outbox.failed == {"mailto-1": "no route"}
    outbox = after(outbox, {"n0": Sent(delivered=("mailto-1",))}, now)
    assert (outbox.waiting, outbox.failed, outbox.given_up) == ((), {}, 0)


def test_a_notice_is_given_up_after_a_day_and_the_outbox_is_bounded() -> None:
    outbox = after(put(Outbox(), _notices(1)), {"n0": Sent(failed={"webhook": "gone"})}, START + timedelta(hours=25))
    assert (outbox.waiting, outbox.given_up, outbox.failed) == ((), 1, {"webhook": "gone"})
    full = put(Outbox(), _notices(MOST + 7))
    assert (len(full.waiting), full.given_up) == (MOST, 7)
