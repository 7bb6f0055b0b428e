"""P, C01, S05: answers that say nothing, and pairs that say the same twice."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from rendering.rowtypes import CorrectionRow, InstructionRow, PreferenceRow, UnpairedRow
from rendering.specs import Message
from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.findings import Problem, Severity, is_blank, shown
from validation.talks import Talk

_STOPS = "it would teach the model to stop at once"
_TURNS_OR_TEXT: tuple[tuple[type, tuple[str, ...]], ...] = (
    (PreferenceRow, ("prompt", "chosen", "rejected")),
    (UnpairedRow, ("prompt", "completion")),
    (CorrectionRow, ("prompt",)),
)
_OPENING = "[ \t\n\r"
_TURNS_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*["'](?:role|content)["']\s*:""")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_RUN_INSIDE = re.compile(r"(?<=[^\s])([ \t])\1+(?=[^\s])")  # no indentation, and nothing at the end of a line


@entered(Check("C01", "text.blank", Severity.ERROR, Need.ROW, "fill it, or remove the row", why=_STOPS, families=("completion", "pair"), rank=20))
def blank_text(case: Case) -> Problem | None:
    """A completion, output, instruction, correction, chosen or rejected answer that shows nothing."""
    row = case.row
    if case.sound:
        return None
    if isinstance(row, InstructionRow) and is_blank(row.instruction):
        return Problem(message=f"an instruction is empty: {shown(row.instruction)}", path="$.instruction", kind="instruction", why="nothing is asked")
    for talk in case.talks:
        index = _last_text(talk)
        if index < 0 or not is_blank(talk.messages[index].content):
            continue
        path = talk.places[index]
        name = path.removeprefix("$.") if path != "$" else "answer"
        message = f"{_NAMED.get(name, f'a text ({name})')} is empty: {shown(talk.messages[index].content)}"
        if name == "model_output":
            hint, why = "look whether the model's own answer was lost", "what was wrong cannot be seen"
            return Problem(message=message, path=path, kind=name, hint=hint, why=why, severity=Severity.WARNING)
        return Problem(message=message, path=path, kind=name)
    return None


_NAMED = {
    "completion": "a completion",
    "output": "an output",
    "correction": "a correction",
    "chosen": "a chosen answer",
    "rejected": "a rejected answer",
    "model_output": "a model_output",
    "answer": "an answer",
}


def _last_text(talk: Talk) -> int:
    """The last assistant turn that is a text of the row itself; -1 where none is. Turns with a role are M07's."""
    for index in range(len(talk.messages) - 1, -1, -1):
        if talk.messages[index].role == "assistant":
            return index if talk.is_text(index) else -1
    return -1


@entered(
    Check(
        "P01",
        "pref.equal",
        Severity.ERROR,
        Need.ROW,
        "a pair needs two different answers: remove the row",
        why="there is nothing to prefer: the loss stays at ln 2",
        families=("pair",),
        rank=21,
    )
)
def equal_answers(case: Case) -> Problem | None:
    """The chosen answer is the rejected one. Where only case, width or blanks differ, that may be what is to be preferred."""
    row = case.row
    if not isinstance(row, PreferenceRow):
        return None
    chosen, rejected = row.chosen, row.rejected
    if isinstance(chosen, str) and isinstance(rejected, str):
        answers = [(chosen, rejected)]
    else:
        one, other = (talk.messages for talk in case.talks)
        if len(one) != len(other) or not all(map(_is_same_but_for_text, one, other)):
            return None
        answers = [(mine.content, yours.content) for mine, yours in zip(one, other, strict=True)]
    if not all(_is_alike(*pair) for pair in answers) or is_blank(_text_of(chosen)):
        return None
    if all(_is_same(*pair) for pair in answers):
        return Problem(message=f"chosen and rejected are equal: {shown(_text_of(chosen))}", path="$.rejected")
    mine, yours = next(pair for pair in answers if not _is_same(*pair))
    message = f"chosen and rejected differ only in case, width or blanks: {shown(mine)}, {shown(yours)}"
    hint = "if that difference is what is to be learnt, all is well; else remove the row"
    why = "where it is an accident, there is nothing to prefer"
    return Problem(message=message, path="$.rejected", kind="alike", hint=hint, why=why, severity=Severity.WARNING)


def _is_same(one: str, other: str) -> bool:
    """Whether two texts are equal but for blanks around them, runs of one blank inside a line, and the form of Unicode."""
    return one == other or _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return _RUN_INSIDE.sub(r"\1", unicodedata.normalize("NFC", text).strip())


def _is_alike(one: str, other: str) -> bool:
    """Whether two texts are equal but for case, width, blanks and invisible characters."""
    if one == other:
        return True
    if one.isascii() and other.isascii():
        if one.lstrip()[:1].lower() != other.lstrip()[:1].lower():
            return False
        return one.lower().split() == other.lower().split()
    return _folded(one) == _folded(other)


def _folded(text: str) -> list[str]:
    # Not casefold(): "ss" and "ß" are two spellings, and which is right can be what is to be learnt.
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).lower().split()


def _is_same_but_for_text(one: Message, other: Message) -> bool:
    return one.role == other.role and one.tool_calls == other.tool_calls


def _text_of(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    last = answer[-1].content if answer else ""
    return last if isinstance(last, str) else "".join(part.text for part in last or ()) or "…"


@entered(
    Check(
        "P02",
        "pref.prompt",
        Severity.ERROR,
        Need.ROW,
        "both answers must follow the same turns: write these into prompt, and only what comes after them into chosen and rejected",
        why="the pair would compare the questions, not the answers",
        families=("completion", "pair"),
        rank=22,
    )
)
def other_prompt(case: Case) -> Problem | None:
    """Conversations that do not begin with the prompt, or not with the same turns."""
    if case.sound or not isinstance(case.row, PreferenceRow | UnpairedRow):
        return None
    keys = ("chosen", "rejected") if isinstance(case.row, PreferenceRow) else ("completion",)
    for key, talk in zip(keys, case.talks, strict=True):
        if talk.own_prompt:
            return Problem(message=f"the turns of {key!r} do not begin with those of the prompt", path=f"$.{key}", kind=key)
    if len(case.talks) < 2:
        return None
    one, other = (talk.messages for talk in case.talks)
    shared = _shared(one, other)
    rest_one, rest_other = one[shared:], other[shared:]
    asked = next((message for message in (*rest_one[:1], *rest_other[:1]) if message.role in ("user", "system")), None)
    if asked is None or not rest_one or not rest_other:
        return None
    return Problem(message=f"chosen and rejected differ in what is asked, from turn {shared + 1} on", path="$.rejected", kind="both")


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return shared


@entered(
    Check(
        "P03",
        "corr.noop",
        Severity.ERROR,
        Need.ROW,
        "a correction changes something: remove the row",
        why="what the model said would be learnt again as its own correction",
        specs=("correction_v1",),
        rank=23,
    )
)
def nothing_corrected(case: Case) -> Problem | None:
    """The correction is what the model had said."""
    row = case.row
    if not isinstance(row, CorrectionRow):
        return None
    before, after = row.model_output.strip(), row.correction.strip()
    if not after or (before != after and unicodedata.normalize("NFC", before) != unicodedata.normalize("NFC", after)):
        return None
    return Problem(message=f"the correction equals the model's output: {shown(after)}", path="$.correction")


@entered(
    Check(
        "S05",
        "spec.stringified",
        Severity.ERROR,
        Need.ROW,
        "it came out of a table: parse the text back into JSON",
        why="the row holds a picture of its turns, not the turns",
        families=("completion", "pair"),
        rank=24,
    )
)
def turns_as_text(case: Case) -> Problem | None:
    """A prompt or an answer that may be a list of turns, and is one as text."""
    from validation.checks.shape import text_that_holds

    keys = next((keys for row, keys in _TURNS_OR_TEXT if isinstance(case.row, row)), ())
    for key in keys:
        value = getattr(case.row, key)
        if isinstance(value, str) and value[:1] in _OPENING and _TURNS_AS_TEXT.match(value) and (language := text_that_holds(value)):
            fix = f"lorad fix {{file}} -o {{out}} --schema {case.spec.id}"
            return Problem(message=f"{key!r} is a text that holds turns as {'JSON' if language == 'json' else 'Python'}", path=f"$.{key}", kind=key, fix=fix)
    return None
