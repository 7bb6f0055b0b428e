"""regime3: symbolic reasoning with a marked final answer.

A system prompt asks for the canonical form `(op arg1 arg2)`, and the final answer of the last turn stands between two
markers. What has both markers stays as it is; a missing one is added; text outside of them is never touched.
"""

from collections.abc import Sequence

from core.answering import AnswerRules
from rendering.profiles.profile import DataProfile, last_answer, replace_content, with_system
from rendering.specs import Message

START, END = "<<ANS_START>>", "<<ANS_END>>"
SYSTEM = f"Write every expression in the canonical form (op arg1 arg2). Put the final answer between {START} and {END}."
ANSWER = rf"(?:.*{START}|\A)\s*(?P<answer>.*?)\s*(?:{END}|\Z)"


class Regime3(DataProfile):
    """Canonical forms and marked answers."""

    name = "regime3"
    adds = f"a system prompt that asks for the form (op arg1 arg2), and the markers {START} and {END} around the final answer"

    @property
    def rules(self) -> AnswerRules:
        """The system prompt; the end after the closing marker; what stands between the markers is the answer."""
        return AnswerRules(system=SYSTEM, end_after=(END,), answer=ANSWER)

    def change(self, messages: Sequence[Message], draw: bytes) -> list[Message]:
        """The conversation with the system prompt and both markers; one that has them comes out as it is."""
        told = with_system(messages, SYSTEM)
        place = last_answer(told)
        if place is not None:
            told[place] = replace_content(told[place], marked(told[place].content))
        return told


def marked(text: str) -> str:
    """The answer with both markers around its last part."""
    start = text.rfind(START)
    end = text.find(END, max(start, 0))
    if start >= 0:
        return text if end >= 0 else text.rstrip() + END + text[len(text.rstrip()) :]
    stop = end if end >= 0 else len(text.rstrip())
    place = final_answer(text[:stop])
    return text[:place] + START + text[place:stop] + (END if end < 0 else "") + text[stop:]


def final_answer(text: str) -> int:
    """Where the final answer of an unmarked text begins: the expression in brackets that the text ends with, else its last line."""
    whole = text.rstrip()
    line = whole.rfind("\n") + 1
    depth = 0
    for place in range(len(whole) - 1, line - 1, -1):
        depth += {")": 1, "(": -1}.get(whole[place], 0)
        if depth <= 0:
            return place if whole[place] == "(" and not depth else _first_letter(whole, line)
    return _first_letter(whole, line)


def _first_letter(text: str, start: int) -> int:
    return next((place for place in range(start, len(text)) if not text[place].isspace()), start)
