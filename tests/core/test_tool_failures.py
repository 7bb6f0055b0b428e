"""Which failed calls are the model's own fault."""

import json
from typing import Any

import pytest

from core.toolfailures import wrong_call, wrong_result

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["c", "f"]}, "note": {"type": ["string", "null"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("weather", '{"city": "Oslo", "days": 3, "unit": "c", "note": null}', ""),
        ("forecast", "{}", "no function 'forecast' is declared"),
        ("weather", '{"city": "Os', "not JSON"),
        ("weather", '["Oslo"]', "no object"),
        ("weather", "{}", "lacks its argument 'city'"),
        ("weather", '{"city": "Oslo", "town": 1}', "no argument 'town'"),
        ("weather", '{"city": "Oslo", "days": "3"}', "'days' of weather is no integer"),
        ("weather", '{"city": "Oslo", "days": true}', "'days' of weather is no integer"),
        ("weather", '{"city": "Oslo", "unit": "k"}', "none of its choices"),
    ],
)
def test_a_call_is_wrong_where_it_is_not_what_was_declared(name: str, arguments: str, why: str) -> None:
    told = wrong_call(name, arguments, [WEATHER])
    assert why in told
    assert bool(told) == bool(why)


def test_a_declaration_that_says_nothing_forbids_nothing() -> None:
    for parameters in (None, {}, {"properties": None, "required": "city"}, {"properties": {"x": True}}, {"properties": {"x": {"type": "odd"}}}):
        assert wrong_call("f", '{"x": 1}', [{"function": {"name": "f", "parameters": parameters}}]) == ""


@pytest.mark.parametrize(
    ("result", "is_wrong"),
    [
        ('{"error": "missing required parameter: city"}', True),
        ('{"error": {"code": 400, "message": "invalid date format"}}', True),
        ('{"isError": true, "content": "unknown city Oslow"}', True),
        ('{"status": "error", "detail": "days must be a number"}', True),
        ("ValueError: days must be positive", True),
        ("Error: no such file: notes.txt", True),
        ('{"error": "request timed out"}', False),
        ('{"error": "503 service unavailable, missing upstream"}', False),
        ("ConnectionError: connection refused", False),
        ('{"error": null, "temperature": 12}', False),
        ('{"temperature": 12}', False),
        ("The error budget of the team is 3 %", False),
        ('{"error": "ouch"}', False),
        ("", False),
        ("[" * 3000, False),
    ],
)
def test_an_error_is_the_models_where_it_speaks_of_the_arguments(result: str, is_wrong: bool) -> None:
    assert bool(wrong_result(result)) is is_wrong


def test_a_long_error_is_told_short() -> None:
    assert len(wrong_result(json.dumps({"error": "invalid argument " + "x" * 5000}))) <= 200
