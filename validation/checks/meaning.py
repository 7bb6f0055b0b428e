"""D05, D13: what rows mean, by a sentence model on a sample: questions that say what an evaluation asks, and odd rows."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown

if TYPE_CHECKING:
    from validation.embedding import Meaning
    from validation.survey import Survey

Array = Any  # a numpy array

_word = re.compile(r"\w+").findall
_number = re.compile(r"\d+(?:[.,]\d+)*").findall

# --- D05

LEAST_WORDS = 5  # shorter questions mean many things
SAME_WORDS = 0.8  # Jaccard of words, from which on n-grams tell of the row (D04)
ALIKE_SHARE = 0.005  # of pairs of rows over the limit: then all rows of the file are so alike that likeness tells nothing


def _close_to_items(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    from validation.embedding import meaning_of
    from validation.references import sampled_questions

    items = sampled_questions(survey.context)
    found = meaning_of(survey, "D05") if items else None
    if found is None:
        return
    limit = survey.context.limit
    among = found.questions @ found.questions.T
    np.fill_diagonal(among, 0)
    if len(among) > 1 and float((among >= limit("D05", "warn_cosine")).mean()) > ALIKE_SHARE:
        survey.notes["D05"] = "the questions of this file are so alike that their meaning cannot be told from that of an evaluation"
        return
    cosines = found.questions @ found.items.T
    nearest = cosines.argmax(axis=1)
    for place, cosine in enumerate(cosines.max(axis=1).tolist()):
        reference, item, text = items[int(nearest[place])]
        pair = found.pairs[place]
        if cosine >= limit("D05", "warn_cosine") and _may_be_compared(pair.question, text):
            is_error = cosine >= limit("D05", "error_cosine") and sorted(_number(pair.question)) == sorted(_number(text))
            yield Problem(
                message=f"line {pair.line} asks what item {item.number} of {reference.name} asks, in other words (likeness {cosine:.2f}): "
                f"{shown(pair.question)} and {shown(text)}",
                kind=f"{reference.name} {'same' if is_error else 'close'}",
                severity=Severity.ERROR if is_error else Severity.WARNING,
                lines=(pair.line,),
                count=1,
            )


def _may_be_compared(question: str, item: str) -> bool:
    """Whether both are long enough to mean one thing, and not the same words: those are D04's."""
    left, right = (set(_word(text.casefold())) for text in (question, item))
    return min(len(left), len(right)) >= LEAST_WORDS and len(left & right) < SAME_WORDS * len(left | right)


def _no_references(context: Context) -> str:
    return "" if context.around.references else "no evaluation set is named: pass --reference FILE"


@entered(
    Check(
        "D05",
        "cont.semantic",
        Severity.WARNING,
        Need.BATCH,
        "look at these rows beside the items; leave out those that ask the same",
        why="a rewritten test question teaches the test as well as a copied one, and no search for equal words finds it",
        level=Level.DEEP,
        limits={"warn_cosine": 0.9, "error_cosine": 0.95},
        ready=_no_references,
        conclude=_close_to_items,
    )
)
def close_to_an_item(batch: Batch, sheet: Sheet) -> None:
    """Looks at a sample in the end."""


# --- D13

LEAST_ROWS, NEIGHBOURS = 50, 5
ODD = 5.0  # robust standard deviations below the median likeness of a row to its neighbours
LEAST_PER_CLASS, MOST_CLASS_WORDS, MOST_CLASSES = 5, 6, 50
LEARNABLE = 0.7  # rows whose neighbours have their label; below it, labels do not follow from meaning
AGREEING = 5  # of the neighbours, that have one other label
MOST_TOLD = 20


def _odd_rows(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    from validation.embedding import meaning_of

    found = meaning_of(survey, "D13")
    if found is None or len(found.pairs) < LEAST_ROWS:
        return
    cosines = found.questions @ found.questions.T
    np.fill_diagonal(cosines, -1)
    nearest = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    likeness = np.take_along_axis(cosines, nearest, axis=1)
    yield from _outliers(found, likeness.mean(axis=1))
    yield from _odd_labels(found, nearest)


def _outliers(found: "Meaning", likeness: Array) -> Iterator[Problem]:
    import numpy as np

    middle = float(np.median(likeness))
    spread = max(1.4826 * float(np.median(np.abs(likeness - middle))), 0.02)
    order = np.argsort(likeness)
    places = [int(place) for place in order[:MOST_TOLD] if likeness[place] < middle - ODD * spread]
    if places:
        lines = tuple(found.pairs[place].line for place in places)
        first = found.pairs[places[0]]
        yield Problem(
            message=f"{len(lines)} of {len(found.pairs):,} questions looked at are unlike all others: line {first.line} asks {shown(first.question)}",
            kind="outlier",
            lines=lines,
            count=len(lines),
        )


def _odd_labels(found: "Meaning", nearest: Array) -> Iterator[Problem]:
    labels = [" ".join(pair.answer.casefold().split()) for pair in found.pairs]
    counts = Counter(labels)
    if not 2 <= len(counts) <= MOST_CLASSES or min(counts.values()) < LEAST_PER_CLASS or max(len(label.split()) for label in counts) > MOST_CLASS_WORDS:
        return
    around = [Counter(labels[int(other)] for other in others).most_common(1)[0] for others in nearest]
    if sum(label == common for label, (common, _) in zip(labels, around, strict=True)) < LEARNABLE * len(labels):
        return
    odd = [place for place, (common, count) in enumerate(around) if common != labels[place] and count >= AGREEING]
    if odd:
        first = odd[0]
        yield Problem(
            message=f"{len(odd)} labels differ from those of all {NEIGHBOURS} nearest questions: line {found.pairs[first].line} says "
            f"{shown(labels[first])}, its neighbours {shown(around[first][0])}",
            kind="label",
            hint="look at these rows: their labels may be wrong",
            lines=tuple(found.pairs[place].line for place in odd[:MOST_TOLD]),
            count=len(odd),
        )


@entered(
    Check(
        "D13",
        "outlier",
        Severity.INFO,
        Need.BATCH,
        "look at these rows: they may belong to another file",
        why="a few rows of another kind teach little, and may be a slip of the export",
        level=Level.DEEP,
        families=("chat", "completion", "pair"),
        conclude=_odd_rows,
    )
)
def odd_row(batch: Batch, sheet: Sheet) -> None:
    """Looks at a sample in the end."""
