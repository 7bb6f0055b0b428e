"""The two teachers: exact checkers, the range of each level, and no row twice."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.curriculum.skills import TEACHERS
from corpus.curriculum.teachers.binary import RANGES, Binary
from corpus.curriculum.teachers.port import PER_SEED, Teacher, prompt_of, rows_of, scattered
from corpus.curriculum.teachers.syllo import Syllo, words

BOTH = pytest.mark.parametrize("teacher", TEACHERS.values(), ids=list(TEACHERS))


def answer_of(row: dict[str, Any]) -> str:
    return str(row["messages"][-1]["content"])


@BOTH
def test_every_row_passes_its_own_checker_at_its_own_level(teacher: Teacher) -> None:
    for level in teacher.levels:
        for row in [*rows_of(teacher, level.level, PER_SEED, 0), *rows_of(teacher, level.level, PER_SEED, level.num_seeds - 1)]:
            checked = teacher.check(row, answer_of(row))
            assert (checked.right, checked.level, checked.why) == (True, level.level, "")
            assert row["metadata"]["level"] == level.level


def test_no_row_of_the_smallest_level_comes_twice_over_all_its_seeds() -> None:
    teacher = Binary()
    total = teacher.levels[0].num_seeds
    prompts = {prompt_of(row) for seed in range(total) for row in rows_of(teacher, 1, PER_SEED, seed)}
    assert len(prompts) == total * PER_SEED == 12_900


@BOTH
def test_seeds_share_no_row_and_the_same_seed_has_the_same_rows(teacher: Teacher) -> None:
    for level in (1, teacher.levels[-1].level):
        prompts = {prompt_of(row) for seed in range(8) for row in rows_of(teacher, level, PER_SEED, seed)}
        assert len(prompts) == 8 * PER_SEED
        assert list(rows_of(teacher, level, 9, 5)) == list(rows_of(teacher, level, PER_SEED, 5))[:9]


@given(total=st.integers(1, 3000))
def test_scattering_reaches_every_number_once(total: int) -> None:
    assert {scattered(place, total) for place in range(total)} == set(range(total))


@BOTH
@pytest.mark.parametrize(("level", "count", "seed"), [(0, 1, 0), (9, 1, 0), (1, 0, 0), (1, PER_SEED + 1, 0), (1, 1, -1)])
def test_what_is_not_there_is_an_error(teacher: Teacher, level: int, count: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"level|seed"):
        rows_of(teacher, level, count, seed)


def test_a_seed_past_the_last_is_an_error() -> None:
    teacher = Binary()
    with pytest.raises(ValueError, match="129 seeds"):
        rows_of(teacher, 1, 1, teacher.levels[0].num_seeds)


def test_the_levels_are_those_that_were_promised() -> None:
    assert [level.title for level in Syllo().levels] == ["4 words", "5 words", "6 words", "7 words", "8 words"]
    assert (len(Binary().levels), RANGES[0], RANGES[-1]) == (7, (1, 10), (10_000, 100_000))
    assert (TEACHERS["syllo"].port, TEACHERS["binary"].port) == (8080, 8090)


def test_words_and_clues_of_the_list_are_unique() -> None:
    assert len({word.text for word in words()}) == len({word.clue for word in words()}) == len(words()) > 250
    assert all(len(word.tiles) > 1 and "".join(word.tiles).isalpha() and "".join(word.tiles).islower() for word in words())


# --- binary


def sum_row(text: str, wants: str = "binary", gives: str = "binary", bounds: str = "1 to 10") -> dict[str, Any]:
    prompt = f"Binary arithmetic with numbers from {bounds}.\nCompute {text}. The numbers are {wants}; give the result in {gives}."
    return {"messages": [{"role": "user", "content": prompt + "\nWrite the sum in decimal, then end with the line\nAnswer: RESULT"}]}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (sum_row("101 + 11"), "5 + 3 = 8\nAnswer: 1000"),
        (sum_row("101 + 11"), "Answer: 1000\n"),
        (sum_row("1 - 1010"), "Answer: -1001"),
        (sum_row("1 - 1"), "Answer: 0"),
        (sum_row("5 * 7", "decimal"), "Answer: 100011"),
        (sum_row("101 - 11 + 1", gives="decimal"), "Answer: 3"),
        (sum_row("99999 * 100000", "decimal", bounds="10000 to 100000"), f"Answer: {99999 * 100000:b}"),
    ],
)
def test_right_results(row: dict[str, Any], answer: str) -> None:
    assert Binary().check(row, answer).right


@pytest.mark.parametrize(
    "answer",
    ["", "1000", "Answer: 01000", "Answer: 8", "Answer: 1001", "Answer: 1000 or so", "Answer: 1000.", "Answer: 1000\nDone.", "answer: 1000", "Answer: +1000"],
)
def test_wrong_results(answer: str) -> None:
    checked = Binary().check(sum_row("101 + 11"), answer)
    assert (checked.right, checked.level) == (False, 1)
    assert checked.why


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"messages": "no"},
        {"messages": [{"role": "user", "content": "What is 1 + 1?"}]},
        sum_row("0101 + 11"),
        sum_row("1111 + 1"),  # 15 is not of 1 to 10
        sum_row("101 + 11", bounds="1 to 11"),
        sum_row("101 / 11"),
        sum_row("101 * 11 * 1"),
        sum_row("101 +"),
        sum_row("102 + 1"),
        sum_row("5 + 3", "decimal", "decimal"),
        sum_row("10 + 11 + 12", "decimal", bounds="10 to 50"),
    ],
)
def test_what_is_no_puzzle_of_binary_has_no_level(row: dict[str, Any]) -> None:
    checked = Binary().check(row, "Answer: 1000")
    assert (checked.right, checked.level) == (False, 0)


def test_the_working_that_is_taught_is_right() -> None:
    for level in Binary().levels:
        for row in rows_of(Binary(), level.level, 30, 1):
            left, right = answer_of(row).splitlines()[0].split(" = ")
            first, *rest = left.split(" ")
            total = int(first)
            for sign, number in zip(rest[::2], rest[1::2], strict=True):
                total = {"+": total + int(number), "-": total - int(number), "*": total * int(number)}[sign]
            assert total == int(right)


# --- syllo


def spoilt(change: Any) -> tuple[dict[str, Any], str]:
    row = next(iter(rows_of(Syllo(), 1, 1, 3)))
    answer = json.loads(answer_of(row))
    change(answer["solutions"])
    return row, json.dumps(answer)


def swap_words(solutions: list[dict[str, Any]]) -> None:
    solutions[0]["ans_num"], solutions[1]["ans_num"] = solutions[1]["ans_num"], solutions[0]["ans_num"]


@pytest.mark.parametrize(
    "change",
    [
        swap_words,
        lambda solutions: solutions.pop(),
        lambda solutions: solutions.append(solutions[0]),
        lambda solutions: solutions[0].update(answer="HOUSE"),
        lambda solutions: solutions[0].update(syllables=["".join(solutions[0]["syllables"])]),
        lambda solutions: solutions[0].update(syllables=[*solutions[0]["syllables"], ""]),
        lambda solutions: solutions[0].update(syllables=list(reversed(solutions[0]["syllables"]))),
        lambda solutions: solutions[0].update(
            syllables=[solutions[0]["answer"][:1], *["".join(solutions[0]["answer"][1:])], *[""] * (len(solutions[0]["syllables"]) - 2)]
        ),
        lambda solutions: solutions[0].update(ans_num=9),
        lambda solutions: solutions[0].update(ans_num="1"),
    ],
)
def test_wrong_solutions(change: Any) -> None:
    row, answer = spoilt(change)
    checked = Syllo().check(row, answer)
    assert (checked.right, checked.level) == (False, 1)
    assert checked.why


@pytest.mark.parametrize("answer", ["", "no", "[]", "{}", '```json\n{"solutions": []}\n```', "\ud800", "[" * 100_000])
def test_what_is_not_the_json_is_wrong(answer: str) -> None:
    row, _ = spoilt(lambda solutions: None)
    assert not Syllo().check(row, answer).right


def test_solutions_in_another_order_and_in_small_letters_are_right() -> None:
    row, answer = spoilt(lambda solutions: (solutions.reverse(), [each.update(answer=each["answer"].lower()) for each in solutions]))
    assert Syllo().check(row, answer).right


@pytest.mark.parametrize(("before", "after"), [("Build 4", "Build 5"), ("Syllable bank: ", "Syllable bank: zz, "), ("1. ", "1. not "), ("(2 syl", "(9 syl")])
def test_a_puzzle_that_was_changed_has_no_level(before: str, after: str) -> None:
    row, answer = spoilt(lambda solutions: None)
    row = deepcopy(row)
    assert before in row["messages"][0]["content"]
    row["messages"][0]["content"] = row["messages"][0]["content"].replace(before, after)
    checked = Syllo().check(row, answer)
    assert (checked.right, checked.level) == (False, 0)
