"""Whether a tool call of an answer failed because the model called it wrongly. Pure.

Two places tell. The call itself: a function that nobody declared, arguments that are no JSON or not what the declaration
asks for; that is certain. And what the tool gave back: an error in it is the model's where it speaks of the arguments, and
the world's where it speaks of time, load or the network; such an error says nothing of the model.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LOOKED_AT = 2_000  # characters of a result
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_ERROR_KEYS = ("error", "exception", "traceback")
_ERROR_WORDS = re.compile(r"\s*(?:\W{0,3})(?:error|exception|traceback|invalid|failed|failure|bad request|[A-Z]\w{2,40}(?:Error|Exception))\b", re.IGNORECASE)
_OF_THE_WORLD = re.compile(
    r"time(?:d)?[ -]?out|unavailable|overload|rate.?limit|too many requests|connection|network|unreachable|refused|internal server|try again|quota|"
    r"unauthori[sz]ed|forbidden|permission|\b(?:401|403|408|429|5\d\d)\b",
    re.IGNORECASE,
)
_OF_THE_CALL = re.compile(
    r"argument|parameter|invalid|missing|required|unknown|unexpected|not found|no such|does not exist|must be|should be|expected|type|value|format|schema|"
    r"validation|bad request|unsupported|out of range|\b(?:400|404|422)\b",
    re.IGNORECASE,
)


def wrong_call(name: str, arguments: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """Why a call cannot be made as it stands; empty where nothing is wrong with it.

    Args: arguments: JSON text. tools: the declarations in OpenAI's form. Only what a call is most often wrong in is looked
        at: names, required and unknown arguments, their plain types and enums.
    """
    functions = {str(tool["function"]["name"]): tool["function"] for tool in tools}
    if name not in functions:
        return f"no function {name!r} is declared"
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return f"the arguments of {name} are not JSON"
    if not isinstance(given, dict):
        return f"the arguments of {name} are no object"
    schema = functions[name].get("parameters") or {}
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    required = schema.get("required")
    for key in required if isinstance(required, list) else ():
        if key not in given:
            return f"{name} lacks its argument {key!r}"
    if schema.get("additionalProperties") is False and (extra := next((key for key in given if key not in known), None)) is not None:
        return f"{name} has no argument {extra!r}"
    return next((why for key, value in given.items() if (why := _misfit(known.get(key), value, f"{key!r} of {name}"))), "")


def wrong_result(content: str) -> str:
    """What a tool's result says was wrong with the call, shortened; empty where it is no error, or not the model's."""
    text = content[:LOOKED_AT]
    told = _error_in(text)
    if not told or _OF_THE_WORLD.search(told) or not _OF_THE_CALL.search(told):
        return ""
    return told[:200]


def _misfit(schema: object, value: object, what: str) -> str:
    if not isinstance(schema, dict):
        return ""
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    kinds = tuple(kind for name in names for kind in _TYPES.get(str(name), (object,)))
    is_number = isinstance(value, bool) and bool not in kinds and object not in kinds  # a bool is an int to Python, but to nobody else
    if kinds and (not isinstance(value, kinds) or is_number):
        return f"{what} is no {' or '.join(map(str, names))}"
    choices = schema.get("enum")
    return f"{what} is none of its choices" if isinstance(choices, list) and value not in choices else ""


def _error_in(text: str) -> str:
    """The words of an error; empty where the result is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip() if _ERROR_WORDS.match(text) else ""
    if isinstance(found, str):
        return found.strip() if _ERROR_WORDS.match(found) else ""
    if not isinstance(found, dict):
        return ""
    for key in _ERROR_KEYS:
        if found.get(key):
            return _words(found[key]) + " " + _words(found.get("message", ""))
    is_error = found.get("isError") is True or found.get("is_error") is True or found.get("success") is False or found.get("ok") is False
    return _words(found) if is_error or str(found.get("status", "")).casefold() in ("error", "failed", "failure") else ""


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
