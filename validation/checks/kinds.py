"""S04: values of another type than the spec names."""

from collections.abc import Iterator
from typing import Any

from rendering.rowtypes import Part, Turn
from validation.checks.registry import Check, Need, Value, entered
from validation.checks.shape import OWNERS, is_role, shape_of, written_as_text
from validation.findings import Problem, Severity, shown
from validation.misfits import Misfit, struct_of

_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}


def kind_of(value: Any) -> str:
    """A JSON value's type in words."""
    return _NAMES.get(type(value), type(value).__name__)


@entered(
    Check(
        "S04",
        "spec.type",
        Severity.ERROR,
        Need.VALUE,
        "write the value in the type that the spec names",
        why="a guess at what was meant would train on something else",
        rank=14,
    )
)
def wrong_type(value: Value) -> Iterator[Problem]:
    """A value of another type: null, a number as text, a picture where text belongs."""
    for misfit in shape_of(value).misfits:
        if misfit.fault in ("missing", "unknown") or is_role(misfit) or _is_picture_list(misfit):
            continue
        if misfit.fault == "type" and written_as_text(misfit):
            continue
        owner, words = OWNERS.get(misfit.owner, ("", ""))
        kind = f"{owner}.{misfit.key}" if owner else misfit.key
        if misfit.fault == "type":
            yield _of_null_key(misfit, owner, value.spec.id) if is_left_out_as_null(misfit) else _of_another_type(misfit, owner, kind)
        else:
            yield _TELLERS[misfit.fault](misfit, words or "the row", kind)


def _is_picture_list(misfit: Misfit) -> bool:
    """V02 tells of pictures that are one text."""
    return misfit.key == "images" and misfit.path == "$.images" and isinstance(misfit.value, str)


def _of_another_type(misfit: Misfit, owner: str, kind: str) -> Problem:
    value = misfit.value
    if owner == "message" and misfit.path.endswith("]") and misfit.key not in ("content", "tool_calls"):
        owner, kind = "", misfit.key
    what = " or ".join(misfit.kind.words) or " or ".join(map(repr, misfit.kind.literals))
    hint = f"it must be {what}"
    if misfit.kind.struct is not None and misfit.kind.struct.row is Turn:
        return Problem(
            message=f"a message is {kind_of(value)}: {shown(value)}", path=misfit.path, kind="message", hint="a message is an object with role and content"
        )
    if misfit.key == "label" and misfit.kind.boolean:
        hint += ", without quotes" if isinstance(value, str) else ": 1 is true and 0 is false"
    named = f"{_words(owner)} {misfit.key}" if owner else f"the value of {misfit.key!r}"
    told = kind_of(value) if value is None else f"{kind_of(value)}: {shown(value)}"
    return Problem(message=f"{named} is {told}", path=misfit.path, kind=kind, hint=hint)


def is_left_out_as_null(misfit: Misfit) -> bool:
    """Whether a key that may be left out is null instead."""
    if misfit.fault != "type":
        return False
    return misfit.value is None and not misfit.path.endswith("]") and misfit.key not in struct_of(misfit.owner).required


def _of_null_key(misfit: Misfit, owner: str, spec_id: str) -> Problem:
    """Keys that may be left out, as data frames fill them: one finding, however many keys."""
    named = f"{_words(owner)} {misfit.key!r}" if owner else f"the value of {misfit.key!r}"
    hint = f"leave the key out instead of writing null; where it stands, it must be {' or '.join(misfit.kind.words) or 'a value'}"
    fix = f"lorad fix {{file}} -o {{out}} --schema {spec_id}"
    return Problem(message=f"{named} is null", path=misfit.path, kind=f"{owner}.null", hint=hint, fix=fix)


def _words(owner: str) -> str:
    return {"message": "a message's", "call": "a tool call's", "function": "a called function's", "part": "a content part's"}[owner]


def _of_literal(misfit: Misfit, words: str, kind: str) -> Problem:
    value, key = misfit.value, misfit.key
    if misfit.owner is Part:
        hint = 'a text is {"type": "text", "text": "…"}; rows with pictures are rows of vision_v1: {"type": "image"}, and its path in the list images'
        return Problem(message=f"a content part has the type {shown(value)}", path=misfit.path, kind=f"{kind}.{shown(value)}", hint=hint)
    allowed = " or ".join(repr(one) for one in misfit.kind.literals)
    return Problem(message=f"{words} has the {key} {shown(value)}", path=misfit.path, kind=kind, hint=f"it must be {allowed}")


def _of_range(misfit: Misfit, words: str, kind: str) -> Problem:
    least, most = misfit.kind.least, misfit.kind.most
    span = (
        f"from {least:g} to {most:g}" if least is not None and most is not None else f"of at least {least:g}" if least is not None else f"of at most {most:g}"
    )
    turn = misfit.owner is Turn
    named = "a message's weight" if turn else "the row's weight" if misfit.path == "$.weight" else f"the value of {misfit.key!r}"
    return Problem(message=f"{named} is {shown(misfit.value)}", path=misfit.path, kind=f"{kind}.range", hint=f"it is a number {span}")


def _of_null(misfit: Misfit, words: str, kind: str) -> Problem:
    hint = "write the text; null stands only beside tool_calls"
    return Problem(message="a message's content is null", path=misfit.path, kind=kind, hint=hint)


def _of_role(misfit: Misfit, words: str, kind: str) -> Problem:
    """A weight or calls of a turn that is not the assistant's."""
    role = shown(str(misfit.within.get("role")))[1:-1]
    if misfit.key == "weight":
        hint = "only assistant turns are learnt and can be taken out by weight 0: remove the key"
        return Problem(message=f"a {role} turn has a weight", path=misfit.path, kind="message.weight.role", hint=hint)
    return Problem(message=f"a {role} turn calls tools", path=misfit.path, kind="message.tool_calls.role", hint="only assistant turns call tools")


def _of_picture(misfit: Misfit, words: str, kind: str) -> Problem:
    hint = "rows with pictures are rows of vision_v1: check them with --schema vision_v1"
    return Problem(message="a picture stands in a content", path=misfit.path, kind="picture", hint=hint)


_TELLERS = {"literal": _of_literal, "range": _of_range, "null": _of_null, "not_learnt": _of_role, "picture": _of_picture}
