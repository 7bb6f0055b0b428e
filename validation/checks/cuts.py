"""B05: answers that an exporter cut, at one length or in the middle of a sentence."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from re import findall
from statistics import median
from typing import TYPE_CHECKING, Any

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.endings import Ending, ending_of, is_unmarked
from validation.findings import Level, Problem, Severity, shown
from validation.folding import Folded, column, fold

if TYPE_CHECKING:
    from validation.survey import Survey

Array = Any  # a numpy array

LEAST_LENGTH = 30  # characters: shorter answers share their length by chance
LOOKED_AT = 100  # rows that are read again
NEIGHBOURS, SPIKE = 5, 3  # a cut gives one length at least thrice the rows of any that differs by so many characters
TEMPLATE_SHARE = 0.5  # of two answers that is their common beginning and end
_SHAPES = "B05.shapes"  # length << 4 | ending << 1 | unmarked


def _looked_at(case: Case) -> str:
    """The answer of a row that a cut would show in: the longest, where it has no end mark; else the last, unless that is too short to say."""
    longest = max(case.answers, key=len, default="")
    if len(case.answers) < 2 or is_unmarked(longest) or ending_of(case.answer) is Ending.OTHER:
        return longest
    return case.answer


def _cuts(survey: "Survey") -> Iterator[Problem]:
    shapes = column(survey.sheet, _SHAPES)
    if not len(shapes):
        return
    folded = Folded.of(survey.sheet)
    yield from _at_one_length(survey, shapes, folded) or _in_mid_sentence(survey, shapes, folded)


def _at_one_length(survey: "Survey", shapes: Array, folded: Folded) -> list[Problem]:
    """Many answers of different beginnings that end without an end mark after the same number of characters."""
    import numpy as np

    limit = survey.context.limit
    lengths = (shapes >> np.uint64(4)).astype(np.int64)
    candidates = ((shapes & np.uint64(1)) == 1) & (lengths >= LEAST_LENGTH)
    if not candidates.any():
        return []
    values, counts = np.unique(lengths[candidates], return_counts=True)
    length, most = int(values[counts.argmax()]), int(counts.max())
    beside = counts[(np.abs(values - length) <= NEIGHBOURS) & (values != length)]
    if len(beside) and int(beside.max()) * SPIKE > most:
        return []  # texts of like lengths, not of one
    here = np.flatnonzero(candidates & (lengths == length))
    texts = len(np.unique(folded.answers[here]))
    share = len(here) / len(shapes)
    if share < limit("B05", "one_length_share") or texts < limit("B05", "least_of_a_length") or texts < len(here) / 2:
        return []
    lines = [int(line) for line in folded.lines[here]]
    answers = _answers(survey, lines[:LOOKED_AT])
    if _are_one_template(answers):
        return []
    hint = f"the exporter keeps {length:,} characters of a text: raise that limit and export again"
    message = (
        f"{len(here):,} of {len(shapes):,} answers ({share:.0%}) end after exactly {length:,} characters without an end mark: {shown('…' + answers[0][-50:])}"
    )
    return [Problem(message=message, lines=tuple(lines), count=len(here), hint=hint, kind="length")]


def _are_one_template(answers: Sequence[str]) -> bool:
    """Whether answers of one length differ in a slot only, so that their length is that of the template."""
    shares = [(_alike(one, other) + _alike(one[::-1], other[::-1])) / max(1, len(one)) for one, other in pairwise(answers)]
    return not shares or median(shares) >= TEMPLATE_SHARE


def _alike(one: str, other: str) -> int:
    """Characters that two texts have in common at their beginning."""
    return next((place for place, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours), min(len(one), len(other)))


def _in_mid_sentence(survey: "Survey", shapes: Array, folded: Folded) -> list[Problem]:
    """Many running texts without an end mark, where the others have one, or where words are cut."""
    import numpy as np

    limit = survey.context.limit
    endings = (shapes >> np.uint64(1)) & np.uint64(7)
    judged = int((endings != Ending.OTHER).sum())
    opened = np.flatnonzero(endings >= Ending.OPEN)
    share = len(opened) / max(1, judged)
    if judged < limit("B05", "least_rows") or len(opened) < limit("B05", "least_open") or share < limit("B05", "open_share"):
        return []
    if len(opened) < limit("B05", "open_share") / 3 * len(shapes):  # a few texts among labels
        return []
    lines = [int(line) for line in folded.lines[opened]]
    broken = _broken_words(survey, lines[:: max(1, len(lines) // LOOKED_AT)])
    after_sentences = float((endings[opened] == Ending.OPEN_AFTER_SENTENCES).mean())
    others_end = int((endings == Ending.WHOLE).sum()) >= judged / 10
    if not (others_end or broken >= limit("B05", "broken_words") or after_sentences >= 0.6):
        return []
    example = _answers(survey, lines[:1])[0]
    message = f"{len(opened):,} of {judged:,} running answers ({share:.0%}) end in the middle of a sentence: {shown('…' + example.rstrip()[-50:])}"
    return [Problem(message=message, lines=tuple(lines), count=len(opened), kind="sentence")]


def _answers(survey: "Survey", lines: Sequence[int]) -> list[str]:
    return [_looked_at(case) for case in survey.rows_at(lines).values()]


def _broken_words(survey: "Survey", lines: Sequence[int]) -> float:
    """The share of answers whose last word is no word of the file, but the beginning of one."""
    cases = list(survey.rows_at(lines[:LOOKED_AT]).values())
    ends, words = [], set()
    for case in cases:
        found = findall(r"[^\W\d_]+", _looked_at(case).lower())
        ends += found[-1:]
        words.update(found[:-1])
        words.update(findall(r"[^\W\d_]+", case.prompt.lower()))
    known = sorted(words)
    places = ((end, bisect_left(known, end)) for end in ends if end not in words)
    return float(sum(place < len(known) and known[place].startswith(end) for end, place in places) / max(1, len(cases)))


@entered(
    Check(
        "B05",
        "text.cut",
        Severity.WARNING,
        Need.BATCH,
        "look whether the exporter, or a column of a table, cuts long texts; export again",
        why="the model would learn to stop in the middle of a sentence",
        level=Level.STANDARD,
        limits={"one_length_share": 0.2, "open_share": 0.3, "least_rows": 12, "least_of_a_length": 4, "least_open": 5, "broken_words": 0.15},
        conclude=_cuts,
    )
)
def cut_answers(batch: Batch, sheet: Sheet) -> None:
    """One answer of each row: its length and how it ends."""
    fold(batch, sheet)
    shapes = sheet.column(_SHAPES)
    for case in batch.cases:
        text = _looked_at(case)
        shapes.append(len(text) << 4 | ending_of(text) << 1 | is_unmarked(text))
