"""The search for what does not fit and the typed decoder agree: no row is refused without a reason, none is blamed for nothing."""

import copy
import json
import random
from typing import Any

import pytest
from gate_cases import Check
from stories import ANSWER, GOOD_ROWS, TOOL, USER, call, calling, dialog, result

from rendering.specs import BAD_JSON, SPECS
from validation.misfits import misfits_of

RICH: dict[str, list[Any]] = {
    "chat_sft_v1": [
        dialog({"role": "developer", "content": [{"type": "text", "text": "s"}]}, USER, calling(call()), result(), {**ANSWER, "weight": 0}, tools=[TOOL], id=1),
        dialog(USER, ANSWER, metadata={"a": 1}, weight=0.5, parallel_tool_calls=True),
    ],
    "preference_v1": [{"prompt": [USER], "chosen": [ANSWER], "rejected": "b"}],
    "correction_v1": [{"prompt": [USER], "model_output": "m", "correction": "c", "signal": {"a": 1}}],
    "vision_v1": [dialog({"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "q"}]}, ANSWER, images=["a.png"])],
}
VALUES = [None, True, 0, 1, 2, -1, 1.5, "", "x", "user", "User", [], {}, [1], {"a": 1}, "[]", [None], [{}], 10**30, ["a"], [{"role": "user"}]]
KEYS = ["foo", "name", "weight", "tool_calls", "type", "content", "role"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in inner for found in ((*path, key), *places(child, (*path, key)))]


def damage(row: Any, draw: random.Random) -> None:
    """Change, remove or add one thing somewhere in the row."""
    found = places(row)
    if not found:
        return
    *path, last = draw.choice(found)
    holder = row
    for key in path:
        holder = holder[key]
    kind = draw.random()
    if kind < 0.6:
        holder[last] = copy.deepcopy(draw.choice(VALUES))
    elif kind < 0.8:
        del holder[last]
    elif isinstance(holder, dict):
        holder[draw.choice(KEYS)] = copy.deepcopy(draw.choice(VALUES))


@pytest.mark.parametrize("schema", sorted(GOOD_ROWS))
def test_a_row_is_refused_where_and_only_where_something_does_not_fit(schema: str) -> None:
    spec, draw = SPECS[schema], random.Random(4)  # noqa: S311 - the same rows in every run
    for _ in range(600):
        row = copy.deepcopy(draw.choice([*GOOD_ROWS[schema][:1], *RICH.get(schema, [])]))
        for _ in range(draw.randint(1, 2)):
            damage(row, draw)
        line = json.dumps(row).encode()
        try:
            spec.decode(line)
        except BAD_JSON:
            assert misfits_of(row, spec.row), line
        else:
            assert not misfits_of(row, spec.row), line


def test_a_row_with_endless_faults_is_not_searched_to_its_end(check: Check) -> None:
    row = {"messages": [{"role": "user", "x": 1}] * 20_000}
    assert len(misfits_of(row, SPECS["chat_sft_v1"].row)) == 200
    assert check([row] * 2).verdict == "refused"
