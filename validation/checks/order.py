"""B12: rows that lie sorted by their answer or their source."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import erfc, sqrt
from typing import TYPE_CHECKING, Any

import xxhash

from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.folding import Folded, column, fold

if TYPE_CHECKING:
    from validation.survey import Survey

KEYS = ("source", "category", "domain")  # of metadata; a stage or a level may be in order on purpose
SHUFFLE = "shuf {file} > {out}"
LARGEST_LABEL_SHARE = 0.25  # of different values among the rows that have one: above it they are no labels


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of equal neighbours in a column, against what chance gives. `p` is the one-sided probability of so few."""

    found: int
    expected: float
    p: float

    @classmethod
    def of(cls, values: Any) -> "Runs | None":
        """The runs test of Wald and Wolfowitz (1940) for any number of kinds (Barton and David 1957); None for one kind, or too many.

        Args: values: an array of uint64, one a row, in order.
        """
        import numpy as np

        rows = len(values)
        counts = np.unique(values, return_counts=True)[1].astype(float) if rows else np.zeros(0)
        if rows < 3 or len(counts) < 2 or len(counts) > LARGEST_LABEL_SHARE * rows:
            return None
        squares, cubes = float((counts**2).sum()), float((counts**3).sum())
        expected = (rows * (rows + 1) - squares) / rows
        variance = (squares * (squares + rows * (rows + 1)) - 2 * rows * cubes - float(rows) ** 3) / (float(rows) ** 2 * (rows - 1))
        found = int((values[1:] != values[:-1]).sum()) + 1
        # Half a run for the step from counts to a continuous curve.
        z = (found + 0.5 - expected) / sqrt(variance) if variance > 0 else 0.0
        return cls(found, expected, 0.5 * erfc(-z / sqrt(2)))


def _sorted(survey: "Survey") -> Iterator[Problem]:
    folded = Folded.of(survey.sheet)
    columns = {"answers": folded.answers} | {f"metadata.{key}": column(survey.sheet, f"B12.{key}") for key in KEYS}
    for name, values in columns.items():
        present = values != 0
        if not len(values) or float(present.mean()) < 0.9:
            continue
        values, lines = values[present], folded.lines[present]
        runs = Runs.of(values)
        if runs and runs.p < survey.context.limit("B12", "p") and runs.found < survey.context.limit("B12", "runs_share") * runs.expected:
            yield _problem(survey, name, runs, values, lines)


def _problem(survey: "Survey", name: str, runs: Runs, values: Any, lines: Any) -> Problem:
    import numpy as np

    borders = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]))
    longest = int(np.diff(borders).argmax())
    first, last = int(lines[borders[longest]]), int(lines[borders[longest + 1] - 1])
    case = survey.rows_at([first]).get(first)
    value = (case.answer if name == "answers" else case.row.metadata.get(name.partition(".")[2], "")) if case else ""
    what = "the answers" if name == "answers" else f"the rows' {name}"
    message = (
        f"{what} come in {runs.found:,} runs where a shuffled file has about {runs.expected:,.0f}; "
        f"the longest is lines {first:,} to {last:,}, {shown(str(value).strip() or 'one tool call')}"
    )
    path = case.path(len(case.messages) - 1) if case and name == "answers" else f"$.{name}"
    return Problem(message=message, path=path, kind=name, lines=(first,), count=len(values), fix=SHUFFLE)


@entered(
    Check(
        "B12",
        "order.sorted",
        Severity.WARNING,
        Need.BATCH,
        "shuffle the rows before they are split or trained on",
        why="a part of a sorted file, as the held-back rows or the last steps of a run, shows one kind only",
        level=Level.STANDARD,
        limits={"p": 1e-6, "runs_share": 0.5},
        conclude=_sorted,
    )
)
def sorted_rows(batch: Batch, sheet: Sheet) -> None:
    """Answers that are labels, and what metadata says of the source, in long runs."""
    fold(batch, sheet)
    columns = [(key, sheet.column(f"B12.{key}")) for key in KEYS]
    if batch.plain or not any(case.row.metadata for case in batch.cases):
        for _, values in columns:
            values.extend([0] * len(batch.cases))
        return
    for case in batch.cases:
        metadata = case.row.metadata
        for key, values in columns:
            value = metadata.get(key) if metadata else None
            values.append(xxhash.xxh3_64_intdigest(str(value).encode()) if value not in (None, "") else 0)
