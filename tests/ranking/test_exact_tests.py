"""McNemar and Holm against numbers from the book, and what a comparison counts as proof."""

import numpy as np
import pytest

from ranking.evidence import Rules
from ranking.statistics import Paired, compare, holm, mcnemar

RULES = Rules(resamples=1000, seed=0, margin=0.02, min_gate_groups=30, allow_stub=False)


def paired(before, after, groups=None, **more):
    before, after = np.array(before, dtype=float), np.array(after, dtype=float)
    return Paired(before=before, after=after, weights=np.ones(len(before)), groups=groups or [str(i) for i in range(len(before))], **more)


def test_mcnemar_is_a_sign_test_on_the_items_where_one_of_the_two_is_right():
    before, after = np.array([1.0] * 50 + [0] * 10), np.array([1.0] * 50 + [1] * 9 + [0])
    assert mcnemar(before, after) == pytest.approx(2 / 2**9)  # nine won, none lost
    assert mcnemar(after, after) == 1.0
    # 10 against 3, by hand: 2 * (1 + 13 + 78 + 286) / 2**13.
    assert mcnemar(np.array([0.0] * 10 + [1] * 3), np.array([1.0] * 10 + [0] * 3)) == pytest.approx(2 * 378 / 8192)


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02]
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.04, 0.001], [0.8, 0.2]) == pytest.approx([0.04, 0.005]), "a look with a larger share of the 5 % loses less"


def test_answers_that_are_right_or_wrong_are_judged_exactly():
    found = compare(paired([0] * 5 + [1] * 95, [1] * 5 + [1] * 95, higher_is_better=True), RULES)
    assert found.p == pytest.approx(2 / 2**5)
    assert found.difference.low > 0, "the resamples alone would call it proven"
    assert not found.is_better


def test_answers_of_one_conversation_are_not_counted_one_by_one():
    before, after = [0] * 20 + [1] * 80, [1] * 20 + [1] * 80
    alone = compare(paired(before, after, higher_is_better=True), RULES)
    together = compare(paired(before, after, groups=[str(i // 20) for i in range(100)], higher_is_better=True), RULES)
    assert alone.is_better
    assert not together.is_better


def test_what_is_retained_is_a_ratio_with_its_interval():
    found = compare(paired([0.5] * 40, [0.25, 0.75] * 20, higher_is_better=True), RULES)
    assert found.ratio.mean == 1.0
    assert found.ratio.low < 1 < found.ratio.high
    assert compare(paired([0.0] * 10, [0.0] * 10, higher_is_better=True), RULES).ratio.mean == 1.0, "who has nothing loses nothing"
    assert compare(paired([4.0] * 10, [3.0] * 10), RULES).ratio is None


def test_a_difference_below_the_noise_of_the_incumbent_is_none():
    before = np.full(40, 4.0)
    case = paired(before, before - 0.01)
    assert compare(case, RULES).is_better
    assert not compare(case, RULES, noise=0.02).is_better
    assert not compare(paired(before, before + 0.01), RULES, noise=0.02).is_worse
