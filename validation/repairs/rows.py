"""Repairs of one row: what it holds, as plain JSON values, and what it should hold. Each gives None where it has nothing to do.

None of them guesses: what cannot be mended without losing or inventing something is left as it is.
"""

import ast
import copy
import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from rendering.rowtypes import ROLES
from rendering.specs import Spec

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A row mended, and what was changed in it, as two short texts that hold no more of the row than is needed."""

    plain: Plain
    before: str
    after: str


Mend = Callable[[Plain, Spec], Change | None]

_CONVERSATIONS = ("messages", "prompt", "chosen", "rejected", "completion")
_COLUMNS_OF_JSON = ("messages", "tools", "images", "metadata", "conversations", "conversation")
_DEEPEST_SHAPE = 3
_NEAR = 0.75  # a key that is this close to a known one was meant to be that one


def shape(value: Any, depth: int = 0) -> str:
    """The form of a value without its texts: `{messages: [{role, content} ×2]}`."""
    if isinstance(value, dict):
        if depth >= _DEEPEST_SHAPE:
            return "{…}"
        inner = [f"{key}: {told}" if (told := shape(item, depth + 1)) else str(key) for key, item in value.items()]
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        first = shape(value[0], depth + 1) if value else ""
        return f"[{first or '…'} ×{len(value)}]" if value else "[]"
    return ""


# --- a column that holds JSON as text


def decode(plain: Plain, spec: Spec) -> Change | None:
    """Lists and objects that a table wrote as text, as JSON or as Python shows them."""
    mended, told = dict(plain), list[tuple[str, str]]()
    for key, value in plain.items():
        if key in spec.columns or not isinstance(value, str):
            continue
        found = _decoded(value)
        if found is None or (key not in _COLUMNS_OF_JSON and not (key in _CONVERSATIONS and _is_conversation(found))):
            continue
        mended[key] = found
        told.append((f"{key}: '{value.lstrip()[:1]}…'", f"{key}: {shape(found, 1) or '[]'}"))
    if isinstance(mended.get("messages"), list):
        told += _decode_arguments(mended)
    return Change(mended, ", ".join(one for one, _ in told), ", ".join(other for _, other in told)) if told else None


def _decoded(text: str) -> list[Any] | Plain | None:
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.strip())
            json.dumps(found, allow_nan=False)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, list | dict) else None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn and "content" in turn for turn in value)


def _decode_arguments(plain: Plain) -> list[tuple[str, str]]:
    """Arguments of tool calls that were encoded twice; `plain` is changed."""
    told: list[tuple[str, str]] = []
    turns = [dict(turn) if isinstance(turn, dict) else turn for turn in plain["messages"]]
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("tool_calls"), list | str):
            continue
        calls = turn["tool_calls"]
        if isinstance(calls, str):
            found = _decoded(calls)
            if not isinstance(found, list):
                continue
            calls = found
            told.append(("tool_calls: '[…'", f"tool_calls: {shape(found, 2)}"))
        turn["tool_calls"] = [_call(call, told) for call in calls]
    if told:
        plain["messages"] = turns
    return told[:1]


def _call(call: Any, told: list[tuple[str, str]]) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if not isinstance(arguments, str) or not arguments.lstrip().startswith('"'):
        return call
    try:
        inner = json.loads(arguments)
        if not isinstance(inner, str) or not isinstance(json.loads(inner), dict):
            return call
    except (ValueError, RecursionError):
        return call
    told.append(('arguments: "\\"{…}\\""', 'arguments: "{…}"'))
    return call | {"function": function | {"arguments": inner}}


# --- another layout


def convert(plain: Plain, spec: Spec) -> Change | None:
    """A row of another tool's layout as a row of the spec."""
    from validation.layouts import convert as converted

    found = converted(plain, spec.id)
    return Change(found, shape(plain), shape(found)) if found is not None and found != plain else None


# --- null where a key may be left out


def nulls(plain: Plain, spec: Spec) -> Change | None:
    """The row without keys that may be left out and are null, as data frames write them."""
    from validation.checks.kinds import is_left_out_as_null
    from validation.misfits import misfits_of

    mended, told = copy.deepcopy(plain), dict[str, None]()
    while found := [misfit for misfit in misfits_of(mended, spec.row, spec.columns) if is_left_out_as_null(misfit)]:
        for misfit in found:  # `within` is the object in the row itself
            told[misfit.key] = None
            cast(Plain, misfit.within).pop(misfit.key)
    return Change(mended, ", ".join(f"{key}: null" for key in told), "") if told else None


# --- columns that the spec does not name


def columns(plain: Plain, spec: Spec) -> Change | None:
    """Extra columns, moved into `metadata`.

    A key that is a slip of a known one stays, and so does one that metadata has, or whose meaning would be lost there.
    """
    from validation.checks.shape import says_more

    metadata = plain.get("metadata", {})
    if not isinstance(metadata, dict) or any(key not in plain for key in spec.required):
        return None
    extra = [key for key in plain if key not in spec.keys and key not in metadata and not _means_a_known_key(key, spec) and not says_more(key, plain)]
    if not extra:
        return None
    kept = {key: value for key, value in plain.items() if key not in extra and key != "metadata"}
    mended = kept | {"metadata": metadata | {key: plain[key] for key in extra}}
    return Change(mended, ", ".join(extra), ", ".join(f"metadata.{key}" for key in extra))


def _means_a_known_key(key: str, spec: Spec) -> bool:
    from validation.checks.shape import TOOL_KEYS

    return key in TOOL_KEYS or bool(difflib.get_close_matches(key.lower()[:80], spec.keys, n=1, cutoff=_NEAR))


# --- roles of other tools


def roles(plain: Plain, spec: Spec) -> Change | None:
    """Turns whose role has another tool's name, or capitals."""
    mended, told = dict(plain), list[tuple[str, str]]()
    for key in _CONVERSATIONS:
        turns = plain.get(key)
        if not isinstance(turns, list):
            continue
        mended[key] = [_with_role(turn, told) for turn in turns]
    if not told:
        return None
    names = dict(told)
    return Change(mended, ", ".join(names), ", ".join(names.values()))


def _with_role(turn: Any, told: list[tuple[str, str]]) -> Any:
    from validation.checks.shape import ROLE_NAMES

    role = turn.get("role") if isinstance(turn, dict) else None
    if not isinstance(role, str) or role in ROLES or role == "developer":
        return turn
    folded = role.strip().lower()
    right = folded if folded in ROLES else ROLE_NAMES.get(folded, "")
    if not right:
        return turn
    told.append((role, right))
    return turn | {"role": right}


# --- text that was decoded wrongly


def mojibake(plain: Plain, spec: Spec) -> Change | None:
    """Texts whose bytes were once read in the wrong encoding, read in the right one. Quotes, widths and ligatures stay as they are."""
    told: list[tuple[str, str]] = []

    def mended(text: str) -> str:
        found = _decoded_rightly(text)
        if found != text:
            told.append(_around(text, found))
        return found

    trained = {key: value for key, value in plain.items() if key in spec.required + spec.own and key != "images"}
    new = plain | {key: _texts(value, mended) for key, value in trained.items()}
    return Change(new, *told[0]) if told else None


def _decoded_rightly(text: str) -> str:
    from validation.checks.texts import decoded_rightly, has_wrong_letters

    return decoded_rightly(text) if has_wrong_letters(text) else text


def _around(before: str, after: str) -> tuple[str, str]:
    """The words where two texts differ first."""
    words = next(((one, other) for one, other in zip(before.split(), after.split(), strict=False) if one != other), None)
    return words or (before[:40], after[:40])


def _texts(value: Any, mended: Callable[[str], str]) -> Any:
    """The value with every text in it mended; keys stay."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        return [_texts(inner, mended) for inner in value]
    if isinstance(value, dict):
        return {key: _texts(inner, mended) for key, inner in value.items()}
    return value
