"""J05, J08, J09 in rows that the typed decoder takes: what it passes over in silence."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from rendering.rowtypes import SpecRow, Turn
from validation.case import Case
from validation.checks.parse import (
    BIGINT_HINT,
    BIGINT_WHY,
    DEPTH_HINT,
    DEPTH_WHY,
    DUPLICATE_HINT,
    DUPLICATE_WHY,
    LARGEST_INTEGER,
    LEAST_INTEGER,
    MAX_DEPTH,
    big,
    deep,
    depth_of,
    forgiving,
    twice,
)
from validation.checks.registry import Check, Need, entered
from validation.findings import Problem, Severity, shown

has_spaced_key = re.compile(rb'"[ \t\r]+:').search
"""A key with blanks before its colon, which a count of `":` does not see."""


class _Open(NamedTuple):
    """What the values of a row that may be anything hold: metadata, tools, extra columns."""

    keys: int = 0  # those of the row and those inside
    nested: bool = False  # deeper than one level
    integer: str = ""  # the first that 64 bit do not hold
    path: str = ""


@entered(Check("J05", "json.duplicate_key", Severity.ERROR, Need.ROW, DUPLICATE_HINT, why=DUPLICATE_WHY))
def duplicate_key_in_a_row(case: Case) -> Problem | None:
    """A typed decoder keeps the last of two keys in silence: count the keys, and look closer where the count is odd."""
    raw = case.raw
    keys = raw.count(b'":')
    wanted = _keys_of(case)
    if keys != wanted:
        keys -= raw.count(b'\\":')  # inside a text, where a quote is escaped
    if keys == wanted and not has_spaced_key(raw):
        return None
    try:
        _, marks = forgiving(raw.decode())
    except (RecursionError, ValueError):
        return None  # J08 names the first; the typed decoder has taken the row all the same
    return twice(marks)


@entered(Check("J08", "json.depth", Severity.ERROR, Need.ROW, DEPTH_HINT, why=DEPTH_WHY, rank=1))
def too_deep_in_a_row(case: Case) -> Problem | None:
    """Nesting beyond reason in what may be anything: metadata, tools, extra columns."""
    if not _open(case).nested or case.raw.count(b"{") + case.raw.count(b"[") <= MAX_DEPTH:
        return None
    return deep(1 + max(depth_of(msgspec.to_builtins(value)) for _, value in _open_values(case.row)))


@entered(Check("J09", "json.bigint", Severity.WARNING, Need.ROW, BIGINT_HINT, why=BIGINT_WHY, rank=2))
def large_integer_in_a_row(case: Case) -> Problem | None:
    """An integer that 64 bit do not hold: an id, or a value in the metadata."""
    found = _open(case)
    if found.integer:
        return big(found.integer, found.path)
    id = case.row.id
    if type(id) is int and not LEAST_INTEGER <= id <= LARGEST_INTEGER:
        return big(_digits(id), "$.id")
    return None if case.sound or b'"tool_calls"' not in case.raw else _large_argument(case)


def _large_argument(case: Case) -> Problem | None:
    for talk in case.talks:
        for place, turn in zip(talk.places, talk.turns, strict=False):
            for number, call in enumerate(turn.tool_calls if turn else ()):
                arguments = call.function.arguments
                found = _deeper(arguments, f"{place}.tool_calls[{number}].function.arguments") if isinstance(arguments, dict) else None
                if found and found.integer:
                    return big(found.integer, found.path)
    return None


def _open(case: Case) -> _Open:
    held = case.__dict__  # not a cached_property: its lock would take as long as the look itself
    if "open" not in held:
        held["open"] = _look(case.row)
    found: _Open = held["open"]
    return found


def _look(row: SpecRow) -> _Open:
    keys, nested, integer, at = 0, False, "", ""
    for path, value in _open_values(row):
        found = _flat(value, path)
        keys += 1 + found.keys
        nested = nested or found.nested
        if found.integer and not integer:
            integer, at = found.integer, found.path
    return _Open(keys, nested, integer, at)


def _open_values(row: SpecRow) -> list[tuple[str, Any]]:
    found = []
    for name, path in _open_fields(type(row)):
        value = getattr(row, name)
        if value and value is not msgspec.UNSET:
            found.append((path, value))
    return found


_TYPED = (
    *("id", "weight", "messages", "parallel_tool_calls", "prompt", "completion", "instruction", "input", "output"),
    *("chosen", "rejected", "label", "model_output", "correction", "images"),
)


@lru_cache(maxsize=64)
def _open_fields(row: type[SpecRow]) -> list[tuple[str, str]]:
    """(attribute, path) of the keys of a row type whose values may be anything."""
    return [(field.name, f"$.{field.encode_name}") for field in msgspec.structs.fields(row) if field.encode_name not in _TYPED]


@lru_cache(maxsize=64)
def _typed_fields(row: type[SpecRow]) -> list[tuple[str, Any]]:
    """(attribute, default) of the other keys; a required key has no default, and no value is like it."""
    fields = msgspec.structs.fields(row)
    return [(field.name, field.default) for field in fields if field.encode_name in _TYPED and field.name not in ("id", "weight")]


def _flat(value: Any, path: str) -> _Open:
    """One level in a quick loop; what is deeper in a slow one."""
    if type(value) is not dict:
        return _deeper(value, path)
    for key, inner in value.items():
        kind = type(inner)
        if kind is dict or kind is list or (kind is int and not LEAST_INTEGER <= inner <= LARGEST_INTEGER):
            return _deeper(value, f"{path}.{shown(key)[1:-1]}" if kind is int else path)
    return _Open(len(value))


def _deeper(value: Any, path: str) -> _Open:
    keys, integer, rest = 0, "", [value]
    while rest:
        inner = rest.pop()
        if type(inner) is dict:
            keys += len(inner)
            rest.extend(inner.values())
        elif type(inner) in (list, tuple):
            rest.extend(inner)
        elif type(inner) is int and not LEAST_INTEGER <= inner <= LARGEST_INTEGER:
            integer = integer or _digits(inner)
    return _Open(keys, type(value) is not str, integer, path)


def _digits(number: int) -> str:
    """The digits; in words where Python would refuse to write so many."""
    return str(number) if number.bit_length() < 10_000 else f"of {number.bit_length():,} bit"


def _keys_of(case: Case) -> int:
    """How many keys the row has where none stands twice, and none that may be left out is written with its default."""
    row = case.row
    keys = _open(case).keys + (row.id != "") + (row.weight != 1.0)
    turns = getattr(row, "messages", None)
    if case.sound and type(turns) is list:
        names = sum(1 for turn in turns if turn.name) if b'"name"' in case.raw else 0
        return keys + 1 + 2 * len(turns) + names
    for name, default in _typed_fields(type(row)):
        value = getattr(row, name)
        if value is not msgspec.UNSET and value != default:
            keys += 1 + (sum(map(_keys_of_turn, value)) if isinstance(value, list) else 0)
        elif name == "input":  # most rows without one write it as an empty text
            keys += b'"input":' in case.raw
    return keys + (_spoken_defaults(case) if b'"tool_calls"' in case.raw else 0)


def _spoken_defaults(case: Case) -> int:
    """Keys that rows with calls nearly always write although they may leave them out: a content that is null, the type of a call.

    Only their spelling is counted. Metadata that holds the same makes the count odd: such a row is looked at.
    """
    raw = case.raw
    turns = [turn for talk in case.talks for turn in talk.turns if turn is not None]
    declared = len([tool for tool in case.tools if tool.get("type") == "function"])
    types = raw.count(b'"type": "function"') + raw.count(b'"type":"function"') - declared
    nulls = raw.count(b'"content": null') + raw.count(b'"content":null')
    return min(types, sum(len(turn.tool_calls) for turn in turns)) + min(nulls, len([turn for turn in turns if turn.content is None]))


def _keys_of_turn(turn: object) -> int:
    if not isinstance(turn, Turn):
        return 0
    content = turn.content
    keys = 1 + (content is not None) + (turn.name != "") + (turn.weight != 1) + (turn.tool_call_id != "")
    if isinstance(content, list):
        keys += sum(1 + (part.text != "") + (part.image != "") for part in content)
    for call in turn.tool_calls:
        arguments = call.function.arguments
        keys += 2 + (arguments != "{}") + (call.id != "") + (_deeper(arguments, "").keys if isinstance(arguments, dict) else 0)
    return keys + bool(turn.tool_calls)
