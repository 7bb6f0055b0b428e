"""JSON Schemas out of requests: which are taken, and the one that a forced tool call follows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DIALECTS = "json-schema.org/"
MOST_NODES = 10_000  # objects and lists of a schema; a grammar is made of each


def refuse_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValueError for what is no JSON Schema, is too large, or would have something fetched from elsewhere."""
    from jsonschema_rs import ReferencingError, meta

    for number, node in enumerate(_objects(schema)):
        if number > MOST_NODES:
            raise ValueError(f"the schema has more than {MOST_NODES} parts")
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(where := node.get(key), str) and not where.startswith("#"):
                raise ValueError(f"{key} {where!r} points out of the schema; write it under $defs")
        if isinstance(dialect := node.get("$schema"), str) and DIALECTS not in dialect:
            raise ValueError(f"$schema {dialect!r} is not known")
    try:
        is_schema = meta.is_valid({key: value for key, value in schema.items() if key != "$schema"})
    except (ReferencingError, RecursionError, ValueError):
        is_schema = False
    if not is_schema:
        raise ValueError("this is no JSON Schema")


def call_schema(functions: Sequence[tuple[str, Mapping[str, Any]]]) -> Mapping[str, Any]:
    """What an answer follows that is a call of one of `functions`: (name, schema of its arguments)."""
    shapes = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": arguments or {"type": "object"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, arguments in functions
    ]
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _objects(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every object within, without recursion: a body may nest as deep as it likes."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
