"""D04, D06: rows that hold what the model will be judged by: evaluation sets, the own gate split, a training file."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from validation.checks.duplicates import no_rensa
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity

if TYPE_CHECKING:
    from validation.survey import Survey


def _nothing_to_compare(context: Context) -> str:
    return "" if context.around.references or context.around.known else "no evaluation set is named: pass --reference FILE"


def _faults(survey: "Survey") -> Iterable[Problem]:
    from validation.evaluations import faults_of

    return faults_of(survey)


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
def contaminated_rows(batch: Batch, sheet: Sheet) -> Iterator[tuple[int, Problem]]:
    """Rows that hold more than half of an item (error), or a good part of one (warning)."""
    from validation.evaluations import contaminated

    return contaminated(batch)


def _no_train_file(context: Context) -> str:
    return no_rensa(context) if context.around.train else "no training file is named: pass --train FILE"


def _overlap(survey: "Survey") -> Iterable[Problem]:
    from validation.trainfile import overlapping

    return overlapping(survey)


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
def rows_of_the_training_file(batch: Batch, sheet: Sheet) -> None:
    """Signs the rows; the training file is read in the end."""
    from validation.signed import sign_batch

    sign_batch(batch, sheet)
