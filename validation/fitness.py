"""How well questions and answers of a file fit: each answer against its own question, and against those of other rows."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from validation.context import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]

SURE = 2.5  # standard errors of the AUC, from which on true pairs fit better than chance
GAIN, MARGIN = 3.0, 1.0  # standard deviations by which an answer fits another question better than its own, and than any third
WORDS_BY_CHANCE = 0.2  # standard deviations
WORDS_AT_ONCE = 2_048

_word = re.compile(r"[^\W_]+").findall


@dataclass(frozen=True)
class Fitness:
    """Scores of all pairs of n questions (rows) and n answers (columns), in standard deviations.

    What a question or an answer has in common with all others is taken off, so that an answer that fits everything counts
    for nothing. Cells of equal questions or equal answers are NaN: they tell nothing.
    """

    scores: "Scores"

    @classmethod
    def of(cls, scores: "Scores", pairs: Sequence[Pair]) -> "Fitness":
        """From raw likenesses, higher is nearer."""
        import numpy as np

        question, answer = (np.array([hash(text) for text in texts]) for texts in ([pair.question for pair in pairs], [pair.answer for pair in pairs]))
        double = (question[:, None] == question[None, :]) | (answer[:, None] == answer[None, :])
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
