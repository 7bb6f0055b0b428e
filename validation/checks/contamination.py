"""Rows that hold what they will be judged by: items of evaluation sets, of the adapter's own gate split, of a training file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import LoradError
from rendering.rows import row_key
from validation.case import Case
from validation.checks.duplicates import MOST_FIX_LINES, no_rensa
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.folding import folded
from validation.itemindex import SHORT_GRAM, Hit, ItemIndex, Unit, merged, units_of
from validation.references import Reference, references_of
from validation.rowtexts import batch_words, templates
from validation.signatures import earlier_drops
from validation.signed import sign_batch
from validation.trainfile import overlap

if TYPE_CHECKING:
    from validation.survey import Survey

DROP = "lorad fix {{file}} -o {{out}} --schema {} --repair drop --ids {}"
SHOWN_PAIRS = 3


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


def _nothing_to_compare(context: Context) -> str:
    return "" if context.around.references or context.around.known else "no evaluation set is named: pass --reference FILE"


def _faults(survey: "Survey") -> Iterator[Problem]:
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


@entered(
    Check(
        "D04",
        "cont.ngram",
        Severity.ERROR,
        Need.BATCH,
        "leave these rows out: they belong to the evaluation",
        why="a model that has seen the questions is graded on its memory, and every score on that set is worthless",
        level=Level.DEEP,
        limits={"error_coverage": 0.5, "warn_coverage": 1 / 3},
        ready=_nothing_to_compare,
        conclude=_faults,
    )
)
def contaminated(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """A row that holds more than half of an item (error), or a good part of one (warning)."""
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
        fix=DROP.format(context.spec.id, "D04") if is_error else "",
    )


def _is_answered_alike(case: Case, unit: Unit) -> bool:
    """Whether a short question has the item's answer too, where it names one: a few words may be asked by chance."""
    said = b" " + folded(case.answer) + b" "
    return not unit.answers or any(folded(answer) in said for answer in unit.answers)


# --- D06


def _no_train_file(context: Context) -> str:
    return no_rensa(context) if context.around.train else "no training file is named: pass --train FILE"


def _overlap(survey: "Survey") -> Iterator[Problem]:
    path = Path(survey.context.around.train)
    try:
        found = overlap(survey, path, survey.context.limit("D06", "jaccard"))
    except (OSError, LoradError) as error:
        what = error.what if isinstance(error, LoradError) else f"{path} cannot be read: {error.strerror or error}"
        survey.notes["D06"] = what
        yield Problem(message=f"the training file was not compared: {what}", hint="name a file that is there and may be read", severity=Severity.WARNING)
        return
    survey.stats["split_overlap"] = {"exact": len(found.exact), "question": len(found.asked), "near": len(found.near), "train_rows": found.num_rows}
    if found.unreadable:
        survey.notes["D06"] = f"{found.unreadable:,} of {found.num_rows:,} rows of {path.name} could not be read, and were not compared"
    for kind, lines, told in (
        ("exact", found.exact, "stand in"),
        ("question", found.asked, "ask what is also asked, with another answer, in"),
        ("near", found.near, "say nearly the same as rows of"),
    ):
        if lines:
            pairs = ", ".join(f"line {line} and its line {lines[line]}" for line in sorted(lines)[:SHOWN_PAIRS])
            yield Problem(
                message=f"{len(lines):,} of {survey.sheet.num_rows:,} rows {told} {path.name}: {pairs}",
                kind=kind,
                lines=tuple(sorted(lines)),
                count=len(lines),
                fix=f"lorad fix {{file}} -o {{out}} --schema {survey.plan.spec.id} --repair drop --lines {','.join(map(str, sorted(lines)))}"
                if len(lines) <= MOST_FIX_LINES
                else DROP.format(survey.plan.spec.id, "D06"),
            )


@entered(
    Check(
        "D06",
        "split.overlap",
        Severity.ERROR,
        Need.BATCH,
        "leave these rows out of one of the two files; split by conversation, not by row",
        why="a score on rows that were trained on says nothing about new ones, and the best checkpoint is chosen by it",
        level=Level.DEEP,
        limits={"jaccard": 0.8},
        ready=_no_train_file,
        conclude=_overlap,
    )
)
def overlapping(batch: Batch, sheet: Sheet) -> None:
    """Signs the rows; the training file is read in the end."""
    sign_batch(batch, sheet)
