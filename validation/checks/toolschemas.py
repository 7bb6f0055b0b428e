"""T04: arguments of tool calls against the JSON schema that their tool declares.

Schemas come from the file and are not trusted: nothing is fetched, patterns may try a bounded number of steps, and a
schema whose references could multiply without end is not asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from rendering.specs import BAD_JSON
from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, printable, shown

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

    from validation.survey import Survey

SCHEMAS_KEPT = 1_000  # compiled, in one process
LARGEST_SCHEMA = 256 << 10  # bytes
PATTERN_STEPS = 10_000
MOST_WORK = 200_000  # places of a schema that one value may be held against, references followed
DROP = "lorad fix {file} -o {out} --schema %s --repair drop --ids T04"

MOST_REFERENCES = 200  # of one schema

# Where a schema holds others: for the same value, for what is inside the value, and under names.
_SAME = frozenset(("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"))
_INSIDE = frozenset(
    (
        *("items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"),
        *("properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties"),
    )
)
_NAMED = frozenset(("properties", "patternProperties", "dependentSchemas", "dependencies"))
_ELSEWHERE = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor")
_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
# What other languages and notations call the types of JSON Schema.
_TYPE_NAMES = {
    **{"dict": "object", "float": "number", "double": "number", "int": "integer", "long": "integer", "str": "string", "bool": "boolean"},
    **{"list": "array", "tuple": "array", "set": "array"},
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A schema ready to judge with, or why it cannot: `broken` is the schema's fault, `unasked` our own limit."""

    validator: Any = None
    broken: str = ""
    unasked: str = ""
    num_references: int = 0
    schema: Any = None


class Schemas:
    """The distinct schemas of a file, each compiled once; the memory for them is bounded."""

    def __init__(self) -> None:
        self._compiled: dict[bytes, Compiled] = {}
        self._told: set[tuple[str, str]] = set()

    def of(self, parameters: Any) -> Compiled:
        """The schema that a tool declares."""
        encoded = msgspec.json.encode(parameters)
        found = self._compiled.get(encoded)
        if found is None:
            if len(self._compiled) >= SCHEMAS_KEPT:
                self._compiled.clear()
            found = self._compiled[encoded] = _compile(parameters, len(encoded))
        return found

    def is_new(self, name: str, complaint: str) -> bool:
        """Whether a complaint about a tool is told for the first time."""
        new = (name, complaint) not in self._told and len(self._told) < SCHEMAS_KEPT
        self._told.add((name, complaint)) if new else None
        return new


def _compile(schema: Any, size_bytes: int) -> Compiled:
    from jsonschema_rs import FancyRegexOptions, ReferencingError, ValidationError, validator_for

    if size_bytes > LARGEST_SCHEMA:
        return Compiled(unasked=f"has {size_bytes:,} bytes")
    references = _references(schema)
    if foreign := next((reference for reference in references if reference != "#" and (not reference.startswith("#/") or "%" in reference)), ""):
        return Compiled(unasked=f"refers to {shown(foreign)}, which is never fetched")
    if len(references) > MOST_REFERENCES:
        return Compiled(unasked=f"has {len(references):,} references")
    try:
        validator = validator_for(schema, offline=True, pattern_options=FancyRegexOptions(backtrack_limit=PATTERN_STEPS), validate_formats=False)
    except (ValidationError, ReferencingError, ValueError, TypeError) as error:
        return Compiled(broken=_why_broken(schema, str(getattr(error, "message", error))))
    return Compiled(validator, num_references=len(references), schema=schema)


def _references(value: Any) -> list[str]:
    """Every reference in a schema; those whose aim cannot be told beforehand as if they led elsewhere."""
    found: list[str] = []
    waiting = [(value, True)]
    while waiting:
        inner, root = waiting.pop()
        if isinstance(inner, dict):
            found += [str(inner["$ref"])] if isinstance(inner.get("$ref"), str) else []
            found += [key for key in _ELSEWHERE if isinstance(inner.get(key), str)] + (["$id"] if isinstance(inner.get("$id"), str) and not root else [])
            waiting += [(child, False) for child in inner.values()]
        elif isinstance(inner, list):
            waiting += [(child, False) for child in inner]
    return found


def _why_broken(schema: Any, complaint: str) -> str:
    waiting = [schema]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            kind = inner.get("type")
            if isinstance(kind, str) and kind not in _TYPES:
                right = _TYPE_NAMES.get(kind.lower(), "")
                return f"{shown(kind)} is no type of JSON Schema; " + (f"write {shown(right)}" if right else "leave the type out where anything may stand")
            waiting += list(inner.values())
        elif isinstance(inner, list):
            waiting += inner
    return " ".join(complaint.split())[:160]


def work_of(schema: Any, depth: int) -> int:
    """How many places of a schema a value of this depth may be held against, references followed; cut above MOST_WORK."""
    try:
        return _Work(schema).of(schema, depth)
    except RecursionError:
        return MOST_WORK + 1


class _Work:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[tuple[int, int], int] = {}

    def of(self, schema: Any, depth: int) -> int:
        if not isinstance(schema, dict) or depth < 0:
            return 1
        key = (id(schema), depth)
        if key not in self._known:
            self._known[key] = MOST_WORK + 1  # met again while it is counted: it holds itself for the same value, without end
            total = 1
            for word, inner in schema.items():
                if word in _SAME or word in _INSIDE:
                    total += sum(self.of(child, depth - (word in _INSIDE)) for child in self._held(word, inner))
            self._known[key] = min(total, MOST_WORK + 1)
        return self._known[key]

    def _held(self, word: str, inner: Any) -> list[Any]:
        if word == "$ref":
            return [_aim(self._root, inner)]
        if word in _NAMED:
            return list(inner.values()) if isinstance(inner, dict) else []
        return inner if isinstance(inner, list) else [inner]


def _aim(root: Any, reference: Any) -> Any:
    """What a reference inside a schema points at; None where there is nothing. RFC 6901."""
    aim = root
    for step in str(reference).removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        aim = aim.get(step) if isinstance(aim, dict) else aim[int(step)] if isinstance(aim, list) and step.isdecimal() and int(step) < len(aim) else None
    return aim


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 0)]
    while waiting:
        inner, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + 1) for child in (inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ())]
    return deepest


def _ready(context: Context) -> str:
    return "" if find_spec("jsonschema_rs") else "the package jsonschema-rs is not installed"


def _declared(case: Case) -> dict[str, Any]:
    """The parameters that the row's tools declare, by name: as OpenAI nests them, flat, or under Anthropic's key."""
    found: dict[str, Any] = {}
    for tool in case.tools:
        function = tool.get("function")
        function = function if isinstance(function, Mapping) else tool
        if isinstance(name := function.get("name"), str):
            found[name] = next((function[key] for key in ("parameters", "input_schema", "inputSchema") if function.get(key) is not None), None)
    return found


def _conclude(survey: "Survey") -> Iterator[Problem]:
    """The tools whose own schema is at fault, each once."""
    first: dict[tuple[str, str], int] = {}
    for encoded in survey.sheet.counter("T04.broken"):
        line, name, complaint = msgspec.json.decode(encoded)
        first[name, complaint] = min(line, first.get((name, complaint), line))
    for (name, complaint), line in sorted(first.items(), key=lambda item: item[1]):
        hint = "correct the schema of the tool: what the model sees of it is wrong, and its calls cannot be checked"
        why = "the model is shown this declaration, and learns from it how tools are described"
        yield Problem(
            why=why,
            message=f"the schema of the tool {shown(name)} is none: {printable(complaint)}",
            path="$.tools",
            hint=hint,
            kind=f"schema {name}",
            lines=(line,),
            count=1,
        )
    if unasked := survey.sheet.counter("T04.unasked"):
        told = ", ".join(f"{shown(name)} ({complaint})" for name, complaint in map(msgspec.json.decode, list(unasked)[:3]))
        survey.notes["T04"] = f"calls of {len(unasked)} tools were not held against their schema: {told}"


@entered(
    Check(
        "T04",
        "tool.schema",
        Severity.WARNING,
        Need.BATCH,
        "correct the arguments, or the schema where it is the schema that is wrong",
        why="the model would learn calls that the tool refuses",
        level=Level.STANDARD,
        families=("chat",),
        limits={"warn_share": 0.0, "error_share": 0.1},
        ready=_ready,
        conclude=_conclude,
    )
)
def wrong_arguments(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """Arguments of learnt calls that break the schema of their tool. Arguments that are no object, and unknown tools, are T01 and T02."""
    schemas = batch.context.once("T04", Schemas)
    for case in () if batch.plain else batch.cases:
        if not case.tools or not any(message.tool_calls for message in case.messages):
            continue
        declared = _declared(case)
        for index, message in enumerate(case.messages):
            for place, call in enumerate(message.tool_calls if message.weight else ()):
                if declared.get(call.name) is not None and (arguments := _object(call.arguments)) is not None:
                    path = f"$.messages[{index}].tool_calls[{place}].function.arguments"
                    problem = _judged(_schema(schemas, case, call.name, declared[call.name], sheet), call.name, arguments, path)
                    if problem:
                        fix = DROP % case.spec.id
                        yield case.line, Problem(message=problem.message, path=problem.path, kind=problem.kind, fix=fix)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(text)
    except BAD_JSON:
        return None
    return found if isinstance(found, dict) else None


def _schema(schemas: Schemas, case: Case, name: str, parameters: Any, sheet: Sheet) -> Compiled:
    compiled = schemas.of(parameters)
    if compiled.broken and schemas.is_new(name, compiled.broken):
        sheet.counter("T04.broken")[msgspec.json.encode((case.line, name, compiled.broken)).decode()] += 1
    if compiled.unasked and schemas.is_new(name, compiled.unasked):
        sheet.counter("T04.unasked")[msgspec.json.encode((name, compiled.unasked)).decode()] += 1
    return compiled


def _judged(compiled: Compiled, name: str, arguments: dict[str, Any], path: str) -> Problem | None:
    validator = compiled.validator
    if validator is None or (compiled.num_references and work_of(compiled.schema, _depth(arguments)) > MOST_WORK):
        return None
    if validator.is_valid(arguments):
        return None
    error = next((error for error in validator.iter_errors(arguments) if _counts(compiled.schema, error)), None)
    if error is None:
        return None
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    return Problem(
        message=f"the call of {shown(name)} breaks the tool's schema: {printable(_sentence(error, where))}", path=path + where, kind=type(error.kind).__name__
    )


def _counts(schema: Any, error: "ValidationError") -> bool:
    """Whether it is the arguments' fault: not a pattern that used up its steps, nor a null that OpenAPI's `nullable` allows."""
    if type(error.kind).__name__ in ("BacktrackLimitExceeded", "RegexEngineFailure"):
        return False
    if error.instance is not None:
        return True
    holder: Any = schema
    for step in list(error.schema_path)[:-1]:
        holder = holder.get(step) if isinstance(holder, dict) else holder[step] if isinstance(holder, list) and isinstance(step, int) else None
    return not (isinstance(holder, dict) and holder.get("nullable") is True)


def _sentence(error: "ValidationError", where: str) -> str:
    kind, place = type(error.kind).__name__, where.lstrip(".") or "the arguments"
    value = shown(error.instance) if not isinstance(error.instance, dict) else "an object"
    types = getattr(error.kind, "types", None)
    if types:
        return f"{place} is {value} where the schema wants {' or '.join(map(str, types))}"
    if kind == "Required":
        return f"{shown(str(getattr(error.kind, 'property', '')))} is missing"
    return f"{place}: {' '.join(error.message.split())[:120]}"
