"""B05: answers that an exporter cut, at one length or in the middle of a sentence."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from re import findall
from statistics import median
from typing import TYPE_CHECKING, Any

from validation.case import Case
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Sheet
from validation.endings import LEAST_BLANKS, STOPS, Ending, ending_of, is_loose, is_torn, is_unmarked
from validation.findings import Level, Problem, Severity, shown
from validation.folding import Folded, column, fold

if TYPE_CHECKING:
    from validation.survey import Survey

Array = Any  # a numpy array

LEAST_LENGTH = 30  # characters: shorter answers share their length by chance
LOOKED_AT = 100  # rows that are read again
NEIGHBOURS, SPIKE = 5, 3  # a cut gives one length at least thrice the rows of any that differs by so many characters
COPIED = 30  # characters at the end of an answer that stand in its prompt
TEMPLATE_SHARE = 0.5  # of two answers that is their common beginning and end
_SHAPES = "B05.shapes"  # length << 5 | ending << 2 | loose << 1 | unmarked
_ENDING = 7 << 2


def _looked_at(case: Case) -> str:
    """The answer of a row that a cut would show in: the longest, where it has no end mark; else the last, unless that is too short to say."""
    return _seen(case.answers)[0]


def _seen(answers: Sequence[str]) -> tuple[str, Ending]:
    """That answer of some, and how it ends."""
    last = answers[-1] if answers else ""
    ending = ending_of(last)
    if len(answers) > 1:
        longest = max(answers, key=len)
        if longest is not last and (ending is Ending.OTHER or is_unmarked(longest)):
            return longest, ending_of(longest)
    return last, ending


def _cuts(survey: "Survey") -> Iterator[Problem]:
    shapes = column(survey.sheet, _SHAPES)
    if not len(shapes):
        return
    folded = Folded.of(survey.sheet)
    yield from _at_one_length(survey, shapes, folded) or _in_mid_sentence(survey, shapes, folded) or _torn_apart(survey, shapes, folded)


def _at_one_length(survey: "Survey", shapes: Array, folded: Folded) -> list[Problem]:
    """Many answers of different beginnings that end without an end mark after the same number of characters."""
    import numpy as np

    limit = survey.context.limit
    lengths = (shapes >> np.uint64(5)).astype(np.int64)
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
    endings = (shapes >> np.uint64(2)) & np.uint64(7)
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


def _torn_apart(survey: "Survey", shapes: Array, folded: Folded) -> list[Problem]:
    """Some running texts without an end, of which many end inside a word or a sum, as those of no writer do."""
    import numpy as np

    limit = survey.context.limit
    is_loose = ((shapes >> np.uint64(1)) & np.uint64(1)) == 1
    running = int((is_loose | (((shapes >> np.uint64(2)) & np.uint64(7)) != Ending.OTHER)).sum())
    loose = np.flatnonzero(is_loose)
    if running < limit("B05", "least_rows") or len(loose) < max(limit("B05", "least_open"), limit("B05", "torn_rows") * running):
        return []
    lines = [int(line) for line in folded.lines[loose]]
    cases = list(survey.rows_at(lines[:: max(1, len(lines) // LOOKED_AT)][:LOOKED_AT]).values())
    broken = _with_broken_word(cases)
    torn = [case for case in cases if case.line in broken or is_torn(_looked_at(case))]
    share = len(torn) / len(cases)
    if len(torn) < limit("B05", "least_torn") or share < limit("B05", "torn_share") or share * len(loose) < limit("B05", "torn_rows") * running:
        return []
    example = _looked_at(torn[0]).rstrip()[-50:]
    message = f"{len(loose):,} of {running:,} running answers have no end, and of those {share:.0%} break off inside a word or a sum: {shown('…' + example)}"
    return [Problem(message=message, lines=tuple(lines), count=len(loose), kind="torn")]


def _answers(survey: "Survey", lines: Sequence[int]) -> list[str]:
    return [_looked_at(case) for case in survey.rows_at(lines).values()]


def _broken_words(survey: "Survey", lines: Sequence[int]) -> float:
    """The share of answers whose last word is no word of the file, but the beginning of one."""
    cases = list(survey.rows_at(lines[:LOOKED_AT]).values())
    return len(_with_broken_word(cases)) / max(1, len(cases))


def _with_broken_word(cases: Sequence[Case]) -> set[int]:
    """The lines of answers whose last word stands nowhere else in these rows, but is the beginning of a word that does."""
    ends, words = [], set()
    for case in cases:
        text = _looked_at(case).lower()
        found = findall(r"[^\W\d_]+", text)
        if found and text.rstrip().endswith(found[-1]):
            ends.append((case.line, found.pop()))
        words.update(found)
        words.update(findall(r"[^\W\d_]+", case.prompt.lower()))
    known = sorted(words)
    return {line for line, end in ends if end not in words and _begins_a_word(end, known)}


def _begins_a_word(end: str, known: Sequence[str]) -> bool:
    """Whether a word of a sorted list goes on where this one ends; not by an "s" alone, as plurals do."""
    place = bisect_left(known, end)
    return any(word.startswith(end) and word != f"{end}s" for word in known[place : place + 2])


@entered(
    Check(
        "B05",
        "text.cut",
        Severity.WARNING,
        Need.BATCH,
        "look whether the exporter, or a column of a table, cuts long texts; export again",
        why="the model would learn to stop in the middle of a sentence",
        level=Level.STANDARD,
        limits={"one_length_share": 0.2, "open_share": 0.3, "least_rows": 12, "least_of_a_length": 4, "least_open": 5, "broken_words": 0.15}
        | {"torn_share": 0.25, "torn_rows": 0.04, "least_torn": 4},
        conclude=_cuts,
    )
)
def cut_answers(batch: Batch, sheet: Sheet) -> None:
    """One answer of each row: its length and how it ends."""
    fold(batch, sheet)
    shapes = sheet.column(_SHAPES)
    if batch.plain:
        shapes.extend([_plain_shape(texts) for texts in batch.plain.rows])
    else:
        shapes.extend([_shape(case.answers, partial(getattr, case, "prompt")) for case in batch.cases])


def _plain_shape(texts: Sequence[str]) -> int:
    """The same of a plain conversation, whose texts these are."""
    answers = texts[1 + len(texts) % 2 :: 2]
    shape = _stopped(answers[-1]) if len(answers) == 1 else _all_stopped(answers)
    return shape if shape >= 0 else _shape(answers, lambda: "\n".join(texts[:-1]))


def _stopped(text: str) -> int:
    """The shape of a text that ends with a stop and has nothing that must be looked at closer; -1 for any other."""
    if text[-1] not in STOPS or text[0] in "{[" or text[0].isspace() or text.endswith("...") or "```" in text:
        return -1
    if text.count(" ") >= LEAST_BLANKS:
        return len(text) << 5 | Ending.WHOLE << 2
    return len(text) << 5 | Ending.OTHER << 2 if text.isascii() else -1


def _all_stopped(answers: Sequence[str]) -> int:
    """The shape of several such texts."""
    shape, longest = _stopped(answers[-1]), max(answers, key=len)
    if shape < 0 or longest is answers[-1]:
        return shape
    other = _stopped(longest)
    return shape if other >= 0 and shape & _ENDING else other


def _shape(answers: Sequence[str], prompt: Callable[[], str]) -> int:
    text, ending = _seen(answers)
    unmarked = is_unmarked(text)
    loose = is_loose(text, ending)
    if (loose or unmarked or ending >= Ending.TRAILING) and text.rstrip()[-COPIED:] in prompt():
        ending, loose, unmarked = Ending.OTHER, False, False  # taken from the prompt: no exporter cut it there
    return len(text) << 5 | ending << 2 | loose << 1 | unmarked
