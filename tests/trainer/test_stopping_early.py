"""The sequential test of generated suites: it stops where enough is proven, and seldom wrongly."""

import random

from trainer.stopping import LEVEL, Sequential


def outcome(differences: list[float], margin: float = 0.02) -> tuple[str, int]:
    test = Sequential(against="base", reference={str(place): max(0.0, -difference) for place, difference in enumerate(differences)}, margin=margin)
    for place, difference in enumerate(differences):
        test.hear(str(place), max(0.0, difference))
        if test.outcome:
            return test.outcome, place + 1
    return "", len(differences)


def test_a_candidate_that_fails_where_the_reference_did_not_is_stopped_soon() -> None:
    rng = random.Random(1)  # noqa: S311 - made-up answers
    word, items = outcome([-1.0 if rng.random() < 0.3 else 0.0 for _ in range(1000)])
    assert (word, items < 100) == ("worse", True)


def test_a_candidate_that_answers_alike_needs_no_more_than_half_of_a_thousand_items() -> None:
    word, items = outcome([0.0] * 1000)
    assert (word, items < 500) == ("not worse", True)


def test_two_hundred_items_alike_prove_nothing_within_a_margin_of_two_points() -> None:
    assert outcome([0.0] * 200) == ("", 200)


def test_a_candidate_worse_by_exactly_the_margin_is_seldom_called_not_worse_whenever_one_looks() -> None:
    wrong = 0
    for seed in range(400):
        rng = random.Random(seed)  # noqa: S311 - made-up answers
        # mean -0.1: one in five is lost, one in ten won
        word, _ = outcome([(-1.0 if u < 0.2 else 1.0 if u < 0.3 else 0.0) for u in (rng.random() for _ in range(400))], margin=0.1)
        wrong += word == "not worse"
    assert wrong / 400 <= LEVEL + 0.02
