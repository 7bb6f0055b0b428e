"""S and M02: rows that are JSON, but not rows of the spec. Each problem names its path and the nearest right thing."""

import difflib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from rendering.rowtypes import ROLES, ChatRow, CompletionRow, SpecRow, Turn
from rendering.specs import MESSAGE_OPTIONAL, MESSAGE_REQUIRED, Spec
from validation.checks.registry import Check, Need, Totals, Value, entered
from validation.findings import Problem, Severity, shown
from validation.layouts import LAYOUTS, layout_of

MESSAGE_KEYS = MESSAGE_REQUIRED + MESSAGE_OPTIONAL
TOOL_KEYS = ("tools", "tool_calls", "tool_call_id", "function_call", "functions", "parallel_tool_calls")
ROLE_NAMES = {
    "human": "user",
    "person": "user",
    "customer": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "agent": "assistant",
    "developer": "system",
}
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
_OPTIONAL = ("metadata", "id", "weight", "message.name")
_LONGEST_KEY = 64
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def kind_of(value: Any) -> str:
    """A JSON value's type in words."""
    return _NAMES.get(type(value), type(value).__name__)


def foreign(value: Value) -> bool:
    """Whether the row is of another layout; then its missing and extra keys are not told one by one."""
    layout = layout_of(value.plain, value.spec.id) if isinstance(value.plain, dict) else None
    return layout is not None and layout.id != value.spec.id


def messages_of(value: Value) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, message) of every message that is an object."""
    plain = value.plain
    if value.spec.row is ChatRow and isinstance(plain, dict) and isinstance(plain.get("messages"), list):
        for index, message in enumerate(plain["messages"]):
            if isinstance(message, dict):
                yield f"$.messages[{index}]", message


def loosened(plain: Any, spec: Spec) -> SpecRow | None:
    """The row without the keys that do not belong there, so that its turns can be judged all the same. None: not possible."""
    try:
        if spec.row is CompletionRow:
            return msgspec.convert({key: plain[key] for key in spec.required}, CompletionRow)
        turns = [{key: item for key, item in message.items() if key in MESSAGE_REQUIRED} for message in plain["messages"]]
        for turn, message in zip(turns, plain["messages"], strict=True):
            if message.get("weight") == 0:
                turn["weight"] = 0
        return ChatRow(messages=msgspec.convert(turns, list[Turn]))
    except (msgspec.MsgspecError, UnicodeError, KeyError, TypeError, AttributeError):
        return None


@entered(Check("S06", "spec.foreign", Severity.ERROR, Need.VALUE, "", rank=10))
def foreign_layout(value: Value) -> Problem | None:
    """The row has the layout of another tool, or of another spec."""
    layout = layout_of(value.plain, value.spec.id) if isinstance(value.plain, dict) else None
    if layout is None or layout.id == value.spec.id:
        return None
    fix = layout.fixes(value.plain).get(value.spec.id, "")
    message = f"rows are {layout.title}, not {value.spec.id} ({', '.join(value.spec.required)})"
    return Problem(message=message, kind=layout.id, hint=layout.hint, fix=fix)


@entered(Check("S02", "spec.missing_field", Severity.ERROR, Need.VALUE, "add the key to every row", rank=11))
def missing_key(value: Value) -> Iterator[Problem]:
    """A required key is not there."""
    if not isinstance(value.plain, dict) or foreign(value):
        return
    for key in value.spec.required:
        if key not in value.plain:
            yield Problem(message=f"the key {key!r} is missing", path=f"$.{key}", kind=key, hint=f"a row looks like {value.spec.example}")
    for path, message in messages_of(value):
        for key in MESSAGE_REQUIRED:
            if key not in message:
                hint = "use role and content instead of from and value" if "from" in message or "value" in message else "every message has a role and a content"
                yield Problem(message=f"a message without {key!r}", path=f"{path}.{key}", kind=f"message.{key}", hint=hint)


@entered(Check("S03", "spec.unknown_field", Severity.ERROR, Need.VALUE, "", rank=12))
def unknown_key(value: Value) -> Iterator[Problem]:
    """A key that the spec does not name."""
    if not isinstance(value.plain, dict) or foreign(value):
        return
    for key in value.plain:
        if key not in value.spec.keys:
            yield _unknown(key, value.spec.keys, "$", in_message=False)
    for path, message in messages_of(value):
        for key in message:
            if key not in MESSAGE_KEYS:
                yield _unknown(key, MESSAGE_KEYS, path, in_message=True)


def _unknown(key: str, known: tuple[str, ...], path: str, *, in_message: bool) -> Problem:
    hint, fix = _unknown_hint(key, known, in_message)
    kind = f"message.{key}" if in_message else key
    place = "a message" if in_message else "a row"
    return Problem(message=f"{place} has the unknown key {shown(key)}", path=f"{path}.{shown(key)[1:-1]}", kind=kind, hint=hint, fix=fix)


@lru_cache(maxsize=256)  # a column that is too much is too much in every row
def _unknown_hint(key: str, known: tuple[str, ...], in_message: bool) -> tuple[str, str]:
    """(hint, fix)"""
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75) if len(key) <= _LONGEST_KEY else []
    if near:
        return f"did you mean {near[0]!r}?", ""
    if key in TOOL_KEYS:
        return "this spec has no tools: leave those rows out, or write calls as text", ""
    if in_message:
        return f"a message has only {', '.join(MESSAGE_KEYS)}: remove the key", _jq(key, f"del(.messages[].{key})")
    return "move it into metadata, which is kept and never trained on, or remove it", _jq(key, f".metadata.{key} = .{key} | del(.{key})")


def _jq(key: str, program: str) -> str:
    return f"jq -c '{program}' {{file}} > {{out}}" if _WORD.fullmatch(key) and len(key) <= _LONGEST_KEY else ""


@entered(Check("S05", "spec.stringified", Severity.ERROR, Need.VALUE, "it came out of a table: parse the text back into JSON", rank=13))
def stringified(value: Value) -> Iterator[Problem]:
    """A list or object that was written as a text."""
    if isinstance(value.plain, dict):
        for key in ("messages", "metadata"):
            if key in value.spec.keys and _is_json_text(value.plain.get(key)):
                yield Problem(message=f"{key!r} is a text that holds JSON", path=f"$.{key}", kind=key, fix=f"jq -c '.{key} |= fromjson' {{file}} > {{out}}")


def _is_json_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


@entered(Check("S04", "spec.type", Severity.ERROR, Need.VALUE, "write the value in the type that the spec names", rank=14))
def wrong_type(value: Value) -> Iterator[Problem]:
    """A value of another type: null, a number as text, a list of parts where text belongs."""
    plain = value.plain
    if not isinstance(plain, dict) or foreign(value):
        return
    wanted = {"messages": (list,), "prompt": (str,), "completion": (str,), "metadata": (dict,), "id": (str, int), "weight": (int, float)}
    for key, types in wanted.items():
        if key in plain and key in value.spec.keys and not _is_json_text(plain[key] if dict in types or list in types else None):
            yield from _typed(plain[key], types, f"$.{key}", key)
    weight = plain.get("weight")
    if isinstance(weight, int | float) and not isinstance(weight, bool) and not value.marks.nonfinite and not 0 <= weight <= 1:
        yield Problem(message=f"the row's weight is {shown(weight)}", path="$.weight", kind="weight.range", hint="a weight is a number from 0 to 1")
    if value.spec.row is ChatRow and isinstance(plain.get("messages"), list):
        for index, message in enumerate(plain["messages"]):
            yield from _message_types(message, f"$.messages[{index}]")


def _typed(value: Any, types: tuple[type, ...], path: str, kind: str) -> Iterator[Problem]:
    if isinstance(value, types) and not (isinstance(value, bool) and bool not in types):
        return
    hint = f"it must be {' or '.join(dict.fromkeys(_NAMES[one] for one in types))}"
    if value is None and kind in _OPTIONAL:
        hint += "; leave the key out instead of writing null"
    elif isinstance(value, list) and kind == "message.content":
        hint += "; join its text parts into one text (pictures are not part of this spec)"
    named = f"a message's {kind.removeprefix('message.')}" if kind.startswith("message.") else f"the value of {kind!r}"
    yield Problem(message=f"{named} is {kind_of(value)}: {shown(value)}", path=path, kind=kind, hint=hint)


def _message_types(message: Any, path: str) -> Iterator[Problem]:
    if not isinstance(message, dict):
        yield Problem(
            message=f"a message is {kind_of(message)}: {shown(message)}", path=path, kind="message", hint="a message is an object with role and content"
        )
        return
    for key in ("role", "content", "name"):
        if key in message:
            yield from _typed(message[key], (str,), f"{path}.{key}", f"message.{key}")
    if "weight" in message:
        weight, role = message["weight"], message.get("role")
        if type(weight) is not int or weight not in (0, 1):
            yield Problem(
                message=f"a message's weight is {shown(weight)}", path=f"{path}.weight", kind="message.weight", hint="a message's weight is the number 0 or 1"
            )
        elif role != "assistant" and weight != 1:
            message_text = f"a {shown(role)[1:-1] if isinstance(role, str) else 'foreign'} turn has a weight"
            hint = "only assistant turns are learnt and can be taken out by weight 0: remove the key"
            yield Problem(message=message_text, path=f"{path}.weight", kind="message.weight.role", hint=hint)


@entered(Check("M02", "msg.role", Severity.ERROR, Need.VALUE, "", rank=15))
def unknown_role(value: Value) -> Iterator[Problem]:
    """A role that the spec does not know; capitals count."""
    for path, message in messages_of(value):
        role = message.get("role")
        if isinstance(role, str) and role not in ROLES:
            folded = role.strip().lower()
            right = folded if folded in ROLES else ROLE_NAMES.get(folded, "")
            if right:
                hint = f"write {right!r}"
            elif folded in ("tool", "function", "ipython", "observation"):
                hint = "this spec has no tools: leave those rows out, or write the results as user text"
            else:
                hint = f"roles are {', '.join(ROLES)}"
            fix = f"""jq -c '(.messages[] | select(.role == "{role}")).role = "{right}"' {{file}} > {{out}}""" if right and _WORD.fullmatch(role) else ""
            yield Problem(message=f"the role {shown(role)}", path=f"{path}.role", kind=role, hint=hint, fix=fix)


@entered(Check("S04", "spec.type", Severity.ERROR, Need.VALUE, "compare the row with an example of the spec", rank=99))
def what_the_decoder_says(value: Value) -> Problem | None:
    """Nothing above named the cause: the typed decoder's own sentence, so that no row is refused without a reason."""
    return None if value.num_errors else Problem(message=f"not a row of {value.spec.id}: {shown(value.complaint)[1:-1]}", kind="decoder")


@entered(Check("S07", "spec.mixed", Severity.ERROR, Need.END, "split the file by layout and declare each part's schema"))
def mixed_layouts(totals: Totals) -> Problem | None:
    """Rows of more than one layout; the lines are those of the rarer ones."""
    if len(totals.layouts) < 2:
        return None
    titles = {layout.id: layout.title for layout in LAYOUTS}
    by_rows = sorted(totals.layout_rows.items(), key=lambda item: -item[1])
    told = ", ".join(f"{rows:,} of {titles.get(name, name)}" for name, rows in by_rows)
    lines = sorted(line for name, _ in by_rows[1:] for line in totals.layouts[name])
    return Problem(message=f"the file mixes layouts: {told}", lines=tuple(lines), count=sum(rows for _, rows in by_rows[1:]))
