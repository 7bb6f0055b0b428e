"""D10: whether answers belong to their questions. Words first; where a sentence model is here, what the texts mean.

Both compare true pairs with shuffled pairs of the same file: no fixed number says what coherent is. Words alone accuse
only where they show that most answers fit the questions of other rows; a file whose answers share no words with any
question tells them nothing.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Pair, Sheet
from validation.findings import Level, Problem, Severity

if TYPE_CHECKING:
    from validation.fitness import Fitness
    from validation.survey import Survey

LEAST_PAIRS = 12
MOST_PAIRS = 1_000  # a table of all questions by all answers
CLASS_SHARE = 0.5  # distinct answers among the pairs, below which they are classes or phrases, and fit many questions
MOVED_SHARE = 0.25  # answers that fit another row's question much better, from which on they were moved
MOVED_WORDS_SHARE, MOVED_FEW_SHARE = 0.35, 0.5  # by words alone; and that in small files
FEW_PAIRS = 20
STRAY_SHARE, STRAY_ROWS = 0.05, 3  # answers that words and meaning together give to another row
CLEAR_AUC = 0.6  # by words: true pairs fit, whatever the model says
PROSE_WORDS, QUESTION_WORDS = 8, 4  # medians of answers and questions that are prose, in which some fit is always seen
RUN = 20
SHOWN_PAIRS = 3

_number = re.compile(r"\d+")


def _conclude(survey: "Survey") -> Iterator[Problem]:
    from validation.fitness import Fitness, both_ways, word_likeness

    pairs = _thinned(survey.pairs)
    if len(pairs) < LEAST_PAIRS or len({pair.answer.casefold().strip() for pair in pairs}) < CLASS_SHARE * len(pairs):
        return
    words = Fitness.of(word_likeness(pairs), pairs)
    meaning = _meaning(survey, pairs)
    survey.stats["coherence"] = {"pairs": len(pairs), "words": _figures(words)} | ({"sentences": _figures(meaning)} if meaning else {})
    is_whole = both_ways(pairs) >= MOVED_SHARE * len(pairs)
    if meaning is None:
        least = MOVED_WORDS_SHARE if len(pairs) >= FEW_PAIRS else MOVED_FEW_SHARE
        if words.is_low and not is_whole and len(words.elsewhere) >= least * len(pairs):
            yield _moved(pairs, words, "their words")
        return
    is_clear = is_whole or (words.auc > CLEAR_AUC and not words.is_low)
    if meaning.is_low and not is_clear:
        clearest = max(meaning, words, key=lambda fitness: len(fitness.elsewhere))
        if len(clearest.elsewhere) >= MOVED_SHARE * len(pairs) or _is_prose(pairs):
            yield _moved(pairs, clearest, "what they mean")
        return
    stray = {answer: question for answer, question in meaning.perhaps_elsewhere.items() if words.perhaps_elsewhere.get(answer) == question}
    if len(stray) >= max(STRAY_ROWS, STRAY_SHARE * len(pairs)):
        yield _strayed(pairs, stray)


def _thinned(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """At most MOST_PAIRS, in runs of neighbours from all over."""
    step = -(-len(pairs) // MOST_PAIRS)
    return [pair for place, pair in enumerate(pairs) if (place // RUN) % step == 0] if step > 1 else pairs


def _meaning(survey: "Survey", pairs: Sequence[Pair]) -> "Fitness | None":
    from validation.embedding import meaning_of
    from validation.fitness import Fitness

    found = meaning_of(survey, "D10 meaning")
    if found is None:
        return None
    place = {pair.line: number for number, pair in enumerate(found.pairs)}
    rows = [place[pair.line] for pair in pairs]
    return Fitness.of(found.questions[rows] @ found.answers[rows].T, pairs)


def _figures(fitness: "Fitness") -> dict[str, float]:
    return {"median": round(fitness.median, 3), "shuffled_75": round(fitness.upper_quarter, 3), "auc": round(fitness.auc, 3)}


def _is_prose(pairs: Sequence[Pair]) -> bool:
    """Whether questions and answers are sentences in one script, and most of them differ in more than their numbers."""
    middle = len(pairs) // 2
    answers = sorted(len(pair.answer.split()) for pair in pairs)[middle]
    questions = sorted(len(pair.question.split()) for pair in pairs)[middle]
    same_script = sum(pair.question.isascii() == pair.answer.isascii() for pair in pairs) > middle
    varied = min(len({_number.sub("", text) for text in texts}) for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs]))
    return answers >= PROSE_WORDS and questions >= QUESTION_WORDS and same_script and varied > middle


def _moved(pairs: Sequence[Pair], clearest: "Fitness", how: str) -> Problem:
    from validation.fitness import usual_shift

    lines = [pair.line for pair in pairs]
    moved = {lines[answer]: lines[question] for answer, question in clearest.elsewhere.items()}
    if len(moved) < MOVED_SHARE * len(pairs):
        moved = {}  # by chance
    shift = usual_shift(moved)
    if shift:
        moved = {line: other for line, other in moved.items() if line - other == shift}
        detail, hint = f"most stand {_rows(shift)} their question: {_examples(moved)}", _back(shift)
    else:
        detail = f"some fit another row's question: {_examples(moved)}" if moved else "they fit no other row's question either"
        hint = ""
    return Problem(
        message=f"answers fit their questions no better than shuffled ones do, by {how} ({len(pairs):,} rows looked at); {detail}",
        hint=hint,
        lines=tuple(sorted(moved)),
        count=max(1, len(moved)),
    )


def _strayed(pairs: Sequence[Pair], stray: dict[int, int]) -> Problem:
    from validation.fitness import usual_shift

    moved = {pairs[answer].line: pairs[question].line for answer, question in stray.items()}
    shift = usual_shift(moved)
    what = f"stand {_rows(shift)} the question that they fit" if shift else "fit another row's question better than their own"
    return Problem(
        message=f"{len(moved):,} of {len(pairs):,} answers looked at {what}: {_examples(moved)}",
        hint=_back(shift) if shift else "look at these rows: a part of the answers was mixed up",
        kind="stray",
        lines=tuple(sorted(moved)),
        count=len(moved),
    )


def _rows(shift: int) -> str:
    return f"{abs(shift)} row{'s' if abs(shift) > 1 else ''} {'below' if shift > 0 else 'above'}"


def _back(shift: int) -> str:
    return f"move these answers {'up' if shift > 0 else 'down'} by {abs(shift)}: questions and answers were joined with an offset"


def _examples(moved: dict[int, int]) -> str:
    return ", ".join(f"the answer of line {line} fits the question of line {moved[line]}" for line in sorted(moved)[:SHOWN_PAIRS])


@entered(
    Check(
        "D10",
        "coh.low",
        Severity.WARNING,
        Need.BATCH,
        "join questions and answers again, by an id and not by their order",
        why="the model would learn to answer something else than it was asked",
        level=Level.DEEP,
        families=("chat", "completion", "pair"),
        conclude=_conclude,
    )
)
def incoherent(batch: Batch, sheet: Sheet) -> None:
    """Looks at a sample in the end."""
