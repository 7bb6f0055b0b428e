"""How well questions and answers of a file fit: each answer against its own question, and against those of other rows."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from validation.context import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Mask = NDArray[np.bool_]

SURE = 2.5  # standard errors of the AUC, from which on true pairs fit better than chance
GAIN, MARGIN = 3.0, 1.0  # standard deviations by which an answer fits another question better than its own, and than any third
WORDS_BY_CHANCE = 0.2  # standard deviations
WORDS_AT_ONCE = 2_048
MIRROR_LENGTH = 500  # characters of a question; a longer one is a mirror only where the answer is half of it

_word = re.compile(r"[^\W_]+").findall


@dataclass(frozen=True)
class Fitness:
    """Scores of all pairs of n questions (rows) and n answers (columns), in standard deviations.

    What a question or an answer has in common with all others is taken off, so that an answer that fits everything counts
    for nothing. Cells of equal questions or equal answers, and of mirrors, are NaN: they tell nothing.
    """

    scores: "Scores"

    @classmethod
    def of(cls, scores: "Scores", pairs: Sequence[Pair]) -> "Fitness":
        """From raw likenesses, higher is nearer."""
        import numpy as np

        question, answer = (np.array([hash(text) for text in texts]) for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs]))
        double = (question[:, None] == question[None, :]) | (answer[:, None] == answer[None, :])
        mirrors = mirrors_of(pairs)
        # Where such an answer is also the best for that question, the two rows fit each other both ways.
        best = (scores == scores.max(axis=0, keepdims=True)) | (scores == scores.max(axis=1, keepdims=True))
        mutual = mirrors & best & (scores > np.diagonal(scores)[:, None]) & (scores > np.diagonal(scores)[None, :])
        double |= mirrors | mutual.T
        np.fill_diagonal(double, False)
        plain = scores.astype(np.float32)
        plain[double] = np.nan
        plain -= np.nanmean(plain, axis=0, keepdims=True)
        plain -= np.nanmean(plain, axis=1, keepdims=True)
        spread = float(np.nanstd(plain))
        return cls(plain / spread if spread > 1e-6 else plain * 0)

    @cached_property
    def own(self) -> "Scores":
        """Each answer with its own question."""
        import numpy as np

        found: Scores = np.diagonal(self.scores).copy()
        return found

    @cached_property
    def _others(self) -> "Scores":
        """Each answer with other questions, sorted."""
        import numpy as np

        mask = ~np.isnan(self.scores)
        np.fill_diagonal(mask, False)
        return np.sort(self.scores[mask])

    @cached_property
    def median(self) -> float:
        """Of the true pairs."""
        import numpy as np

        return float(np.median(self.own))

    @cached_property
    def upper_quarter(self) -> float:
        """The 75 % point of shuffled pairs."""
        import numpy as np

        return float(np.quantile(self._others, 0.75)) if len(self._others) else 0.0

    @cached_property
    def auc(self) -> float:
        """The chance that a true pair fits better than a shuffled one."""
        import numpy as np

        if not len(self._others):
            return 0.5
        below, upto = (np.searchsorted(self._others, self.own, side=side) for side in ("left", "right"))
        return float((below + upto).mean() / 2 / len(self._others))

    @property
    def sureness(self) -> float:
        """By how many standard errors the AUC is above one half; the shuffled pairs are so many that only the true ones count."""
        return (self.auc - 0.5) * math.sqrt(12 * len(self.own))

    @property
    def is_low(self) -> bool:
        """Whether true pairs fit no better than shuffled ones."""
        return self.median <= self.upper_quarter and self.sureness < SURE

    @cached_property
    def elsewhere(self) -> "dict[int, int]":
        """answer -> question, for answers that clearly fit the question of another row, which itself has no better answer."""
        return self._moved(GAIN, MARGIN)

    @cached_property
    def perhaps_elsewhere(self) -> "dict[int, int]":
        """The same, and with less certainty those whose own question does not fit at all."""
        moved = self._moved(GAIN - 1, MARGIN / 2)
        most = max(self.upper_quarter, WORDS_BY_CHANCE)
        return self.elsewhere | {answer: question for answer, question in moved.items() if self.own[answer] <= most}

    def _moved(self, least_gain: float, least_margin: float) -> "dict[int, int]":
        import numpy as np

        known = np.where(np.isnan(self.scores), -9.0, self.scores)
        best_question, best_answer = known.argmax(axis=0), known.argmax(axis=1)
        everyone = np.arange(len(known))
        top = np.partition(known, -2, axis=0)[-2:]
        gain, margin = top[1] - self.own, top[1] - top[0]
        moved = (best_answer[best_question] == everyone) & (best_question != everyone) & (gain > least_gain) & (margin > least_margin)
        return {int(place): int(best_question[place]) for place in np.flatnonzero(moved)}


def usual_shift(moved: Mapping[int, int]) -> int:
    """By how many lines most answers stand behind the question that they fit (answer line -> question line); 0 where they do not agree."""
    offsets = Counter(answer - question for answer, question in moved.items())
    if not offsets:
        return 0
    offset, count = offsets.most_common(1)[0]
    return offset if count >= max(3, 0.6 * len(moved)) else 0


_EDGES = " \t\r\n.,;:!?\"'`()[]“”‘’«»„…。！？「」"
_WITHOUT_BLANKS = "\u2e80"  # from here on (Chinese, Japanese, emoji) words stand without blanks between


def mirrors_of(pairs: Sequence[Pair]) -> "Mask":
    """Which questions (rows) ask an answer (columns) the other way round, as sets in both directions of translation do.

    The answer of the one row stands in the question of the other, or is that question itself: that it fits is no accident
    and no slip, and tells nothing of where it belongs.
    """
    import numpy as np

    questions, answers = ([text.casefold().strip(_EDGES) for text in texts] for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs]))
    found: Mask = np.zeros((len(pairs), len(pairs)), dtype=bool)
    for other, places in enumerate(_holders(questions, answers)):
        found[other, places] = True
    places_of: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        places_of.setdefault(question, []).append(place)
    for place, answer in enumerate(answers):
        found[places_of.get(answer, []), place] = True
    return found


def both_ways(pairs: Sequence[Pair]) -> int:
    """How many rows have a mirror whose answer stands in their question, as theirs in its: such rows are whole.

    Answers without letters do not count: numbers stand in many questions.
    """
    import numpy as np

    questions, answers = ([text.casefold().strip(_EDGES) for text in texts] for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs]))
    holds = np.zeros((len(pairs), len(pairs)), dtype=bool)
    for place, places in enumerate(_holders(questions, answers)):
        holds[place, places] = any(map(str.isalpha, answers[place]))
    np.fill_diagonal(holds, False)
    return int((holds & holds.T).any(axis=0).sum())


def _holders(questions: Sequence[str], answers: Sequence[str]) -> Iterator[list[int]]:
    """For each answer the places of the questions in which it stands, as whole words; long questions are left out, for time."""
    worded = [f" {' '.join(_word(question))} " for question in questions]
    places_of: dict[str, list[int]] = {}
    for place, text in enumerate(worded):
        for word in set(text.split()):
            places_of.setdefault(word, []).append(place)
    short = [(place, text) for place, text in enumerate(questions) if len(text) <= MIRROR_LENGTH]
    for answer in answers:
        words = _word(answer)
        if not words or max(answer) >= _WITHOUT_BLANKS:
            yield [place for place, text in short if answer and answer in text]
            continue
        rarest = min((places_of.get(word, []) for word in words), key=len)
        whole = f" {' '.join(words)} "
        longest = max(MIRROR_LENGTH, 2 * len(whole))
        yield [place for place in rarest if len(worded[place]) <= longest and whole in worded[place]]


def word_likeness(pairs: Sequence[Pair]) -> "Scores":
    """Cosines of questions (rows) and answers (columns) as sets of words, rare words weighing more (IDF)."""
    import numpy as np

    sides = [[set(_word(text.casefold())) for text in texts] for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs])]
    counts = Counter(word for side in sides for words in side for word in words)
    weight = {word: math.log(2 * len(pairs) / count) for word, count in counts.items()}
    norms = [np.array([math.sqrt(sum(weight[word] ** 2 for word in words)) or 1.0 for words in side], dtype=np.float32) for side in sides]
    asked = set().union(*sides[0]) if sides[0] else set()
    common = sorted(asked & set().union(*sides[1])) if asked else []
    scores: Scores = np.zeros((len(pairs), len(pairs)), dtype=np.float32)
    for begin in range(0, len(common), WORDS_AT_ONCE):
        place = {word: number for number, word in enumerate(common[begin : begin + WORDS_AT_ONCE])}
        matrices = []
        for side in sides:
            matrix = np.zeros((len(pairs), len(place)), dtype=np.float32)
            for row, words in enumerate(side):
                for word in words:
                    if word in place:
                        matrix[row, place[word]] = weight[word]
            matrices.append(matrix)
        scores += matrices[0] @ matrices[1].T
    scores /= norms[0][:, None] * norms[1][None, :]
    return scores
