"""N05 to N09: what the base's chat template makes of a row, and rows that were rendered before they came here."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.checks.tokens import needs_base
from validation.context import Batch, Context, Sheet
from validation.fidelity import fidelity
from validation.findings import Level, Problem, Severity, shown


def needs_template(context: Context) -> str:
    """Why checks of the base's own template cannot run."""
    from rendering.folders import template_is_generic

    if missing := needs_base(context):
        return missing
    renderer = context.renderer
    if renderer is not None and template_is_generic(renderer):
        return "the base has no chat template of its own; `lorad models template` prints a generic one to put into its folder"
    return ""


_template_check = partial(Check, need=Need.SAMPLE, level=Level.STANDARD, ready=needs_template)


def _told(case: Case, context: Context, id: str) -> list[Problem]:
    return [problem for check, problem in fidelity(context).of(case) if check == id]


@entered(
    _template_check(
        id="N05",
        name="tmpl.render",
        severity=Severity.ERROR,
        hint="change the roles or their order, or use another base",
        why="a row that the template refuses stops the training",
    )
)
def refused_by_the_template(case: Case, context: Context) -> list[Problem]:
    """The template raises, in its own words."""
    return _told(case, context, "N05")


@entered(
    _template_check(
        id="N06",
        name="tmpl.lossy",
        severity=Severity.ERROR,
        hint="use another base, or write the row so that its template shows it all",
        why="what the template leaves out is never read and never learnt, and nothing says so",
    )
)
def lost_in_the_template(case: Case, context: Context) -> list[Problem]:
    """The rendered text lacks a part of the row. Blanks, and tools written as text, are told as info."""
    return _told(case, context, "N06")


@entered(
    _template_check(
        id="N07",
        name="tmpl.mask",
        severity=Severity.ERROR,
        hint="use a base whose template only appends turns, or end the row at that turn",
        why="the labels would cover nothing, the prompt too, or another text than the model is asked with",
    )
)
def wrong_mask(case: Case, context: Context) -> list[Problem]:
    """The labels are none or all of the tokens, or a conversation does not begin as its shorter self."""
    return _told(case, context, "N07")


@entered(
    _template_check(
        id="N08",
        name="tmpl.eos",
        severity=Severity.ERROR,
        hint="the base's eos_token must be the token that its chat template ends a turn with",
        why="a model that never learns the end token never stops",
    )
)
def end_not_learnt(case: Case, context: Context) -> list[Problem]:
    """The token that ends an answer is not among the labels."""
    return _told(case, context, "N08")


# --- N09

_FRAME = re.compile(
    r"\s*(?:### ?(?:Instruction|Response|Input|Human|Assistant|User)(?::|[ \t]*(?:\n|$))|\[INST\]|<<SYS>>|Below is an instruction that describes a task)"
)
_SPEAKER = re.compile(r"\s*(?:\*\*)?(?:User|USER|Human|HUMAN|Assistant|ASSISTANT)(?:\*\*)?:")
_LATER_SPEAKER = re.compile(r"\n[ \t]*(?:\*\*)?(?:User|USER|Human|HUMAN|Assistant|ASSISTANT)(?:\*\*)?:")
_ENDS_OPEN = re.compile(r"\n[ \t]*(?:\*\*)?(?:Assistant|ASSISTANT)(?:\*\*)?:\s*$")
_FIELD = re.compile(r"[^\n]*\n[ \t]*(?!User|USER|Human|HUMAN|Assistant|ASSISTANT)\w[\w ]{0,24}:")  # the next line is a field too: a record


_BLANKS = " \t\r\n"
_FIRST = frozenset("#[<BUHA*") | frozenset(_BLANKS)
_BEGINNINGS = ("###", "[INST]", "<<SYS>>", "Below is an ", "**", "User", "USER", "Human", "HUMAN", "Assistant", "ASSISTANT", *_BLANKS)


def _residue(text: str) -> str:
    """The mark of another template that the text begins with. A transcript and a record are no such thing."""
    found = _FRAME.match(text)
    if not found:
        found = _SPEAKER.match(text)
        if found and not _ENDS_OPEN.search(text) and (_LATER_SPEAKER.search(text, found.end()) or _FIELD.match(text, found.end())):
            return ""
    return found[0].strip() if found else ""


def _suspects(batch: Batch) -> Sequence[Case]:
    """The rows that may have such a text: of plain rows those that do."""
    if not batch.plain:
        return batch.cases
    texts = enumerate(batch.plain.texts)
    return batch.holding([place for place, text in texts if text[0] in _FIRST and text.startswith(_BEGINNINGS) and _residue(text)])


@entered(
    Check(
        *("N09", "tmpl.residue", Severity.WARNING, Need.BATCH, "take the marks out: the base's own template writes the borders of turns"),
        why="the row was rendered before: the model would learn two templates at once, and answer with the marks of the other",
        level=Level.STANDARD,
        limits={"warn_share": 0.01},
    )
)
def template_residue(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """A turn begins with the mark of another template."""
    for case in _suspects(batch):
        texts = case.plain if case.plain is not None else [message.content for message in case.messages]
        for index, text in enumerate(texts):
            if text[:1] in _FIRST and (mark := _residue(text)):
                role = case.messages[index].role
                yield (
                    case.line,
                    Problem(
                        message=f"{'an' if role == 'assistant' else 'a'} {role} turn begins with {shown(mark)}",
                        path=case.path(index),
                        kind=mark,
                    ),
                )
                break
