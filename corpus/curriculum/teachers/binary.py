"""The teacher of binary arithmetic: sums, differences and products, with numbers or results in binary, at seven magnitudes."""

import operator
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from corpus.curriculum.teachers.port import Checked, Row, TeacherLevel, chat_row, prompt_of

RANGES = ((1, 10), (10, 50), (50, 100), (100, 500), (500, 1000), (1000, 10_000), (10_000, 100_000))  # of the numbers, by level
FORMS = (("binary", "binary"), ("binary", "decimal"), ("decimal", "binary"))  # of the numbers, of the result
SIGNS: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LONG_SIGNS = tuple((one, two) for one in "+-" for two in "+-")  # of three numbers; left to right needs no rule of precedence

_PROMPT = re.compile(
    r"Binary arithmetic with numbers from (\d+) to (\d+)\.\n"
    r"Compute ([0-9 +*-]+)\. The numbers are (binary|decimal); give the result in (binary|decimal)\.\n"
    r"Write the sum in decimal, then end with the line\nAnswer: RESULT"
)
_ANSWER = re.compile(r"Answer: (-?[0-9]+)")


class Binary:
    """Level 1 has two or three numbers, so that there are enough puzzles of it; the others have two."""

    name = "binary"
    generator = "lorad-binary"
    version = "1"
    schema_id = "chat_sft_v1"
    port = 8090

    @cached_property
    def levels(self) -> tuple[TeacherLevel, ...]:
        """Seven, by the magnitude of the numbers."""
        return tuple(
            TeacherLevel(level=level, title=f"numbers from {low:,} to {high:,}", num_rows=_num_rows(level)) for level, (low, high) in enumerate(RANGES, 1)
        )

    def row(self, level: int, number: int) -> Row:
        """The puzzle of this number and its worked answer."""
        low, high = RANGES[level - 1]
        number, form = divmod(number, len(FORMS))
        numbers, signs = _problem(number, low, high)
        wants, gives = FORMS[form]
        written = _joined([_written(value, wants) for value in numbers], signs)
        prompt = (
            f"Binary arithmetic with numbers from {low} to {high}.\n"
            f"Compute {written}. The numbers are {wants}; give the result in {gives}.\n"
            "Write the sum in decimal, then end with the line\nAnswer: RESULT"
        )
        result = _result(numbers, signs)
        answer = f"{_joined([str(value) for value in numbers], signs)} = {result}\nAnswer: {_written(result, gives)}"
        return chat_row(prompt, answer, skill=self.name, level=level)

    def check(self, row: Mapping[str, Any], answer: str) -> Checked:
        """The last line decides: it must be the result exactly, without leading zeros. The working above it is the model's own business."""
        found = _PROMPT.fullmatch(prompt_of(row))
        sound = found and _read(found)
        if not found or not sound:
            return Checked(right=False, level=0, why="the row is no puzzle of binary arithmetic")
        level, result = sound
        lines = answer.strip().splitlines()
        said = _ANSWER.fullmatch(lines[-1]) if lines else None
        if not said:
            return Checked(right=False, level=level, why="the last line is not Answer: RESULT")
        wanted = _written(result, found[5])
        return Checked(right=said[1] == wanted, level=level, why="" if said[1] == wanted else f"the result is {wanted}, not {said[1]}")


def _num_rows(level: int) -> int:
    low, high = RANGES[level - 1]
    size = high - low + 1
    longer = size**3 * len(LONG_SIGNS) if level == 1 else 0
    return (size**2 * len(SIGNS) + longer) * len(FORMS)


def _problem(number: int, low: int, high: int) -> tuple[list[int], tuple[str, ...]]:
    """Its numbers and signs: those with two numbers are numbered first."""
    size = high - low + 1
    short = size**2 * len(SIGNS)
    if number < short:
        number, sign = divmod(number, len(SIGNS))
        signs: tuple[str, ...] = (list(SIGNS)[sign],)
    else:
        number, sign = divmod(number - short, len(LONG_SIGNS))
        signs = LONG_SIGNS[sign]
    values = []
    for _ in range(len(signs) + 1):
        number, value = divmod(number, size)
        values.append(low + value)
    return values, signs


def _result(numbers: list[int], signs: tuple[str, ...]) -> int:
    total = numbers[0]
    for sign, value in zip(signs, numbers[1:], strict=True):
        total = SIGNS[sign](total, value)
    return total


def _written(value: int, form: str) -> str:
    return f"{value:b}" if form == "binary" else str(value)


def _joined(words: list[str], signs: tuple[str, ...]) -> str:
    return words[0] + "".join(f" {sign} {word}" for sign, word in zip(signs, words[1:], strict=True))


def _read(found: re.Match[str]) -> tuple[int, int] | None:
    """(level, result) of a prompt; None where it is none that a level has."""
    bounds = (int(found[1]), int(found[2]))
    if bounds not in RANGES or (found[4], found[5]) not in FORMS:
        return None
    level, words = RANGES.index(bounds) + 1, found[3].split(" ")
    written, signs = words[::2], tuple(words[1::2])
    try:
        numbers = [int(word, 2 if found[4] == "binary" else 10) for word in written]
    except ValueError:
        return None
    whole = len(words) % 2 == 1 and all(_written(value, found[4]) == word for value, word in zip(numbers, written, strict=True))
    known = (len(signs) == 1 and signs[0] in SIGNS) or (level == 1 and signs in LONG_SIGNS)
    if not whole or not known or not all(bounds[0] <= value <= bounds[1] for value in numbers):
        return None
    return level, _result(numbers, signs)
