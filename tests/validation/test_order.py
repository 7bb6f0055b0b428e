"""Rows that lie sorted by what they answer or where they come from."""

import numpy as np
import pytest
from content_rows import drawn, ids, prose, question, sentence, standard
from gate_cases import Check, chat, found

from validation.checks.order import Runs

LABELS = ("positive", "negative", "neutral")


def labelled(labels: list[str]) -> list[object]:
    return [chat(question(number), label) for number, label in enumerate(labels)]


def test_labels_that_lie_sorted_are_named_with_the_longest_run(check: Check) -> None:
    finding = found(standard(check, labelled([label for label in LABELS for _ in range(20)])), "B12")
    assert finding.severity == "warning"
    assert "3 runs where a shuffled file has about 41" in finding.message
    assert "lines 1 to 20, 'positive'" in finding.message
    assert finding.fix == "shuf rows.jsonl > rows-fixed.jsonl"


@pytest.mark.parametrize("key", ["source", "category", "domain"])
def test_sources_that_lie_sorted_are_named(key: str, check: Check) -> None:
    rows: list[object] = [chat(question(number), sentence(number), metadata={key: f"part {number // 20}"}) for number in range(60)]
    finding = found(standard(check, rows), "B12")
    assert finding.path == f"$.metadata.{key}"
    assert "'part 0'" in finding.message


@pytest.mark.parametrize(
    "labels",
    [
        [LABELS[drawn(number).randrange(3)] for number in range(200)],
        [LABELS[number % 3] for number in range(200)],
        ["yes"] * 10 + ["no"] * 10,
        ["yes"] * 60,
        [LABELS[drawn(number // 2).randrange(3)] for number in range(400)],
    ],
    ids=["shuffled", "in turn", "twenty rows", "one label", "in twos"],
)
def test_other_orders_are_let_pass(labels: list[str], check: Check) -> None:
    assert "B12" not in ids(standard(check, labelled(labels)))


def test_a_stage_may_be_in_order_and_so_may_free_texts(check: Check) -> None:
    rows: list[object] = [
        chat(question(number), sentence(number), metadata={"stage": number // 30, "layer": "a", "source": f"book {number}"}) for number in range(90)
    ]
    assert "B12" not in ids(standard(check, rows))
    assert "B12" not in ids(standard(check, sorted(prose(90), key=str)))


def test_sources_that_few_rows_name_are_no_column(check: Check) -> None:
    rows: list[object] = [chat(question(number), sentence(number), metadata={"source": f"part {number // 15}"} if number < 30 else {}) for number in range(90)]
    assert "B12" not in ids(standard(check, rows))


def test_the_runs_test_agrees_with_its_textbook() -> None:
    # Two kinds: expected 2ab/n + 1, variance 2ab(2ab - n) / (n²(n - 1)); Siegel, Nonparametric Statistics, chapter 4.
    values = np.array([1] * 12 + [2] * 18, dtype=np.uint64)
    runs = Runs.of(values)
    assert runs is not None
    assert (runs.found, runs.expected) == (2, pytest.approx(2 * 12 * 18 / 30 + 1))
    assert runs.p < 1e-6
    shuffled = drawn(3).sample(values.tolist(), 30)
    fair = Runs.of(np.array(shuffled, dtype=np.uint64))
    assert fair is not None
    assert fair.p > 0.05


@pytest.mark.parametrize("values", [[], [1], [1, 1, 1, 1], list(range(1, 50))])
def test_columns_without_kinds_are_not_tested(values: list[int]) -> None:
    assert Runs.of(np.array(values, dtype=np.uint64)) is None
