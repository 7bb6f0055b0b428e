"""How each row is learnt: as an answer to imitate, as a pair, or as an answer that was judged. No tensors.

A job may hold rows of several kinds, since it trains on the whole history of its adapter. Each row is learnt in the way of
its schema; `objective` chooses among the ways that a kind of row has:

    rows                                   auto   sft                      dpo    orpo   kto
    conversations, completions, …          sft    sft                      sft    sft    sft
    pairs (preference_v1)                  dpo    sft, the better answer   dpo    orpo   dpo
    judged answers (unpaired_v1)           kto    sft, the good answers    kto    kto    kto
    corrections (correction_v1)            sft    sft                      sft    sft    sft
    corrections, corrections=preference    as pairs

An objective that no row of the job can be learnt by is refused.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from rendering.rows import Row
from rendering.specs import Message, Objective
from rendering.tokens import Renderer
from trainer.examples import Examples, encode_row
from trainer.scores import shift_rows

PAIRED = frozenset({"dpo", "orpo"})
JUDGED = "kto"


def learnt_as(rows: Sequence[Row], config: Config) -> list[Row]:
    """The rows with the objective that each is learnt by, in order; answers marked bad are left out where only good ones are imitated.

    `rejected` is None where a row is not learnt as a pair. What comes before a compared or judged answer is context.
    Raises ChildError BAD_DATA where no row can be learnt by the objective that the config names.
    """
    found = [_learnt_as(row, config) for row in rows]
    wanted = config.objective
    if rows and wanted in (*PAIRED, JUDGED) and all(row.objective != wanted for row in found):
        kinds = ", ".join(sorted({row.schema_id for row in rows}))
        drops = ", ".join(sorted({row.drop for row in rows})[:3])
        raise ChildError(
            f"objective {wanted!r} fits no row of this job: its drops ({drops}) hold rows of {kinds}",
            hint='leave objective at "auto", or drop rows of ' + ("unpaired_v1" if wanted == JUDGED else "preference_v1"),
            code="OBJECTIVE_UNFIT",
            exit_code=ChildExit.BAD_DATA,
        )
    return [row for row in found if not (row.objective == "sft" and row.label is False)]


def _learnt_as(row: Row, config: Config) -> Row:
    wanted = config.objective
    objective: Objective = row.objective
    if row.schema_id == "correction_v1" and config.training.corrections == "preference":
        objective = "dpo"
    if objective == "dpo" and wanted in ("sft", "orpo"):
        objective = wanted
    elif objective == "kto" and wanted == "sft":
        objective = "sft"
    if objective in PAIRED:
        assert row.rejected is not None, f"{row.schema_id} has no worse answer"
        shared = _shared(row.messages, row.rejected)
        return replace(row, objective=objective, messages=_context(row.messages, shared), rejected=_context(row.rejected, shared))
    if row.rejected is not None and row.schema_id != "correction_v1":
        return replace(row, objective=objective, messages=_context(row.messages, _shared(row.messages, row.rejected)), rejected=None)
    if row.label is not None:
        return replace(row, objective=objective, messages=_context(row.messages, len(row.messages) - 1), rejected=None)
    return replace(row, objective=objective, rejected=None) if row.rejected is not None else row


def _shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many turns both begin with: their prompt. Never all of one, so that something is left to compare."""
    most = min(len(one), len(other)) - 1
    return next((place for place in range(most) if one[place] != other[place]), most)


def _context(messages: Sequence[Message], count: int) -> list[Message]:
    """The conversation with its first `count` turns as context only."""
    before = [msgspec.structs.replace(message, weight=0) if message.role == "assistant" else message for message in messages[:count]]
    return [*before, *messages[count:]]


def with_seconds(found: Examples, renderer: Renderer, max_length: int) -> Examples:
    """The same examples; each judged one gets its answer under another row's prompt beside it, from which kto measures its drift.

    The other row is the next one of another conversation. Without one, or where it would be over `max_length`, there is none.
    """
    judged = [] if found.is_streamed else [index for index, example in enumerate(found.kept) if example.row.objective == JUDGED]
    if not judged:
        return found
    kept = list(found.kept)
    for place, row in shift_rows([kept[index].row for index in judged]):
        index = judged[place]
        try:
            moved = encode_row(renderer, row)
        except ChildError:
            continue  # a template that cannot say this answer after that prompt
        if len(moved.ids) <= max_length and moved.learnt:
            kept[index] = replace(kept[index], second=moved)
    found.kept = kept
    return found


def require_learnable(found: Examples) -> None:
    """Raises ChildError BAD_DATA for judged answers of which all are good, or all are bad: nothing tells the two apart."""
    labels = [] if found.is_streamed else [example.row.label for example in found.kept if example.row.objective == JUDGED]
    if len(set(labels)) == 1:
        word, way = ("good", "rows of completion_v1 teach good answers alone") if labels[0] else ("bad", "say what it should answer instead")
        raise ChildError(
            f"all {len(labels)} judged answers to train on are {word} ones; kto learns from the difference between good and bad",
            hint=f"drop some with the other label too; {way}",
            code="ONE_LABEL",
            exit_code=ChildExit.BAD_DATA,
        )


__all__ = ["JUDGED", "PAIRED", "learnt_as", "require_learnable", "with_seconds"]
