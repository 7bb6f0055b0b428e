"""X02: text that the tokenizer reads as a token of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.checks.tokens import needs_base
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown

_MARKUP = re.compile(r"<\|[^|\s]+\|>")
_LEAST = 3  # letters of a token; shorter ones are pieces of words and signs


@dataclass(frozen=True, slots=True)
class _Added:
    """The tokenizer's added tokens that can stand in a text by mistake, and the bytes of which a line of JSON with one holds at least one."""

    find: "re.Pattern[str]"
    hints: tuple[bytes, ...]
    ids: dict[str, int]


def _added(context: Context, case: Case) -> _Added:
    renderer = context.renderer
    assert renderer is not None, "needs_base has answered"
    ids = {}
    for id, token in renderer.tokenizer.get_added_tokens_decoder().items():
        text = token.content
        # A token that is not special is meant to be written by a model (<think>, <tool_call>), unless it looks like a border.
        if len(text.strip()) >= _LEAST and (token.special or _MARKUP.fullmatch(text)) and case.control.first_in(text) is None:
            ids[text] = id
    found = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))) or r"(?!)")
    escapes = (b"\\u",) if any(not text.isascii() for text in ids) else (b"\\u003", b"\\u005", b"\\u007")
    return _Added(found, (*{text[0].encode() for text in ids}, *escapes), ids)


@entered(
    Check(
        *("X02", "token.added", Severity.WARNING, Need.BATCH, "write it another way (`< filename >`, FILENAME), or take it out"),
        why="the tokenizer reads it as one token with a meaning of its own, not as the letters that stand there",
        level=Level.STANDARD,
        ready=needs_base,
    )
)
def added_token(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """An added token of the tokenizer that stands in a text; those that border turns are X01's."""
    added = batch.context.once("added tokens", partial(_added, batch.context, batch.cases[0]))
    hints = [hint for hint in added.hints if (batch.has_escapes or hint[:1] != b"\\") and hint in batch.raw]
    for case in _suspects(batch, added) if hints else ():
        raw = case.raw
        for hint in hints:
            if hint in raw:
                yield from ((case.line, problem) for problem in _tokens_in(case, added))
                break


def _suspects(batch: Batch, added: _Added) -> Sequence[Case]:
    """The rows that may hold a token: of plain rows those with a text that does."""
    if not batch.plain:
        return batch.cases
    firsts = {text[0] for text in added.ids}
    texts = batch.plain.texts
    return batch.holding([place for first in firsts for place, text in enumerate(texts) if first in text and added.find.search(text)])


def _tokens_in(case: Case, added: _Added) -> Iterator[Problem]:
    seen = set()
    for path, text in _read_texts(case):
        for found in added.find.finditer(text):
            token = found[0]
            if token not in seen:
                seen.add(token)
                message = f"{shown(token)} stands in a text; the tokenizer has it as its token {added.ids[token]}"
                yield Problem(message=message, path=path, kind=token)


def _read_texts(case: Case) -> Iterator[tuple[str, str]]:
    """(path, text) of what a model reads of a row; declarations of tools are left out."""
    for index, message in enumerate(case.messages):
        yield case.path(index), message.content
        for place, call in enumerate(message.tool_calls):
            yield f"$.messages[{index}].tool_calls[{place}].function.arguments", call.arguments
    if case.spec.objective == "dpo" and case.rejected:
        yield "$.rejected", case.rejected[-1].content
