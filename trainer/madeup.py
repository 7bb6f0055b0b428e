"""Answers and suite results that no model made: the stub's, as its losses are."""

import random
from collections.abc import Sequence

from core.tasks import ScoreTask, SuiteOf
from rendering.answers import question_of
from rendering.rows import Row
from trainer.run import RunFolder
from trainer.scores import Answer, Header, rows_to_answer, write_answers
from trainer.suiteresults import Result, Value, is_harness, suite_of, write_suite

BASE_VALUE = 0.5
MOST_GAIN = 0.1
"""How much better than the base a stub adapter can claim to be on a suite."""
HARNESS_ITEMS = 200


def write_made_up(task: ScoreTask, run: RunFolder, header: Header, rows: Sequence[Row], steps: int) -> None:
    """Write made-up answers and suite files of one model, as the task asks: the same for the same items and steps, never worse for more of them.

    Raises ChildError as a real one for a suite that is damaged, gone or changed.
    """
    if task.answers:
        write_answers(run, header, [(row, _answer(row, steps)) for row in rows_to_answer(rows, task.answers)])
    for suite in task.suites:
        write_suite(run, header, _result(suite, steps))


def _answer(row: Row, steps: int) -> Answer:
    question = question_of(row)
    assert question is not None, "rows_to_answer leaves those out"
    sure = random.Random(f"{row.drop}/{row.line}/answer").random()  # noqa: S311 - made-up answers
    text = question.expected.content if sure < BASE_VALUE + MOST_GAIN * _share(steps) * 4 else "This answer is made up."
    return Answer(text=text, tokens=len(text.split()) + 1, seconds=0.0)


def _result(suite: SuiteOf, steps: int) -> Result:
    ids = [(f"{place}", f"{place}") for place in range(HARNESS_ITEMS)] if is_harness(suite) else [(item.id, item.group) for item in suite_of(suite).items]
    values = tuple(Value(item=item, group=group, value=_value(suite, item, steps)) for item, group in ids)
    return Result(suite=suite, values=values, num_items=len(values), generated=False)


def _value(suite: SuiteOf, item: str, steps: int) -> float:
    base = random.Random(f"{suite.name}/{item}").uniform(BASE_VALUE - 0.3, BASE_VALUE + 0.3)  # noqa: S311 - made-up values
    return round(base + MOST_GAIN * _share(steps), 6)


def _share(steps: int) -> float:
    return steps / (steps + 20)
