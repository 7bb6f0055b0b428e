"""Arguments of tool calls against the schemas that the file itself declares."""

import json
import time
from typing import Any

import pytest
from content_rows import ids, question, standard
from gate_cases import Check, found

from validation.checks.toolschemas import MOST_WORK, work_of

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, "required": ["city"]}
GOOD_CALL = {"city": "Oslo", "days": 3}


def row(arguments: Any = GOOD_CALL, parameters: Any = WEATHER, number: int = 0, *, name: str = "weather", weight: int = 1) -> dict[str, object]:
    """A chat row with one call."""
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}}
    asked = {"role": "user", "content": question(number)}
    turns = [asked, {"role": "assistant", "content": None, "tool_calls": [call], "weight": weight}, {"role": "tool", "tool_call_id": "c1", "content": "ok"}]
    tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}}]
    return {"messages": [*turns, {"role": "assistant", "content": f"Done with {number}."}], "tools": tools}


def file_of(*rows: dict[str, object]) -> list[object]:
    """Forty good rows, then these."""
    return [*(row(number=number) for number in range(40)), *rows]


@pytest.mark.parametrize(
    ("arguments", "says", "path"),
    [
        ({"city": "Oslo", "days": "3"}, "days is '3' where the schema wants integer", ".days"),
        ({"days": 3}, "'city' is missing", ""),
        ({"city": ["Oslo"], "days": 3}, "city is ['Oslo'] where the schema wants string", ".city"),
        ({"city": "Oslo", "days": 0}, "days: 0 is less than the minimum of 1", ".days"),
        ({"city": None}, "city is None where the schema wants string", ".city"),
    ],
)
def test_a_call_that_its_tool_would_refuse_is_named(arguments: object, says: str, path: str, check: Check) -> None:
    finding = found(standard(check, file_of(row(arguments))), "T04")
    assert (finding.severity, finding.lines) == ("warning", (41,))
    assert finding.path == f"$.messages[1].tool_calls[0].function.arguments{path}"
    assert says in finding.message
    assert "'weather'" in finding.message


def test_an_undeclared_argument_is_named_where_the_schema_forbids_it(check: Check) -> None:
    strict = {**WEATHER, "additionalProperties": False}
    assert "'unit' was unexpected" in found(standard(check, file_of(row({"city": "Oslo", "unit": "C"}, strict))), "T04").message
    assert "T04" not in ids(standard(check, file_of(row({"city": "Oslo", "unit": "C"}))))


def test_a_tenth_of_broken_calls_is_refused(check: Check) -> None:
    finding = found(standard(check, file_of(*[row({"city": number}, number=number) for number in range(50, 55)])), "T04")
    assert (finding.severity, finding.count) == ("error", 5)


def test_a_broken_schema_is_said_once_by_the_name_of_its_tool(check: Check) -> None:
    broken = {"type": "dict", "properties": {"city": {"type": "str"}}}
    rows: list[object] = [row(parameters=broken, number=number) for number in range(30)]
    report = standard(check, rows)
    (finding,) = [finding for finding in report.findings if finding.id == "T04"]
    assert (finding.severity, finding.lines, finding.count, finding.path) == ("warning", (1,), 1, "$.tools")
    assert "the schema of the tool 'weather' is none: 'dict' is no type of JSON Schema; write 'object'" in finding.message


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "required": "city"},
        {"type": "object", "properties": {"city": {"pattern": "("}}},
        {"type": "object", "properties": {"city": {"type": "any"}}},
        {"$ref": "#/$defs/nowhere"},
        7,
        "a text",
    ],
)
def test_schemas_that_are_none_are_told_and_do_not_refuse(parameters: object, check: Check) -> None:
    report = standard(check, file_of(row(parameters=parameters)))
    assert found(report, "T04").severity == "warning"
    assert "is none" in found(report, "T04").message


FINE = {
    "numbers that are whole": row({"city": "Oslo", "days": 3.0}),
    "no parameters": row({}, None),
    "empty parameters": row({"anything": [1, {"a": None}]}, {}),
    "yes to all": row({"x": 1}, True),
    "other letters": row({"city": "東京 🗼", "days": 1}),
    "OpenAPI's null": row({"city": "Oslo", "unit": None}, {**WEATHER, "properties": {"unit": {"type": "string", "nullable": True}}}),
    "a reference inside": row({"city": "Oslo"}, {"$defs": {"c": {"type": "string"}}, "type": "object", "properties": {"city": {"$ref": "#/$defs/c"}}}),
    "a tree": row(
        {"left": {"left": {}, "right": {"left": {}}}},
        {"$defs": {"n": {"type": "object", "properties": {key: {"$ref": "#/$defs/n"} for key in ("left", "right")}}}, "$ref": "#/$defs/n"},
    ),
    "another draft": row({"city": "Oslo"}, {**WEATHER, "$schema": "http://json-schema.org/draft-07/schema#"}),
    "unknown words": row({"city": "Oslo"}, {**WEATHER, "x-order": ["city"], "optional": True, "format": "whatever"}),
    "a turn that is not learnt": row({"city": 7}, weight=0),
}


@pytest.mark.parametrize("kind", FINE)
def test_calls_that_fit_say_nothing(kind: str, check: Check) -> None:
    assert "T04" not in ids(standard(check, file_of(FINE[kind])))


@pytest.mark.parametrize(
    "arguments",
    ["not JSON", "[1, 2]", '"{}"', ""],
)
def test_arguments_that_are_no_object_are_for_another_check(arguments: str, check: Check) -> None:
    assert "T04" not in ids(standard(check, file_of(row(arguments))))
    assert "T04" not in ids(standard(check, file_of(row({"city": 7}, name="unknown"))))


def test_flat_tools_are_read_too(check: Check) -> None:
    flat = row({"city": 7})
    flat["tools"] = [{"name": "weather", "input_schema": WEATHER}]
    assert found(standard(check, file_of(flat)), "T04").lines == (41,)


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema.json", "file:///etc/hostname", "other.json", "#anchor"])
def test_references_elsewhere_are_never_followed(reference: str, check: Check) -> None:
    report = standard(check, file_of(row({"city": 7}, {"type": "object", "properties": {"city": {"$ref": reference}}})))
    assert "T04" not in ids(report)
    assert "never fetched" in report.stats["checks_not_run"]["T04"]


def doubling(levels: int) -> dict[str, object]:
    """A schema that holds each value against 2 ** levels places."""
    defs: dict[str, object] = {"a0": {"type": "object"}}
    for level in range(1, levels):
        defs[f"a{level}"] = {"allOf": [{"$ref": f"#/$defs/a{level - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels - 1}"}


HOSTILE = {
    "doubling": row({"city": "Oslo"}, doubling(60)),
    "doubling at every level": row({"a": {"a": {"a": {"a": {}}}}}, {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 40}),
    "holding itself": row({"city": "Oslo"}, {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
    "a pattern that tries everything": row({"city": "a" * 5000}, {"properties": {"city": {"pattern": r"^(?=(a+)+$)(a|b\1)+c"}}}),
    "a huge schema": row({"city": "Oslo"}, {"type": "object", "description": "d" * 300_000}),
    "a long chain": row({"city": "Oslo"}, {"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(3000)}, "$ref": "#/$defs/a0"}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_schemas_cost_little(kind: str, check: Check) -> None:
    started = time.monotonic()
    report = standard(check, file_of(HOSTILE[kind]))
    assert time.monotonic() - started < 5
    assert report.rows == 41


def test_the_work_of_a_schema() -> None:
    assert work_of(doubling(4), 0) < 50
    assert work_of(doubling(60), 0) > MOST_WORK
    assert work_of({"$ref": "#"}, 3) > MOST_WORK
    assert work_of(WEATHER, 5) == 3


def test_without_the_library_the_report_says_so(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.checks.toolschemas.find_spec", lambda name: None)
    assert "jsonschema-rs is not installed" in standard(check, file_of()).stats["checks_not_run"]["T04"]
