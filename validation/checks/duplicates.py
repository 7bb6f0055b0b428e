"""D03: rows that say nearly the same as another row of the file, or of an earlier drop of the adapter."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity

if TYPE_CHECKING:
    from validation.survey import Survey


def no_rensa(context: Context) -> str:
    """Why near duplicates cannot be looked for; empty where they can."""
    from importlib.util import find_spec

    return "" if find_spec("rensa") else "the package rensa is not installed: pip install rensa"


def _conclude(survey: "Survey") -> Iterable[Problem]:
    from validation.doubles import near_duplicates

    return near_duplicates(survey)


@entered(
    Check(
        "D03",
        "dup.near",
        Severity.WARNING,
        Need.BATCH,
        "keep one row of each group; if a generator made them, let it vary more than a few words",
        why="the model sees the same thought again and again, weighs it as many times, and a copy may stand on both sides of the held-out split",
        level=Level.DEEP,
        limits={"warn_share": 0.05, "error_share": 0.5, "jaccard": 0.8},
        ready=no_rensa,
        conclude=_conclude,
    )
)
def nearly_repeated_rows(batch: Batch, sheet: Sheet) -> None:
    """Signs the rows; what they add up to is said in the end."""
    from validation.signed import sign_batch

    sign_batch(batch, sheet)
