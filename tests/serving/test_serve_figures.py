"""The arithmetic of `scripts/bench serve`: a dropped answer, a mixed one and a lost user are counted as such."""

from bench.serve_load import Heard, judged, p99, queued

COLD = {"a" * 64: {"rain": "amber rain"}, "b" * 64: {"rain": "cobalt rain"}}


def test_an_answer_is_mixed_where_it_is_not_that_of_the_release_it_names() -> None:
    before = [Heard("rain", "a" * 64, "amber rain", 0.1)] * 99
    during = [
        Heard("rain", "a" * 64, "amber rain", 0.1),
        Heard("rain", "b" * 64, "amber rain", 0.1),  # of the other release
        Heard("rain", "base", "Rain is wet.", 0.1),  # of none of the two
        Heard("rain", "", "", 0.2, "503: no"),
        Heard("rain", "b" * 64, "cobalt rain", 0.3),
    ]
    figures = judged(before, during, COLD)
    assert (figures["requests"], figures["dropped"], figures["mixed"], figures["p99_ratio"]) == (5, 1, 2, 3.0)
    assert figures["answered_by"] == {"a" * 12: 1, "b" * 12: 2, "base": 1}


def test_p99_is_a_value_that_was_measured() -> None:
    assert p99([float(number) for number in range(1, 201)]) == 198.0
    assert p99([7.0]) == 7.0


def test_who_got_neither_an_answer_nor_a_refusal_that_says_when_is_lost() -> None:
    told = [
        [{"type": "begun"}, {"type": "text"}, {"type": "done"}],
        [{"type": "queued", "position": 2}, {"type": "queued", "position": 1}, {"type": "begun"}, {"type": "done"}],
        [{"type": "refused", "status": 429, "retry_after": "3"}],
        [{"type": "refused", "status": 429, "retry_after": None}],
        [{"type": "begun"}, {"type": "error", "status": 500}],
        [],
    ]
    figures = queued(told)
    assert (figures["queued_served"], figures["queued_refused"], figures["queued_lost"], figures["queued_positions"]) == (2, 1, 3, [2])
