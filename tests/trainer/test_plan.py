from collections import Counter
from typing import Any

import pytest

from core.config import Config
from trainer.plan import Plan


def plan(num_rows: int = 100, **changes: Any) -> Plan:
    made = {"num_rows": num_rows, "batch_size": 16, "epochs": 1.0, "max_steps": 0, "seed": 0, "learning_rate": 1.0, "warmup_ratio": 0.05, "checkpoints": 3}
    return Plan(**{**made, **changes})


@pytest.mark.parametrize(("rows", "epochs", "batch", "steps"), [(360, 1.0, 16, 23), (100, 2.0, 16, 13), (30, 0.7, 4, 6), (3, 0.1, 16, 1), (16, 1.5, 16, 2)])
def test_steps_cover_the_epochs_and_no_more(rows: int, epochs: float, batch: int, steps: int) -> None:
    assert plan(rows, epochs=epochs, batch_size=batch).total_steps == steps


def test_max_steps_bounds_the_training() -> None:
    assert plan(1000, max_steps=7).total_steps == 7
    assert plan(16, max_steps=7).total_steps == 1


def test_every_row_is_seen_once_an_epoch_in_another_order() -> None:
    two = plan(30, epochs=2.0, batch_size=7)
    seen = [row for step in range(1, two.total_steps + 1) for row in two.rows(step)]
    assert Counter(seen) == dict.fromkeys(range(30), 2)
    assert seen[:30] != seen[30:]
    assert sorted(seen[:30]) == list(range(30))


def test_the_order_follows_from_the_seed_alone() -> None:
    assert plan(seed=3).rows(2) == plan(seed=3).rows(2)
    assert plan(seed=3).rows(2) != plan(seed=4).rows(2)


def test_the_last_step_holds_what_is_left() -> None:
    assert len(plan(10, batch_size=4).rows(3)) == 2


def test_the_rate_rises_for_at_least_five_steps_and_falls_to_almost_nothing() -> None:
    rates = [plan(480).rate(step) for step in range(1, 31)]
    assert plan(480).warmup_steps == 5
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_a_short_training_warms_up_for_half_of_its_steps_at_most() -> None:
    assert plan(64).warmup_steps == 2
    assert plan(16).warmup_steps == 1
    assert plan(16).rate(1) == 1.0


@pytest.mark.parametrize(("rows", "steps"), [(360, {8, 16, 23}), (32, {1, 2}), (16, {1})])
def test_checkpoints_are_evenly_spaced_and_the_last_step_is_one(rows: int, steps: set[int]) -> None:
    assert plan(rows).checkpoint_steps == steps


def test_a_plan_follows_the_config() -> None:
    made = Plan.of(Config.model_validate({"batch_size": 8, "training": {"epochs": 3.0, "max_steps": 5}}), 100)
    assert (made.batch_size, made.epochs, made.total_steps) == (8, 3.0, 5)


@pytest.mark.parametrize(("scheduler", "middle", "last"), [("cosine", 0.5, 0.01), ("linear", 0.5, 0.05), ("constant", 1.0, 1.0)])
def test_the_curve_after_the_warm_up_follows_the_scheduler(scheduler: str, middle: float, last: float) -> None:
    made = plan(480, scheduler=scheduler)
    assert made.rate(5) == 1.0
    assert made.rate(18) == pytest.approx(middle, abs=0.05)
    assert made.rate(30) == pytest.approx(last, abs=0.02)


def test_warm_up_steps_that_somebody_names_are_kept_up_to_half_of_all() -> None:
    assert plan(480, fixed_warmup_steps=2).warmup_steps == 2
    assert plan(480, fixed_warmup_steps=200).warmup_steps == 15
