"""The interval against cases that can be counted out by hand, and against laws that must hold for any data."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking import statistics
from ranking.statistics import paired_bootstrap


def test_two_conversations_by_hand():
    # Drawn with replacement: AA gives -2/2, AB and BA give -2/4, BB gives 0/2.
    found = paired_bootstrap(np.array([-2.0, 0.0]), np.array([2.0, 2.0]), ["a", "b"], resamples=2000, seed=0)
    assert (found.mean, found.low, found.high) == (-0.5, -1.0, 0.0)


def test_the_interval_is_that_of_all_possible_draws():
    difference, tokens = np.array([-3.0, 1.0, -6.0, 2.0]), np.array([3.0, 10.0, 4.0, 9.0])
    draws = [sum(difference[list(draw)]) / sum(tokens[list(draw)]) for draw in itertools.product(range(4), repeat=4)]
    low, high = np.percentile(draws, (2.5, 97.5))
    found = paired_bootstrap(difference, tokens, list("abcd"), resamples=200_000, seed=0)
    assert found.mean == pytest.approx(-6 / 26)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_long_answers_weigh_by_their_tokens():
    found = paired_bootstrap(np.array([-1.0, -90.0]), np.array([1.0, 99.0]), ["a", "b"], resamples=100, seed=0)
    assert found.mean == -0.91


def test_rows_of_one_conversation_move_together():
    rng = np.random.default_rng(0)
    effects, tokens = np.repeat(rng.normal(size=20), 50), np.ones(1000)
    alone = paired_bootstrap(effects, tokens, [str(i) for i in range(1000)], resamples=2000, seed=0)
    together = paired_bootstrap(effects, tokens, [str(i // 50) for i in range(1000)], resamples=2000, seed=0)
    assert together.high - together.low > 5 * (alone.high - alone.low)


def test_the_block_size_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    case = (rng.normal(size=30), np.full(30, 4.0), [str(i) for i in range(30)])
    whole = paired_bootstrap(*case, resamples=999, seed=5)
    monkeypatch.setattr(statistics, "BLOCK", 100)
    assert paired_bootstrap(*case, resamples=999, seed=5) == whole


def test_an_interval_of_95_percent_holds_the_truth_that_often():
    rng = np.random.default_rng(7)
    hits = 0
    for seed in range(300):
        tokens = rng.integers(5, 40, size=60).astype(float)
        difference = tokens * rng.normal(-0.3, 1.0, size=60)
        found = paired_bootstrap(difference, tokens, [str(i) for i in range(60)], resamples=300, seed=seed)
        hits += found.low <= -0.3 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


rows = st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 200), st.integers(0, 5)), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(rows=rows, shift=st.floats(-5, 5))
def test_a_constant_per_token_moves_the_mean_and_the_interval_by_that_constant(rows, shift):
    difference, tokens, groups = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    before = paired_bootstrap(difference, tokens, groups.tolist(), resamples=200, seed=1)
    after = paired_bootstrap(difference + shift * tokens, tokens, groups.tolist(), resamples=200, seed=1)
    assert (after.mean, after.low, after.high) == pytest.approx((before.mean + shift, before.low + shift, before.high + shift), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(rows=rows)
def test_swapping_the_two_models_mirrors_the_interval(rows):
    difference, tokens, groups = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    there = paired_bootstrap(difference, tokens, groups.tolist(), resamples=200, seed=1)
    back = paired_bootstrap(-difference, tokens, groups.tolist(), resamples=200, seed=1)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-9)
    assert there.low <= there.high
