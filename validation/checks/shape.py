"""S and M02: rows that are JSON, but not rows of the spec. Each problem names its path and the nearest right thing."""

import ast
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rendering.rowtypes import ROLES, Call, Function, Part, PreferenceRow, Turn
from rendering.specs import MESSAGE_OPTIONAL, MESSAGE_REQUIRED, SPECS, Spec, SpecRow
from validation.checks.registry import Check, Need, Totals, Value, entered
from validation.conversions import CONTEXTS, KNOWN_ROLES, ROLE_NAMES, SYSTEMS, VERDICTS, is_among, is_empty, verdict
from validation.findings import Problem, Severity, shown
from validation.layouts import CHECK, CONVERT, LAYOUTS, Layout, convert, layout_of
from validation.misfits import Misfit, mended, misfits_of
from validation.readings import whole_conversations

__all__ = ["MESSAGE_KEYS", "ROLE_NAMES", "TOOL_KEYS", "Shape", "loosened", "shape_of"]

MESSAGE_KEYS = MESSAGE_REQUIRED + MESSAGE_OPTIONAL
TOOL_KEYS = ("tools", "tool_calls", "tool_call_id", "function_call", "functions", "parallel_tool_calls")
OWNERS: dict[type, tuple[str, str]] = {
    Turn: ("message", "a message"),
    Call: ("call", "a tool call"),
    Function: ("function", "the function of a tool call"),
    Part: ("part", "a content part"),
}
_LONGEST_KEY = 64
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DROPPABLE = ("metadata", "id", "weight", "name")
_CALL_HINT = 'a call looks like {"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a row that is not of the spec: a foreign layout, or the places that do not fit."""

    foreign: Layout | None
    misfits: Sequence[Misfit] = ()


def shape_of(value: Value) -> Shape:
    """The shape, worked out once a row."""
    if value.shape is None:
        value.shape = _shape(value.plain, value.spec)
    found: Shape = value.shape
    return found


def _shape(plain: Any, spec: Spec) -> Shape:
    if not isinstance(plain, dict):
        return Shape(None)
    layout = layout_of(plain, spec)
    if layout is not None and layout.id != spec.id:
        return Shape(layout)
    return Shape(None, _without_echoes(misfits_of(plain, spec.row, spec.columns)))


def _without_echoes(misfits: Sequence[Misfit]) -> list[Misfit]:
    """Each fault once: a content is null because its calls have another name; a part of another type has other keys; and so has a row without its own."""
    lacking = any(one.fault == "missing" and one.path.count(".") == 1 for one in misfits)
    calling = {one.path for one in misfits if one.fault == "unknown" and one.owner is Turn and _means_calls(one.key)}
    foreign = {one.path.removesuffix(".type") for one in misfits if one.fault == "literal" and one.owner is Part}

    def is_echo(one: Misfit) -> bool:
        if one.owner is Turn and one.key == "content" and one.fault in ("null", "missing"):
            return one.path.removesuffix(".content") in calling
        if one.fault == "unknown" and one.path == "$":
            return lacking and not _nearest(one.key, tuple(one.keys))
        return one.owner is Part and one.fault == "unknown" and one.path in foreign

    return [one for one in misfits if not is_echo(one)]


def _means_calls(key: str) -> bool:
    return key in TOOL_KEYS or _nearest(key, ("tool_calls", "function_call")) != ""


def loosened(value: Value) -> SpecRow | None:
    """The row without the keys that do not belong there, so that its turns can be judged all the same. None: not possible."""
    shape = shape_of(value)
    if not isinstance(value.plain, dict) or shape.foreign or not all(_is_harmless(misfit) for misfit in shape.misfits):
        return None
    found: SpecRow | None = mended(value.plain, value.spec.row, KNOWN_ROLES)
    return found


def _is_harmless(misfit: Misfit) -> bool:
    """Whether the rest of the row means the same without it."""
    key = misfit.key
    if misfit.fault == "unknown":
        return key not in TOOL_KEYS and misfit.owner not in (Call, Function, Part) and not _nearest(key, tuple(misfit.keys))
    if misfit.fault in ("type", "range", "literal", "not_learnt"):
        is_role = misfit.owner is Turn and key == "role" and isinstance(misfit.value, str)
        return key in _DROPPABLE or (is_role and misfit.value.strip().lower() in KNOWN_ROLES)
    return False


@entered(Check("S06", "spec.foreign", Severity.ERROR, Need.VALUE, "", why="their keys do not say what is asked and what is learnt", rank=10))
def foreign_layout(value: Value) -> Problem | None:
    """The row has the layout of another tool, or of another spec."""
    layout = shape_of(value).foreign
    if layout is None:
        return None
    hint, fix = layout.way(value.plain, value.spec.id)
    message = f"the layout is that of {layout.title}, not of {value.spec.id} ({', '.join(value.spec.required)})"
    return Problem(message=message, kind=layout.id, hint=hint, fix=fix)


@entered(
    Check("S02", "spec.missing_field", Severity.ERROR, Need.VALUE, "add the key to every row", why="without it a row does not say what is learnt", rank=11)
)
def missing_key(value: Value) -> Iterator[Problem]:
    """A required key is not there."""
    for misfit in shape_of(value).misfits:
        if misfit.fault != "missing":
            continue
        key = misfit.key
        owner, words = OWNERS.get(misfit.owner, ("", ""))
        if not owner:
            if not _differs_in_question(value):
                yield _without_key(value, misfit)
        else:
            hint = "every message has a role and a content" if owner == "message" else _CALL_HINT if owner != "part" else "every content part has a type"
            yield Problem(message=f"{words} without {key!r}", path=misfit.path, kind=f"{owner}.{key}", hint=hint)


def _without_key(value: Value, misfit: Misfit) -> Problem:
    key, spec = misfit.key, value.spec
    if key == "prompt" and _is_pair_without_prompt(value) and convert(value.plain, spec.id) is not None:
        hint = "both answers begin with the same turns: they become the prompt, and what comes after them stays"
        return Problem(message="the key 'prompt' is missing", path=misfit.path, kind="prompt shared", hint=hint, fix=f"{CONVERT}{spec.id}")
    own = ", ".join(shown(key) for key in list(misfit.within)[:6]) or "none"
    hint = f"a row looks like {spec.example}; this one has the keys {own}"
    other = layout_of(value.plain)
    if other is not None and other.id in SPECS and other.id != spec.id:
        hint += f"; a file of such rows is one of {other.id}: --schema {other.id}"
    return Problem(message=f"the key {key!r} is missing", path=misfit.path, kind=key, hint=hint)


def _is_pair_without_prompt(value: Value) -> bool:
    return issubclass(value.spec.row, PreferenceRow) and isinstance(value.plain, dict) and "prompt" not in value.plain and shape_of(value).foreign is None


def _differs_in_question(value: Value) -> bool:
    """Whether a pair has its question in its answers, and not the same one in both: P02 tells of it."""
    return _is_pair_without_prompt(value) and whole_conversations(value.plain) is not None and convert(value.plain, value.spec.id) is None


@entered(
    Check(
        "P02",
        "pref.prompt",
        Severity.ERROR,
        Need.VALUE,
        "both answers must follow the same turns: write these into prompt, and only what comes after them into chosen and rejected",
        why="the pair would compare the questions, not the answers",
        families=("pair",),
        rank=11,
    )
)
def other_question(value: Value) -> Problem | None:
    """A pair without a prompt of its own whose answers hold different questions."""
    if not _differs_in_question(value):
        return None
    both = whole_conversations(value.plain)
    assert both is not None
    shared = next((place for place, (one, other) in enumerate(zip(*both, strict=False)) if one != other), min(map(len, both)))
    where = f"from turn {shared + 1} on" if shared else "from the first turn on"
    return Problem(message=f"there is no prompt, and chosen and rejected differ in what is asked, {where}", path="$.rejected", kind="no prompt")


@entered(Check("S03", "spec.unknown_field", Severity.ERROR, Need.VALUE, "", why="nobody reads such a key: what it says would be lost in silence", rank=12))
def unknown_key(value: Value) -> Iterator[Problem]:
    """A key that the spec does not name."""
    for misfit in shape_of(value).misfits:
        if misfit.fault == "unknown":
            owner, words = OWNERS.get(misfit.owner, ("", "a row"))
            key = misfit.key
            list_key = misfit.path.partition("[")[0].removeprefix("$.")
            hint, fix = _unknown_hint(key, tuple(misfit.keys), owner, list_key if owner else value.spec.id)
            kind = f"{owner}.{key}" if owner else key
            if not owner and says_more(key, misfit.within):
                hint, fix, kind = *_telling_hint(key, value), f"{key} telling"
            kind = "call.flat" if kind in ("call.name", "call.arguments") else kind
            yield Problem(message=f"{words} has the unknown key {shown(key)}", path=f"{misfit.path}.{shown(key)[1:-1]}", kind=kind, hint=hint, fix=fix)


def says_more(key: str, plain: Mapping[str, Any]) -> bool:
    """Whether a column tells of the answer's worth, or is a part of what is asked: in metadata it would say nothing any more."""
    value = plain[key]
    if key in VERDICTS:
        return verdict(value) is not None
    if key not in (*SYSTEMS, *CONTEXTS) or is_empty(value):
        return False
    return not is_among(value, [other.strip() for name, other in plain.items() if name != key and isinstance(other, str)])


def _telling_hint(key: str, value: Value) -> tuple[str, str]:
    declare = f"or declare it: --columns {key}"
    if key not in VERDICTS:
        return f"write what it says into the text that it belongs to; {declare}, if nothing of what is asked hangs on it", ""
    fix = f"{CHECK}unpaired_v1" if key == "label" and {"prompt", "completion"} <= value.plain.keys() else ""
    return f"rows that say whether their answer is good are rows of unpaired_v1: --schema unpaired_v1; {declare}, if bad answers are to be learnt too", fix


def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75) if len(key) <= _LONGEST_KEY else []
    return near[0] if near else ""


@lru_cache(maxsize=256)  # a column that is too much is too much in every row
def _unknown_hint(key: str, known: tuple[str, ...], owner: str, place: str) -> tuple[str, str]:
    """(hint, fix). `place` is the key of the list that the turn stands in; of a row the spec."""
    near = _nearest(key, known)
    if near:
        return f"did you mean {near!r}?", ""
    if owner == "call":
        return (f"{key!r} belongs inside 'function': {_CALL_HINT}" if key in ("name", "arguments") else f"remove it: {_CALL_HINT}"), ""
    if owner in ("function", "part"):
        return f"it has only {', '.join(known)}: remove the key", ""
    if key in ("function_call", "functions"):
        return "this is OpenAI's old form: write tool_calls, and tools with type and function", ""
    if key in TOOL_KEYS:
        return "this spec has no tools: leave those rows out, or write calls as text", ""
    if owner == "message" and key in ("reasoning_content", "reasoning", "thinking"):
        return "write what is to be learnt of it into the content, where the template has a place for it, or remove the key", _jq(
            key, f"del(.{place}[]?.{key})"
        )
    if owner == "message":
        return f"a message has only {', '.join(known)}: remove the key", _jq(key, f"del(.{place}[]?.{key})")
    if key in ("images", "image") and "messages" in known:
        return "rows with pictures are rows of vision_v1: check them with --schema vision_v1", ""
    word = key if _WORD.fullmatch(key) and len(key) <= _LONGEST_KEY else "NAME"
    hint = f'move it into metadata, which is kept and never trained on; or declare it: --columns {word}, or "columns": ["{word}"] in the sidecar'
    return hint, f"lorad fix {{file}} -o {{out}} --schema {place}"


def _jq(key: str, program: str) -> str:
    return f"jq -c '{program}' {{file}} > {{out}}" if _WORD.fullmatch(key) and len(key) <= _LONGEST_KEY else ""


@entered(
    Check(
        "S05",
        "spec.stringified",
        Severity.ERROR,
        Need.VALUE,
        "it came out of a table: parse the text back into JSON",
        why="the row holds a picture of its turns, not the turns",
        rank=13,
    )
)
def stringified(value: Value) -> Iterator[Problem]:
    """A list or object that was written as a text."""
    for misfit in shape_of(value).misfits:
        if misfit.fault == "type" and (language := written_as_text(misfit)):
            message = f"{misfit.key!r} is a text that holds {'JSON' if language == 'json' else 'a Python list'}"
            kind = misfit.key if language == "json" else f"{misfit.key} {language}"
            yield Problem(message=message, path=misfit.path, kind=kind, fix=f"lorad fix {{file}} -o {{out}} --schema {value.spec.id}")


def written_as_text(misfit: Misfit) -> str:
    """Whether a text stands for a list or an object that is wanted there: "json" or "python"; empty: no."""
    return text_that_holds(misfit.value) if misfit.kind.is_nested else ""


_LONGEST_LITERAL = 1 << 16  # characters; Python's parser is slow


def text_that_holds(value: Any) -> str:
    """ "json" or "python" where the value is a text that holds a list or an object; else empty."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return ""
    try:
        json.loads(value)
        return "json"
    except (ValueError, RecursionError):
        pass
    if len(value) > _LONGEST_LITERAL or "'" not in value:
        return ""
    try:
        return "python" if isinstance(ast.literal_eval(value.strip()), list | dict) else ""
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""


def is_role(misfit: Misfit) -> bool:
    """Whether the role of a turn is none that the spec knows."""
    return misfit.owner is Turn and misfit.key == "role" and misfit.fault == "literal"


@entered(Check("M02", "msg.role", Severity.ERROR, Need.VALUE, "", why="a template drops a role that it does not know, or raises", rank=15))
def unknown_role(value: Value) -> Iterator[Problem]:
    """A role that the spec does not know; capitals count."""
    for misfit in shape_of(value).misfits:
        if not is_role(misfit):
            continue
        role = misfit.value
        right = KNOWN_ROLES.get(role.strip().lower(), "")
        hint = f"write {right!r}" if right else f"roles are {', '.join(ROLES)}"
        fix = f"lorad fix {{file}} -o {{out}} --schema {value.spec.id}" if right else ""
        yield Problem(message=f"the role {shown(role)}", path=misfit.path, kind=role, hint=hint, fix=fix)


@entered(
    Check(
        "S04",
        "spec.type",
        Severity.ERROR,
        Need.VALUE,
        "compare the row with an example of the spec",
        why="a guess at what was meant would train on something else",
        rank=99,
    )
)
def what_the_decoder_says(value: Value) -> Problem | None:
    """Nothing above named the cause: the typed decoder's own sentence, so that no row is refused without a reason."""
    return None if value.num_errors else Problem(message=f"not a row of {value.spec.id}: {shown(value.complaint)[1:-1]}", kind="decoder")


@entered(
    Check(
        "S07",
        "spec.mixed",
        Severity.ERROR,
        Need.END,
        "bring all rows into one layout: convert the others where a command is offered for them, else put them into a file of their own",
        why="a reader that learns the columns from the first rows loses or refuses the others",
    )
)
def mixed_layouts(totals: Totals) -> Problem | None:
    """Rows of more than one layout; the lines are those of the rarer ones."""
    if len(totals.layouts) < 2:
        return None
    titles = {totals.spec.id: totals.spec.title} | {layout.id: layout.title for layout in LAYOUTS}
    by_rows = sorted(totals.layout_rows.items(), key=lambda item: -item[1])
    told = ", ".join(f"{rows:,} of {titles.get(name, name)}" for name, rows in by_rows)
    lines = sorted(line for name, _ in by_rows[1:] for line in totals.layouts[name])
    return Problem(message=f"the file mixes layouts: {told}", lines=tuple(lines), count=sum(rows for _, rows in by_rows[1:]))
