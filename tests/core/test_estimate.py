"""What a training is going to take: learned from earlier runs, with an interval; and what a file meets before it trains."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import resolve
from core.devices import BaseShape
from core.estimate import Ran, Wanted, estimate_disk_bytes, estimate_memory_mb, expect, record_of, shape_of
from core.forecast import jobs_ahead, judge_size
from core.records import Job, JobCard, JobState, Queued

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SMALL = {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152, "num_attention_heads": 9, "num_key_value_heads": 3}


def ran(tokens_per_s: float, *, tokens: int = 10_000, base: str = "a", weights: int = 100, **fields: Any) -> Ran:
    seconds = tokens / tokens_per_s
    known = {"at": NOW, "job": "job-1", "backend": "peft", "base": base, "base_sha256": base, "device": "cpu", "weights": weights}
    return Ran(**(known | {"rows": 100, "tokens": tokens, "steps": 10, "seconds": seconds, "other_s": 10.0, "memory_mb": 1000} | fields))


def wanted(tokens: int = 100_000, base: str = "a", weights: int = 100) -> Wanted:
    return Wanted(backend="peft", base_sha256=base, device="cpu", tokens=tokens, weights=weights, cores=2, has_bf16=True)


# ---------------------------------------------------------------- time


def test_without_any_run_the_time_is_a_guess_and_says_from_what() -> None:
    found = expect([], wanted(weights=150_000_000))
    assert found.is_guess
    assert "2 CPU cores with bf16" in found.basis
    assert found.low_s < found.seconds < found.high_s
    assert found.high_s > 4 * (found.seconds - found.other_s)


def test_one_earlier_run_gives_its_speed_and_an_interval_of_twice_and_half() -> None:
    found = expect([ran(500)], wanted(100_000))
    assert found.seconds == pytest.approx(10 + 200)
    assert (found.low_s, found.high_s) == (pytest.approx(5 + 100), pytest.approx(20 + 400))
    assert not found.is_guess


def test_runs_that_agree_make_the_interval_narrow_and_runs_that_do_not_make_it_wide() -> None:
    steady = expect([ran(speed) for speed in (495, 500, 505, 500, 498, 502)], wanted())
    uneven = expect([ran(speed) for speed in (250, 500, 1000, 400, 800, 300)], wanted())
    assert steady.high_s / steady.low_s < 1.5
    assert uneven.high_s / uneven.low_s > 4
    assert steady.low_s < 200 + 10 < steady.high_s


def test_another_base_is_scaled_by_its_size_and_stays_a_guess() -> None:
    found = expect([ran(1000, base="small", weights=100)], wanted(100_000, base="large", weights=400))
    assert found.tokens_per_s == pytest.approx(250)
    assert found.is_guess
    assert "another base" in found.basis


def test_runs_on_another_device_or_of_another_backend_teach_nothing() -> None:
    assert expect([ran(500, device="NVIDIA H100"), ran(500, backend="stub")], wanted()).runs == 0


def test_only_the_newest_runs_count() -> None:
    assert expect([ran(10)] * 30 + [ran(500)] * 20, wanted()).tokens_per_s == pytest.approx(500)


def test_the_record_says_how_far_the_last_estimates_were_off() -> None:
    good = ran(500, seconds=20.0, expected_s=40.0, expected_low_s=20.0, expected_high_s=80.0, expected_memory_mb=800)
    late = ran(500, seconds=70.0, expected_s=40.0, expected_low_s=20.0, expected_high_s=60.0)
    found = record_of([ran(500), good, late])
    assert found is not None
    assert (found.runs, found.inside) == (2, 1)
    assert found.median_off == pytest.approx((0.25 + 1.0) / 2)
    assert found.memory_off == pytest.approx(0.25)
    assert record_of([ran(500)]) is None


# ---------------------------------------------------------------- memory and disk


def test_memory_grows_with_the_longest_row_up_to_max_length() -> None:
    config, shape = resolve({}).config, shape_of(SMALL, 270_000_000)
    assert shape is not None
    short, long = (estimate_memory_mb(shape, config, gpu=False, longest=longest) for longest in (40, 800))
    assert short < long
    assert estimate_memory_mb(shape, config, gpu=False, longest=10**6) == estimate_memory_mb(shape, config, gpu=False)


def test_a_nested_text_config_is_read_and_a_strange_one_is_unknown() -> None:
    assert shape_of({"text_config": SMALL}, 5) == BaseShape(weights_bytes=5, hidden=576, layers=30, intermediate=1536, vocabulary=49152)
    assert shape_of({"hidden_size": "many"}, 5) is None


def test_disk_grows_with_rank_and_checkpoints() -> None:
    few = resolve({"config.json": {"training.checkpoints": 1, "lora.r": 8}}).config
    many = resolve({"config.json": {"training.checkpoints": 5, "lora.r": 16}}).config
    assert estimate_disk_bytes(SMALL, many) > 2 * estimate_disk_bytes(SMALL, few)
    assert estimate_disk_bytes(SMALL, few, rows_bytes=1000) == estimate_disk_bytes(SMALL, few) + 1000


# ---------------------------------------------------------------- whether it can be judged


def names(count: int, start: int = 0) -> list[str]:
    return [f"{number:08d}" for number in range(start, start + count)]


def test_a_hundred_rows_are_too_few_and_two_hundred_are_enough() -> None:
    few = judge_size(names(100), {}, 30)
    assert (few.gate_groups, few.is_enough, few.missing) == (15, False, 100)
    assert judge_size(names(200), {}, 30).is_enough


def test_conversations_that_earlier_drops_held_out_count() -> None:
    known = dict.fromkeys(names(20), "gate")
    found = judge_size([*names(20), *names(80, start=1000)], known, 30)
    assert found.gate_groups == 20 + 12
    assert found.known == 20
    assert found.is_enough


def test_conversations_that_earlier_drops_trained_on_do_not() -> None:
    found = judge_size(names(300), dict.fromkeys(names(300), "train"), 30)
    assert (found.gate_groups, found.missing) == (0, 200)


def test_a_held_out_row_that_no_model_can_read_proves_nothing() -> None:
    whole = judge_size(names(200), {}, 30)
    gate = [group for group, split in whole.splits.items() if split == "gate"]
    found = judge_size(names(200), {}, 30, frozenset(gate[:3]))
    assert (found.gate_groups, found.is_enough) == (27, False)
    assert found.missing is not None
    assert found.missing > 0


@given(st.integers(0, 150), st.integers(0, 29), st.integers(1, 40))
def test_what_is_said_to_be_missing_is_enough_and_no_less_is(fresh: int, known_gate: int, needed: int) -> None:
    known = dict.fromkeys(names(known_gate, start=10**6), "gate")
    groups = [*names(fresh), *known]
    missing = judge_size(groups, known, needed).missing
    assert missing is not None
    assert judge_size([*groups, *names(missing, start=10**5)], known, needed).is_enough
    if missing:
        assert not judge_size([*groups, *names(missing - 1, start=10**5)], known, needed).is_enough


# ---------------------------------------------------------------- the queue


def queued(number: int, adapter: str, priority: int = 0, **facts: Any) -> Job:
    card = JobCard(
        id=f"job-{number}",
        adapter=adapter,
        drop="drop-1",
        file="x.jsonl",
        sha256="",
        identity="",
        priority=priority,
        created_at=NOW + timedelta(seconds=number),
        base_sha256="",
        backend="stub",
    )
    return Job(card=card, state=JobState.QUEUED, facts=Queued(since=NOW, **facts))


def test_a_busy_adapter_keeps_a_new_one_waiting_for_one_job_only() -> None:
    jobs = [queued(number, "busy/main") for number in range(50)]
    assert jobs_ahead(jobs, "other/main", 0) == 1
    assert jobs_ahead(jobs, "busy/main", 0) == 50


def test_higher_priorities_and_resumed_jobs_go_first_and_paused_ones_do_not_count() -> None:
    jobs = [queued(1, "a/main", 5), queued(2, "b/main", checkpoint="01-train/resume/step_1"), queued(3, "c/main", paused="paused"), queued(4, "d/main", -5)]
    assert jobs_ahead(jobs, "e/main", 0) == 2
    assert jobs_ahead(jobs, "e/main", 10) == 0
