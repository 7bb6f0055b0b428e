"""The evaluation sets that the rows of a file are compared with, and what D04 says of rows that hold their items."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rendering.rows import row_key
from validation.case import Case
from validation.context import Batch, Context
from validation.findings import Problem, Severity, shown
from validation.folding import folded
from validation.itemindex import SHORT_GRAM, Hit, ItemIndex, Unit, merged, units_of
from validation.references import Reference, references_of
from validation.rowtexts import batch_words, templates
from validation.signatures import earlier_drops

if TYPE_CHECKING:
    from validation.survey import Survey

DROP = "lorad fix {{file}} -o {{out}} --schema {} --repair drop --ids D04"


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The sets that rows are compared with: files, then the gate splits of earlier drops."""

    references: tuple[Reference, ...]
    names: tuple[str, ...]  # by source of a unit
    index: ItemIndex
    num_items: tuple[int, ...]

    def is_own(self, unit: Unit) -> bool:
        """Whether the unit is of the adapter's own gate split."""
        return unit.source >= len(self.references)


def _evaluations(context: Context) -> Evaluations:
    def make() -> Evaluations:
        references, earlier = references_of(context), earlier_drops(context)
        parts = [units_of(references)]
        parts += [stored.gate.of_source(len(references) + place) for place, stored in enumerate(earlier.stored)]
        units = merged(parts)
        names = [reference.name for reference in references] + [f"the gate split of {earlier.name(place)}" for place in range(len(earlier.stored))]
        num_items = [len(reference.items) for reference in references] + [len({unit.line for unit in stored.gate.units}) for stored in earlier.stored]
        return Evaluations(references, tuple(names), ItemIndex(units, templates(context)), tuple(num_items))

    return context.once("evaluations", make)


def faults_of(survey: "Survey") -> Iterator[Problem]:
    """What is wrong with the references themselves, and what they came to."""
    evaluations, earlier = _evaluations(survey.context), earlier_drops(survey.context)
    survey.stats["contamination"] = {"items": dict(zip(evaluations.names, evaluations.num_items, strict=True)), "texts_compared": evaluations.index.size}
    if earlier.faults:
        survey.notes["D04 gate split"] = "; ".join(earlier.faults)
    for reference in evaluations.references:
        for fault in reference.faults[:1]:
            more = f" (and {reference.num_faults - 1} more faults)" if reference.num_faults > 1 else ""
            yield Problem(
                message=f"the reference file is not whole: {fault.what}{more}; {len(reference.items):,} items of it were compared",
                hint=fault.hint,
                why="an item that cannot be read cannot be looked for",
                kind=f"fault {reference.name}",
                severity=Severity.WARNING,
            )


def contaminated(batch: Batch) -> Iterator[tuple[int, Problem]]:
    """The rows of a batch that hold more than half of an item (error), or a good part of one (warning)."""
    context = batch.context
    evaluations = _evaluations(context)
    best: dict[tuple[int, int], Hit] = {}
    for hit in evaluations.index.hits(batch_words(batch)):
        key = (hit.row, hit.unit.source)
        if hit.coverage > context.limit("D04", "warn_coverage") and (key not in best or hit.coverage > best[key].coverage):
            best[key] = hit
    for (row, _), hit in sorted(best.items()):
        case = batch.cases[row]
        if not (evaluations.is_own(hit.unit) and _supersedes(case, context)):
            yield case.line, _holds(case, hit, evaluations, context)


def _supersedes(case: Case, context: Context) -> bool:
    """Whether the row's conversation is one that earlier drops know: then it takes their row's place, and its split."""
    known = context.once("known groups", earlier_drops(context).groups)
    key = row_key(context.spec, case.row, case.messages)
    return key.first in known or key.whole in known


def _holds(case: Case, hit: Hit, evaluations: Evaluations, context: Context) -> Problem:
    unit = hit.unit
    item = f"row {unit.line}" if evaluations.is_own(unit) else f"item {unit.item}"
    is_error = hit.coverage > context.limit("D04", "error_coverage") and _is_answered_alike(case, unit)
    what = "the whole" if hit.coverage > 0.99 else f"{hit.coverage:.0%}"
    part = {"question": "", "further": "a later turn of ", "answer": "the answer of "}[unit.kind]
    size = f"the same {unit.n} words" if unit.n < SHORT_GRAM else f"by sequences of {unit.n} words"
    return Problem(
        message=f"line {case.line} holds {what} of {part}{item} of {evaluations.names[unit.source]} ({size}): {shown(case.question or case.answer)}",
        hint="" if is_error else "look at these rows beside the items: a quotation is harmless, a copied question is not",
        kind=f"{unit.source} {'holds' if is_error else 'overlaps'}",
        severity=Severity.ERROR if is_error else Severity.WARNING,
        fix=DROP.format(context.spec.id) if is_error else "",
    )


def _is_answered_alike(case: Case, unit: Unit) -> bool:
    """Whether a short question has the item's answer too, where it names one: a few words may be asked by chance."""
    said = b" " + folded(case.answer) + b" "
    return not unit.answers or any(folded(answer) in said for answer in unit.answers)
