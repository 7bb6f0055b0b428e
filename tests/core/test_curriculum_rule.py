"""When a level moves, and what is done for a skill next: by the rule over a simulated year, and never twice for one cooldown."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.curriculum import Course, Does, Evaluation, Move, SkillSeen, Trouble, choose, is_mastered, learnt, mix, once_more, wants_baseline
from core.learning import AutoGenerateConfig, SkillConfig

AT = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEVELS = (1, 2, 3, 4, 5)
AUTO = AutoGenerateConfig(enabled=True)
ROWS = 100


def rule(**values: float) -> SkillConfig:
    return SkillConfig(url="http://127.0.0.1:1", **values)  # type: ignore[arg-type]


def evaluation(right: int, level: int = 1, at: datetime = AT, **more: object) -> Evaluation:
    seeds = {"first_seed": 7, "last_seed": 7, "generator": "adder", "generator_version": "1", "base_sha256": "b"}
    return Evaluation(**{"id": f"{at}", "at": at, "skill": "adding", "level": level, "rows": ROWS, "right": right, **seeds, **more})  # type: ignore[arg-type]


def course(level: int = 1, **more: object) -> Course:
    return Course(**{"skill": "adding", "adapter": "skills/adding", "level": level, "since": AT, **more})  # type: ignore[arg-type]


def after(*rights: int, level: int = 1, **shares: float) -> Course:
    found = course(level, levels=LEVELS)
    for place, right in enumerate(rights):
        found = learnt(found, evaluation(right, found.level, AT + place * HOUR), rule(**shares), LEVELS)
    return found


# --- the rule


def test_80_percent_over_three_evaluations_move_a_level_up() -> None:
    assert after(100, 100).level == 1, "two are not enough"
    assert after(79, 81, 79).level == 1, "239 of 300 are below 80 %"
    up = after(79, 81, 80)
    assert (up.level, up.evaluations, up.moved and (up.moved.before, up.moved.after)) == (2, (), (1, 2))
    assert after(0, 0, 0, 100, 100).level == 1
    assert after(0, 0, 0, 100, 100, 100).level == 2, "the newest three count"


def test_sustained_failure_moves_down_and_one_bad_day_does_not() -> None:
    assert after(10, 10, level=3).level == 3
    assert after(60, 0, 60, level=3).level == 3
    down = after(29, 30, 30, level=3)
    assert (down.level, down.moved and down.moved.why) == (2, "30% right over 3 evaluations, below 30%")
    assert after(0, 0, 0, level=1).level == 1, "there is nothing below the first"
    assert after(100, 100, 100, level=5).level == 5, "and nothing above the last"


def test_bounds_and_counts_come_from_the_config() -> None:
    assert after(60, up_share=0.6, up_evaluations=1).level == 2
    assert after(49, level=2, down_share=0.5, down_evaluations=1).level == 1
    with pytest.raises(ValidationError, match="must be below up_share"):
        rule(up_share=0.5, down_share=0.5)


def test_only_evaluations_by_the_same_teacher_on_the_same_base_count_together() -> None:
    for other in ({"generator_version": "2"}, {"base_sha256": "c"}, {"generator": "mine"}):
        found = learnt(after(100, 100), evaluation(100, **other), rule(), LEVELS)
        assert (found.level, len(found.evaluations)) == (1, 1), other


def test_an_evaluation_of_another_level_than_the_present_one_moves_nothing() -> None:
    moved = course().with_level(Move(at=AT, skill="adding", before=1, after=3, why="set by ann"))
    late = learnt(moved, evaluation(0, level=1), rule(down_evaluations=1), LEVELS)
    assert (late.level, late.evaluations, late.num_exams) == (3, (), {1: 1})


def test_the_base_is_measured_once_for_each_level_base_and_version() -> None:
    known = course(baselines={1: evaluation(10)})
    assert not wants_baseline(known, "b", "adder", "1")
    assert wants_baseline(known, "c", "adder", "1")
    assert wants_baseline(known, "b", "adder", "2")
    assert wants_baseline(replace(known, level=2), "b", "adder", "1")


class Oracle:
    """The rule once more, told another way: a list of all that happened, searched from its end."""

    def __init__(self) -> None:
        self.level, self.seen = 1, list[tuple[int, int] | None]()  # (level, right); None where the level moved

    def hear(self, right: int) -> None:
        self.seen.append((self.level, right))
        newest: list[int] = []
        for one in reversed(self.seen):
            if one is None or len(newest) == 3:
                break
            newest.append(one[1])
        if len(newest) < 3:
            return
        step = 1 if sum(newest) >= 240 and self.level < 5 else -1 if sum(newest) < 90 and self.level > 1 else 0
        if step:
            self.level += step
            self.seen.append(None)


@pytest.mark.parametrize("seed", range(5))
def test_over_a_simulated_year_the_level_is_what_the_rule_says(seed: int) -> None:
    """A learner that gains by practice, forgets in summer, and has bad days; an evaluation every two hours."""
    rng, oracle, found = random.Random(seed), Oracle(), course(levels=LEVELS)  # noqa: S311 - a simulation
    ability, moves = 0.2, list[Move]()
    for place in range(365 * 12):
        at = AT + place * 2 * HOUR
        ability += rng.uniform(-0.002, 0.006) if not 5 <= at.month <= 8 else rng.uniform(-0.006, 0.002)
        ability = min(max(ability, 0.0), 6.5)
        share = 1 / (1 + math.exp(1.5 * (found.level - ability))) if rng.random() > 0.02 else 0
        right = sum(rng.random() < share for _ in range(ROWS))
        before = found
        found = learnt(found, evaluation(right, found.level, at), rule(), LEVELS)
        oracle.hear(right)
        assert found.level == oracle.level, at
        if found.moved != before.moved and found.moved is not None:
            moves.append(found.moved)
            assert abs(found.moved.after - found.moved.before) == 1
            assert len(before.evaluations) >= 2, "never on fewer than three"
    assert {move.after > move.before for move in moves} == {True, False}, "a year has both"
    assert len(moves) < 100, "and no level that swings to and fro"


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, 9)), max_size=60))
def test_whatever_comes_the_level_stays_within_the_teacher_s(steps: list[tuple[int, int]]) -> None:
    found, oracle = course(levels=LEVELS), Oracle()
    for place, (right, _) in enumerate(steps):
        found = learnt(found, evaluation(right, found.level, AT + place * HOUR), rule(), LEVELS)
        oracle.hear(right)
        assert found.level == oracle.level
        assert found.level in LEVELS
        assert len(found.evaluations) <= 3


# --- what is done next


def does(found: Course, now: datetime = AT, auto: AutoGenerateConfig = AUTO, **seen: object) -> Does:
    return choose(found, rule(), auto, SkillSeen(**seen), now).does  # type: ignore[arg-type]


def test_the_level_is_found_out_before_rows_are_drawn_where_a_slot_is_free() -> None:
    assert does(course(), may_examine=True) is Does.EXAMINE
    assert does(course()) is Does.WAIT, "else the queue would never drain, and no slot be free for an evaluation"
    assert does(course(), is_examining=True) is Does.WAIT
    assert does(course(), is_drawing=True) is Does.WAIT
    known = after(50)
    assert does(known) is Does.DRAW, "a training of hours must not keep the next drop from being made"
    assert does(known, may_examine=True, release="r1") is Does.EXAMINE, "another release is live"


def test_what_failed_is_asked_again_once_it_was_practised_and_what_was_right_at_once() -> None:
    known, later = after(50), AT + HOUR
    assert does(known, later, may_examine=True) is Does.DRAW, "the same release would only fail again"
    assert does(known, later, may_examine=True, practised_at=AT + HOUR / 2) is Does.EXAMINE
    assert does(known, later, may_examine=True, practised_at=AT - HOUR) is Does.DRAW
    assert does(known, AT + HOUR / 2, may_examine=True, practised_at=AT + HOUR / 2) is Does.DRAW, "within the cooldown"
    assert does(after(80), may_examine=True) is Does.EXAMINE, "a good result is confirmed on other rows before more of that level is drawn"
    assert does(after(70, 70, 80), later, may_examine=True) is Does.DRAW, "but not for ever"


def test_rows_are_drawn_while_fewer_jobs_wait_than_the_threshold() -> None:
    assert does(after(50), waiting=1) is Does.WAIT
    assert does(after(50), waiting=2, auto=AutoGenerateConfig(enabled=True, threshold=3)) is Does.DRAW
    assert does(after(50), auto=AutoGenerateConfig(enabled=True, threshold=0)) is Does.WAIT
    assert does(after(50), auto=AutoGenerateConfig()) is Does.WAIT, "it is off unless it is asked for"
    assert does(after(50), stopped="a person has stopped it") is Does.WAIT


def test_a_cooldown_lies_between_two_draws_also_over_a_clock_that_was_wrong() -> None:
    known = replace(after(50), drawn_at=AT)
    assert does(known, AT + HOUR - timedelta(seconds=1)) is Does.WAIT
    assert does(known, AT + HOUR) is Does.DRAW
    assert does(replace(known, drawn_at=AT + timedelta(days=400)), AT) is Does.DRAW, "a time to come holds up nothing for a year"


def test_what_fails_is_tried_again_later_and_later_until_it_is_well() -> None:
    trouble: Trouble | None = None
    waits = []
    for _ in range(14):
        trouble = once_more(trouble, AT, "TEACHER_DOWN", "hangs")
        waits.append((trouble.until - AT).total_seconds())
    assert waits[:3] == [60, 120, 240]
    assert waits[-1] == 86400
    assert does(replace(after(50), draw_trouble=once_more(None, AT, "X", "x")), AT) is Does.WAIT
    assert does(replace(after(50), draw_trouble=once_more(None, AT, "X", "x")), AT + timedelta(minutes=1)) is Does.DRAW
    assert does(replace(after(50), draw_trouble=once_more(None, AT + timedelta(seconds=1), "X", "x")), AT) is Does.WAIT, "told within the same tick"
    failing = replace(course(), trouble=once_more(None, AT, "X", "x"))
    assert does(failing, may_examine=True) is Does.DRAW, "rows are made meanwhile"
    assert learnt(failing, evaluation(5), rule(), LEVELS).trouble is None


def test_nothing_is_drawn_once_the_highest_level_is_mastered() -> None:
    top = after(90, 90, 90, level=5)
    assert is_mastered(top, rule())
    assert does(top, AT + 99 * HOUR, may_examine=True) is Does.WAIT
    assert does(top, may_examine=True, release="r2") is Does.EXAMINE, "a release after it is looked at"
    assert not is_mastered(after(90, 90, 90, level=4), rule())


# --- the mix


def test_the_mix_has_the_levels_below_against_forgetting() -> None:
    assert mix(100, 1.0, 3, LEVELS) == {3: 100}
    assert mix(100, 0.7, 3, LEVELS) == {3: 70, 2: 15, 1: 15}
    assert mix(10, 0.5, 4, LEVELS) == {4: 5, 3: 2, 2: 2, 1: 1}
    assert mix(100, 0.2, 1, LEVELS) == {1: 100}, "there is none below the first"


@given(st.integers(1, 2000), st.floats(0, 1), st.integers(1, 5))
def test_a_mix_has_as_many_rows_as_were_asked_for_and_some_of_the_level(count: int, share: float, level: int) -> None:
    found = mix(count, share, level, LEVELS)
    assert sum(found.values()) == count
    assert found[level] >= 1
    assert all(rows > 0 for rows in found.values())
    assert max(found) == level
