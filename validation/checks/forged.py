"""X01: control tokens inside texts. Everything that is rendered is looked at; metadata never is."""

from collections.abc import Iterator
from typing import Any

from validation.case import Case, strings
from validation.checks.registry import Check, Need, entered
from validation.findings import Problem, Severity, shown


@entered(
    Check(
        "X01",
        "token.control",
        Severity.ERROR,
        Need.ROW,
        "strip it, or take the row's turns apart; a text about such tokens must write them in another way",
        why="the model reads it as the border of a turn, not as text",
        rank=18,
    )
)
def control_token(case: Case) -> Problem | None:
    """A turn or end token inside a text: of the common families, or of the job's own tokenizer."""
    if not case.control.may_stand_in(case.raw):
        return None
    first_in = case.control.first_in
    for path, text in _rendered(case):
        token = first_in(text)
        if token:
            fix = f"lorad fix {{file}} -o {{out}} --schema {case.spec.id} --repair drop --ids X01"
            return Problem(message=f"the control token {shown(token)} stands in a text", path=path, kind=token, fix=fix)
    return None


def _rendered(case: Case) -> Iterator[tuple[str, str]]:
    """(path, text) of everything that a template may write."""
    instruction: Any = getattr(case.row, "instruction", None)
    if isinstance(instruction, str) and case.spec.id == "instruction_v1":
        for key in ("instruction", "input", "output"):
            yield f"$.{key}", str(getattr(case.row, key))
        return
    for talk in case.talks:
        for index, message in enumerate(talk.messages):
            yield talk.content(index), message.content
            place = talk.places[index]
            if message.name:
                yield f"{place}.name", message.name
            for number, call in enumerate(message.tool_calls):
                yield f"{place}.tool_calls[{number}].function.name", call.name
                yield f"{place}.tool_calls[{number}].function.arguments", call.arguments
    if case.tools:
        yield from strings(list(case.tools), "$.tools")
