"""Whether a row survives its rendering: no text lost on the way through the chat template, the labels where they belong.

A template mostly writes fixed pieces around the contents. Those pieces are learnt once for each shape of conversation
(its roles, weights, and which contents are empty), by rendering it with marks for contents. A row whose text is exactly
pieces and contents is whole, and its labels lie as in the first row whose turns follow each other in the same ways, which
was encoded as the trainer does it. Only a row that differs is looked at closer. So most rows cost one rendering.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.errors import LoradError
from rendering.specs import Message, Tools
from rendering.tooltext import arguments_of, uses_tools
from validation.case import Case
from validation.context import Context
from validation.findings import Problem, Severity, shown

if TYPE_CHECKING:
    from rendering.tokens import Renderer

ENCODED = 100  # first rows of a process that are encoded whatever their shape
MOST_ENCODED = 1_000  # rows of a process
MOST_LETTERS = 8_000_000  # of all texts that are encoded; a few seconds
MOST_SHAPES = 10_000
THOUGHT = "</think>"

Told = tuple[str, Problem]
"""(check id, problem)"""
Shape = tuple[object, ...]
Steps = frozenset[tuple[object, object]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What the template writes around the contents of one shape.

    `pieces`: one more than there are contents; empty where the template shows them twice or in another order. `dropped`:
    places of the messages whose content it never shows.
    """

    pieces: tuple[str, ...] = ()
    dropped: frozenset[int] = frozenset()

    def around(self, contents: Sequence[str]) -> str:
        """The text of a conversation with these contents."""
        woven = [part for pair in zip(self.pieces, contents, strict=False) for part in pair]
        return "".join([*woven, self.pieces[-1]])


class Fidelity:
    """Looks at rows one by one; keeps what it has learnt of the template."""

    def __init__(self, renderer: "Renderer") -> None:
        self._renderer = renderer
        self._frames: dict[Shape, Frame] = {}
        self._verdicts: dict[Steps, Told | None] = {}
        self._told: dict[int, list[Told]] = {}
        self._num_rows = 0
        self._num_encoded = 0
        self._letters_left = MOST_LETTERS

    def of(self, case: Case) -> list[Told]:
        """What is wrong with the row's rendering. Worked out once for each row of a batch."""
        told = self._told.get(case.line)
        if told is None:
            if len(self._told) > 8192:  # some batches
                self._told.clear()
            told = self._told[case.line] = self._look(case)
        return told

    def _look(self, case: Case) -> list[Told]:
        self._num_rows += 1
        messages, tools = case.messages, case.tools
        try:
            text = self._renderer.render(messages, tools=tools)
        except LoradError as error:
            return [_refused(error)]
        shape = tuple((m.role, m.weight > 0, bool(m.content), bool(m.name), len(m.tool_calls)) for m in messages)
        with_tools = uses_tools(messages, tools)
        frame = self._frame(shape, messages, tools, with_tools)
        contents = [message.content for message in messages if message.content]
        told: list[Told] = []
        whole = bool(frame.pieces) and frame.around(contents) == text
        if not whole:
            bare = [content.strip() for content in contents]
            trimmed = bool(frame.pieces) and bare != contents and frame.around(bare) == text
            whole = trimmed
            told += [_trimmed(case)] if trimmed else _losses(case, text, frame)
        if with_tools:
            told += _tool_losses(case, text, self._renderer.template.tools_as_text)
        verdict = self._verdict(_steps(shape) if whole else None, messages, tools, len(text))
        return [*told, verdict] if verdict else told

    def _frame(self, shape: Shape, messages: Sequence[Message], tools: Tools, with_tools: bool) -> Frame:
        if with_tools:  # the pieces hold its declarations and calls
            return self._pieces(messages, tools)
        found = self._frames.get(shape)
        if found is None:
            found = self._pieces(messages, tools)
            if len(self._frames) < MOST_SHAPES:
                self._frames[shape] = found
        return found

    def _pieces(self, messages: Sequence[Message], tools: Tools) -> Frame:
        marks = {index: f"xQz{index}zQx" for index, message in enumerate(messages) if message.content}
        marked = [replace_content(message, marks[index]) if index in marks else message for index, message in enumerate(messages)]
        try:
            text = self._renderer.render(marked, tools=tools)
        except LoradError:  # a template that reads the contents
            return Frame()
        dropped = frozenset(index for index, mark in marks.items() if mark not in text)
        pieces, rest = [], text
        for mark in marks.values():
            before, found, rest = rest.partition(mark)
            if not found or mark in rest:
                return Frame(dropped=dropped)
            pieces.append(before)
        return Frame((*pieces, rest), dropped)

    def _verdict(self, steps: Steps | None, messages: Sequence[Message], tools: Tools, num_letters: int) -> Told | None:
        """What is wrong with the labels. Rows that are whole and take the same steps share their verdict; others pass None."""
        if steps is not None and steps in self._verdicts and self._num_rows > ENCODED:
            return self._verdicts[steps]
        if self._num_encoded >= MOST_ENCODED or num_letters > self._letters_left:
            return None if steps is None else self._verdicts.get(steps)
        self._num_encoded += 1
        self._letters_left -= num_letters
        verdict = self._labels(messages, tools)
        if steps is not None and len(self._verdicts) < MOST_SHAPES:
            self._verdicts.setdefault(steps, verdict)
        return verdict

    def _labels(self, messages: Sequence[Message], tools: Tools) -> Told | None:
        try:
            encoding = self._renderer.encode(messages, tools=tools)
        except LoradError as error:
            if error.code == "TEMPLATE_NOT_PREFIX":
                return "N07", Problem(message=error.what, hint=error.hint, kind="prefix")
            if error.code == "TEMPLATE_NO_EOS":
                return "N08", Problem(message=error.what, hint=error.hint)
            return _refused(error)
        wanted = any(message.role == "assistant" and message.weight for message in messages)
        # The first token of all has no context to be predicted from.
        if wanted and not any(encoding.supervised[1:]):
            return "N07", Problem(message="no token of the row would be learnt: the template writes nothing of the answers", kind="none")
        if wanted and all(encoding.supervised):
            return "N07", Problem(message="every token of the row would be learnt, the prompt too: the template writes nothing else", kind="all")
        return None


def _steps(shape: Shape) -> Steps:
    """Which turn follows which, the first and the last included: a template looks no further to write what stands between them."""
    return frozenset(zip((None, *shape), (*shape, None), strict=True))


def replace_content(message: Message, content: str) -> Message:
    """The same message with another content."""
    return Message(message.role, content, message.name, message.weight, message.tool_calls, message.tool_call_id)


def _refused(error: LoradError) -> Told:
    own_words = error.what.partition(": ")[2] or error.what
    return "N05", Problem(message=f"the chat template refuses the row: {shown(own_words)}", kind=own_words[:200], hint=error.hint)


def _trimmed(case: Case) -> Told:
    index = next(index for index, message in enumerate(case.messages) if message.content != message.content.strip())
    message = "the template trims blanks at the ends of turns"
    hint = "nothing to do; blanks that are meant cannot be taught with this template"
    return "N06", Problem(message=message, path=case.path(index), kind="trimmed", hint=hint, severity=Severity.INFO)


def _losses(case: Case, text: str, frame: Frame) -> list[Told]:
    """The contents that do not stand in the text."""
    told: list[Told] = []
    seen = set()
    for index, message in enumerate(case.messages):
        problem = _loss(message, text, index in frame.dropped) if message.content else None
        if problem and problem.kind not in seen:
            seen.add(problem.kind)
            told.append(("N06", replace(problem, path=case.path(index))))
    return told


def _loss(message: Message, text: str, dropped: bool) -> Problem | None:
    content = message.content
    if not dropped:
        if content in text:
            return None
        if not content.strip() or content.strip() in text:
            return Problem(message="the template trims blanks at the ends of turns", kind="trimmed", severity=Severity.INFO, hint="nothing to do")
        answer = content.rpartition(THOUGHT)[2].strip()
        if THOUGHT in content and answer and answer in text:
            return Problem(
                message=f"the template strips the reasoning before {THOUGHT}: {shown(content)}",
                kind="reasoning",
                severity=Severity.WARNING,
                hint="end the row at the turn whose reasoning is to be learnt, or take the reasoning out of earlier turns",
            )
        if _in_quotes(content, text) or _letters(content) in _letters(text):
            return None  # written as JSON, or with other blanks
    what = "drops" if dropped else "changes"
    hint = "use another base, or put the text at the start of the first user turn" if message.role == "system" else "use another base, or change the roles"
    return Problem(message=f"the template {what} what the {message.role} turn says: {shown(content)}", kind=message.role, severity=Severity.ERROR, hint=hint)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


# --- tools


def _tool_losses(case: Case, text: str, as_text: bool) -> list[Told]:
    told: list[Told] = []
    for index, message in enumerate(case.messages):
        for place, call in enumerate(message.tool_calls):
            try:
                problem = _call_loss(call.name, call.arguments, arguments_of(call), text)
            except RecursionError:  # arguments nested so deep that they are read, and not written again
                continue
            if problem:
                told.append(("N06", replace(problem, path=f"$.messages[{index}].tool_calls[{place}].function")))
    missing = [name for tool in case.tools if (name := _name(tool)) and name not in text]
    if missing:
        what, hint = f"the template does not show the declared tool {shown(missing[0])}", "use another base, or declare it in a turn"
        told.append(("N06", Problem(message=what, path="$.tools", kind="tools", severity=Severity.WARNING, hint=hint)))
    if as_text:
        what = "the template has no place for tools: declarations, calls and results are written as text"
        hint = "nothing to do; serving writes them the same way, or take a base whose template knows tools"
        told.append(("N06", Problem(message=what, path="$.tools", kind="as text", severity=Severity.INFO, hint=hint)))
    return told


def _name(tool: object) -> str:
    """The name that a declaration gives its tool; empty where it gives none."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _call_loss(name: str, written: str, arguments: object, text: str) -> Problem | None:
    if name not in text:
        message, hint = f"the template drops the call of {shown(name)}", "use another base, or write calls as text"
        return Problem(message=message, kind="calls", severity=Severity.ERROR, hint=hint)
    forms = [written, *(json.dumps(arguments, ensure_ascii=ascii, separators=signs) for ascii in (False, True) for signs in (None, (",", ":")))]
    if not isinstance(arguments, dict) or any(form in text for form in forms):
        return None  # T01 speaks of arguments that are no object
    if any(_in_quotes(form, text) for form in forms):
        message = f"the template writes the arguments of {shown(name)} as JSON inside a JSON text"
        hint = "use another template: this one teaches to quote arguments twice"
        return Problem(message=message, kind="quoted", severity=Severity.WARNING, hint=hint)
    lost = next((leaf for leaf in _leaves(arguments) if leaf not in text and not _in_quotes(leaf, text)), None)
    if lost is None:
        return None
    message, hint = f"the template loses an argument of {shown(name)}: {shown(lost)}", "use another base, or write calls as text"
    return Problem(message=message, kind="arguments", severity=Severity.ERROR, hint=hint)


def _in_quotes(part: str, text: str) -> bool:
    """Whether the text has this part written as a JSON string."""
    return any(json.dumps(part, ensure_ascii=ascii)[1:-1] in text for ascii in (False, True))


def _leaves(value: object) -> list[str]:
    """The texts of a JSON value: keys and strings. Numbers and constants have more than one way to be written."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in (str(key), *_leaves(inner))]
    return [leaf for inner in value for leaf in _leaves(inner)] if isinstance(value, list) else []


def fidelity(context: Context) -> Fidelity:
    """The one of this process."""

    def make() -> Fidelity:
        renderer = context.renderer
        assert renderer is not None, "needs_base has answered"
        return Fidelity(renderer)

    return context.once("fidelity", make)
