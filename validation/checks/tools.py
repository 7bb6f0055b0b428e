"""T01 to T03, and the form of tool declarations: calls and results that belong together. The tools' own schemas are T04's."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from rendering.specs import BAD_JSON, Message, ToolCall
from validation.case import Case
from validation.checks.parse import DUPLICATE_HINT, DUPLICATE_WHY, forgiving
from validation.checks.registry import Check, Need, entered
from validation.findings import Problem, Severity, shown
from validation.talks import Talk

_arguments = msgspec.json.Decoder(dict[str, Any]).decode
_anything = msgspec.json.Decoder().decode


@entered(
    Check(
        "S04",
        "spec.type",
        Severity.ERROR,
        Need.ROW,
        'a tool is {"type": "function", "function": {"name": "…", "parameters": {…}}}, or {"name": "…", "parameters": {…}}',
        why="a template writes such a declaration into the prompt as it stands, or raises",
        families=("chat",),
        rank=30,
    )
)
def broken_declaration(case: Case) -> Problem | None:
    """A tool without a name, or a declaration of another form."""
    for index, tool in enumerate(getattr(case.row, "tools", ())):
        fault = _fault_of(tool)
        if fault:
            key, message = fault
            path = f"$.tools[{index}]{key}"
            return Problem(message=message, path=path, kind="tools")
    return None


def _fault_of(tool: Mapping[str, Any]) -> tuple[str, str] | None:
    """(key, what is wrong)"""
    inner, place = tool, ""
    if "function" in tool:
        inner, place = tool["function"], ".function"
        if not isinstance(inner, dict):
            return place, f"a tool's function is {shown(inner)}"
    if tool.get("type", "function") != "function":
        return ".type", f"a tool has the type {shown(tool['type'])}"
    name = inner.get("name")
    if not isinstance(name, str) or not name.strip():
        return f"{place}.name", "a tool has no name"
    parameters = inner.get("parameters", {})
    if parameters is not None and not isinstance(parameters, dict):
        return f"{place}.parameters", f"the parameters of the tool {shown(name)} are no JSON schema: {shown(parameters)}"
    return None


@entered(
    Check(
        "S04",
        "spec.type",
        Severity.ERROR,
        Need.ROW,
        "only a turn of role tool answers a call: remove the key, or mend the role",
        why="a reader takes the turn for the result of a call",
        rank=31,
    )
)
def answering_turn_of_another_role(case: Case) -> Problem | None:
    """A tool_call_id on a turn that is no tool's."""
    if case.sound or b'"tool_call_id"' not in case.raw:
        return None
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            if message.tool_call_id and message.role != "tool":
                return Problem(
                    message=f"{'an' if message.role == 'assistant' else 'a'} {message.role} turn has a tool_call_id",
                    path=f"{talk.places[index]}.tool_call_id",
                    kind="tool_call_id",
                )
    return None


def _calls(case: Case) -> Iterator[tuple[str, ToolCall]]:
    """(path, call) of every call in a row."""
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            for number, call in enumerate(message.tool_calls):
                yield f"{talk.places[index]}.tool_calls[{number}].function", call


@entered(
    Check(
        "T01",
        "tool.args_json",
        Severity.ERROR,
        Need.ROW,
        'write the arguments as the JSON text of one object, such as "{\\"city\\": \\"Oslo\\"}"',
        why="the model learns calls that no program can run",
        rank=32,
    )
)
def arguments_that_are_no_object(case: Case) -> Iterator[Problem] | None:
    """The arguments of a call are no JSON object, or were encoded twice."""
    return None if case.sound or b'"tool_calls"' not in case.raw else _bad_arguments(case)


def _bad_arguments(case: Case) -> Iterator[Problem]:
    for path, call in _calls(case):
        try:
            _arguments(call.arguments)
        except BAD_JSON:
            yield _told(case, f"{path}.arguments", call)


def _told(case: Case, path: str, call: ToolCall) -> Problem:
    text = shown(call.arguments)
    try:
        value = _anything(call.arguments)
    except BAD_JSON:
        return Problem(message=f"the arguments of a call of {shown(call.name)} are not JSON: {text}", path=path)
    if isinstance(value, str):
        try:
            twice = isinstance(_anything(value), dict | list)
        except BAD_JSON:
            twice = False
        if twice:
            message = f"the arguments of a call of {shown(call.name)} were encoded twice: {text}"
            return Problem(message=message, path=path, kind="twice", hint="encode them once", fix=f"lorad fix {{file}} -o {{out}} --schema {case.spec.id}")
    return Problem(message=f"the arguments of a call of {shown(call.name)} are no JSON object: {text}", path=path, kind="other")


_key_with_blank = re.compile(r'"\s+:').search


@entered(Check("J05", "json.duplicate_key", Severity.ERROR, Need.ROW, DUPLICATE_HINT, why=DUPLICATE_WHY, rank=32))
def duplicate_key_in_arguments(case: Case) -> Iterator[Problem] | None:
    """A key twice in the arguments of a call that are JSON as text."""
    return None if case.sound or b'"tool_calls"' not in case.raw else _duplicates(case)


def _duplicates(case: Case) -> Iterator[Problem]:
    for path, call in _calls(case):
        text = call.arguments
        try:
            value = _arguments(text)
        except BAD_JSON:
            continue  # T01
        # As many keys as the object has: then none stands twice. A colon behind a quote may also stand inside a text.
        if text.count('":') == _num_keys(value) and not _key_with_blank(text):
            continue
        try:
            _, marks = forgiving(text)
        except (RecursionError, ValueError):
            continue  # the strict parser has taken it all the same
        if marks.duplicates:
            yield Problem(message=f"the key {shown(marks.duplicates[0])} stands twice in the arguments of a call", path=f"{path}.arguments", kind="arguments")


def _num_keys(value: Any) -> int:
    """Keys of an object and of all objects inside."""
    num_keys, rest = 0, [value]
    while rest:
        inner = rest.pop()
        if type(inner) is dict:
            num_keys += len(inner)
            rest += inner.values()
        elif type(inner) is list:
            rest += inner
    return num_keys


@entered(
    Check(
        "T02",
        "tool.undeclared",
        Severity.ERROR,
        Need.ROW,
        "declare it in the row's tools, or mend the name",
        why="the model learns to call tools that it was not given",
        families=("chat",),
        rank=33,
    )
)
def call_of_no_tool(case: Case) -> Problem | None:
    """A call names a tool that the row does not declare."""
    if case.sound or b'"tool_calls"' not in case.raw or "tools" not in case.spec.keys:
        return None
    declared = {_name_of(tool) for tool in case.tools}
    for path, call in _calls(case):
        if call.name in declared:
            continue
        if not declared:
            hint = "add the list tools to the row, with a declaration of each tool that it calls"
            return Problem(message=f"a call of {shown(call.name)}, but the row declares no tools", path=f"{path}.name", kind="none", hint=hint)
        near = difflib.get_close_matches(call.name[:64], sorted(declared)[:_FIRST], n=1)
        hint = f"did you mean {shown(near[0])}?" if near else f"the row declares {', '.join(shown(name) for name in sorted(declared)[:5])}"
        return Problem(message=f"a call of {shown(call.name)}, which the row does not declare", path=f"{path}.name", hint=hint)
    return None


def _name_of(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else ""


# --- calls and their results


_FIRST = 256  # open calls that a result is compared with by name: a hostile row has thousands


@dataclass(slots=True)
class _Ledger:
    """The calls of a row that wait for their results, and what was seen so far."""

    by_id: dict[str, ToolCall] = field(default_factory=dict)
    without_id: list[ToolCall] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    any_call: bool = False
    confused: bool = False  # a result found no call since the last turn that was none: then an open call is no second fault

    @property
    def open(self) -> list[ToolCall]:
        return [*self.by_id.values(), *self.without_id]

    def enter(self, call: ToolCall) -> None:
        """One more call."""
        self.any_call = True
        if call.id:
            self.by_id[call.id] = call
        else:
            self.without_id.append(call)

    def forget(self) -> None:
        """The turns go on: what is open stays without its result."""
        self.by_id, self.without_id, self.confused = {}, [], False

    def take(self, result: Message) -> str:
        """Settle the call that this is the result of. What is wrong; empty: nothing."""
        id, name = result.tool_call_id, result.name
        if id and id in self.ids:
            self.by_id.pop(id, None)
            return ""
        # A result without an id is that of the next call without one; or it names its tool.
        place = next((place for place, call in enumerate(self.without_id[:_FIRST]) if call.name == name), 0)
        if self.without_id:
            del self.without_id[place]
            return ""
        named = "" if id or not name else next((call.id for call in islice(self.by_id.values(), _FIRST) if call.name == name), "")
        if named:
            del self.by_id[named]
            return ""
        self.confused = True
        if not self.any_call:
            return "no call comes before it"
        if id:
            return f"no call before it has the id {shown(id)}"
        return "it has no tool_call_id, though the calls before it have ids" if self.by_id else "every call before it has its result"


@entered(
    Check(
        "T03",
        "tool.orphan",
        Severity.ERROR,
        Need.ROW,
        "give the result the id of its call (tool_call_id), and put it behind the call",
        why="the model cannot see what the result is the result of",
        rank=34,
    )
)
def results_without_calls(case: Case) -> Iterator[Problem] | None:
    """A result whose call is not there, calls with one id, and calls that are never answered."""
    if case.sound or (b'"tool' not in case.raw and not any(message.role == "tool" for message in case.messages)):
        return None
    return _orphans(case)


def _orphans(case: Case) -> Iterator[Problem]:
    for talk in case.talks:
        yield from _orphans_of(talk)


def _orphans_of(talk: Talk) -> Iterator[Problem]:
    ledger = _Ledger()
    begun = False  # M03 tells of a first turn that is a tool's
    for index, message in enumerate(talk.messages):
        if message.role == "tool" and begun:
            if fault := ledger.take(message):
                path = f"{talk.places[index]}.tool_call_id" if message.tool_call_id else talk.places[index]
                yield Problem(message=f"a tool's result stands alone: {fault}", path=path, kind="result")
            continue
        waiting = [] if ledger.confused else ledger.open
        if waiting:
            names = ", ".join(shown(call.name) for call in waiting[:3])
            hint = "put the tool's result behind the call, as a turn of role tool"
            why = "the model learns to go on without the result"
            yield Problem(message=f"a call has no result: {names}", path=talk.role(index), kind="call", hint=hint, why=why, severity=Severity.WARNING)
        ledger.forget()
        begun = begun or message.role != "system"
        yield from _entered(message.tool_calls, ledger, f"{talk.places[index]}.tool_calls")


def _entered(calls: Sequence[ToolCall], ledger: _Ledger, path: str) -> Iterator[Problem]:
    """Note the calls of one turn. Two of one id cannot be told apart; one that was used in an earlier turn can."""
    here: set[str] = set()
    for number, call in enumerate(calls):
        if call.id and call.id in here:
            hint = "give each call an id of its own"
            yield Problem(message=f"two calls of one turn have the id {shown(call.id)}", path=f"{path}[{number}].id", kind="id", hint=hint)
        elif call.id and call.id in ledger.ids:
            hint = "give each call of a row an id of its own"
            message = f"a call has the id {shown(call.id)} of an earlier one"
            yield Problem(message=message, path=f"{path}[{number}].id", kind="id again", hint=hint, severity=Severity.WARNING)
        here.add(call.id)
        ledger.enter(call)
    ledger.ids |= here - {""}
