"""Whether rows that look alike say the same, or are different fillings of one template.

A share of common n-grams cannot tell them apart: two questions about one long passage share nearly all of it. So rows
that are alike by their grams are compared again: their answers, the sentences that they do not share, and, where three
or more rows are alike, whether each differs at the same place (a template with slots) or at a place of its own (copies
that were edited).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rendering.rowtypes import VisionRow
from validation.case import Case
from validation.folding import pictures
from validation.grams import grams_of, words_of
from validation.minhash import gram_size
from validation.rowtexts import RowWords, Templates, texts_of

if TYPE_CHECKING:
    from validation.grams import Hashes

ANSWER_LIKENESS = 0.6  # Jaccard of words; answers of up to SHORT words must be equal
SHORT = 3
LOOSE = 0.5  # Jaccard of pairs of words, of rows that may be copies of one text
REST_LIKENESS = 0.5  # of the words of the sentences that two rows do not share
LOST_SHARE = 0.3  # of a group's changes that take something away: a template loses nothing, an edited copy half
FEW_OWN_GRAMS = 8  # the grams of a slot of three words
LEAST_GRAMS = 5  # fewer of its own say too little: the whole row is compared

_word = re.compile(r"\w+").findall
_sentences = re.compile(r"[.!?;\n\u3002\uff01\uff1f\u0964]+").split


class Likeness:
    """Compares rows. Args: cases: by line. least: the Jaccard index from which on rows are alike by their grams."""

    def __init__(self, cases: Mapping[int, Case], templates: Templates, least: float) -> None:
        self._cases, self._templates, self._least = cases, templates, least
        self._place = {line: place for place, line in enumerate(cases)}
        self._words = RowWords.of([texts_of(case) for case in cases.values()])
        self._own: dict[tuple[int, int], Hashes] = {}

    def same(self, one: int, other: int) -> bool:
        """Whether two lines say nearly the same."""
        a, b = self._place[one], self._place[other]
        return self._alike(a, b) and self._says_the_same(one, other)

    def _alike(self, a: int, b: int) -> bool:
        """By n-grams of the size that fits, or by pairs of words: a few changed words spoil many long grams."""
        for n in sorted({self._gram_size([a, b]), 2}, reverse=True):
            left, right = self._own_grams(a, n), self._own_grams(b, n)
            if len(left) < LEAST_GRAMS or len(right) < LEAST_GRAMS:
                left, right = self._grams(a, n), self._grams(b, n)
            if jaccard(left, right) >= self._least:
                return True
        return False

    def resemble(self, one: int, other: int) -> bool:
        """Whether two lines share many pairs of words, template and all, and tools and pictures."""
        return self._in_one_place(one, other) and jaccard(self._grams(self._place[one], 2), self._grams(self._place[other], 2)) >= LOOSE

    def near_their_middle(self, lines: Sequence[int]) -> list[int]:
        """Those of the lines that are alike to what most of them say: copies of one text, each changed on its own, are alike to that text."""
        import numpy as np

        rows = [self._grams(self._place[line], 2) for line in lines]
        grams, counts = np.unique(np.concatenate(rows), return_counts=True)
        middle = grams[2 * counts > len(rows)]
        return [line for line, row in zip(lines, rows, strict=True) if jaccard(row, middle) >= self._least]

    def is_template(self, lines: Sequence[int]) -> bool:
        """Whether these alike lines (three or more) are fillings of one template: each has its own words at the same places."""
        import numpy as np

        places = [self._place[line] for line in lines]
        n = self._gram_size(places)
        rows = [self._grams(place, n) for place in places]
        grams, counts = np.unique(np.concatenate(rows), return_counts=True)
        most = min(len(rows) - 1, int(np.ceil(0.8 * len(rows))))
        shared, rare = grams[counts >= most], grams[counts <= max(1, len(rows) // 3)]
        lost = sum(len(shared) - np.isin(shared, row, assume_unique=True).sum() for row in rows)
        own = [int(np.isin(rare, row, assume_unique=True).sum()) for row in rows]
        if lost >= LOST_SHARE * sum(own):
            return False
        return not (sorted(own)[len(own) // 2] <= FEW_OWN_GRAMS and self._is_one_question(lines))

    def _is_one_question(self, lines: Sequence[int]) -> bool:
        """Whether all lines have one answer of some length, and questions of nearly the same words: what differs then decides nothing."""
        answers = {tuple(_folded_words(_answer(self._cases[line]))) for line in lines}
        if len(answers) > 1 or len(next(iter(answers))) <= SHORT:
            return False
        prompts = [set(_folded_words(self._cases[line].prompt)) for line in lines]
        shared = set.intersection(*prompts)
        return 2 * len(shared) > sum(map(len, prompts)) / len(prompts)

    def _says_the_same(self, one: int, other: int) -> bool:
        left, right = self._cases[one], self._cases[other]
        return self._in_one_place(one, other) and _answers_alike(_answer(left), _answer(right)) and self._rest_alike(left.prompt, right.prompt)

    def _in_one_place(self, one: int, other: int) -> bool:
        """Whether tools and pictures are the same: another choice of tools, or another picture, is another question."""
        left, right = self._cases[one], self._cases[other]
        return left.tools == right.tools and _shown(left) == _shown(right)

    def _rest_alike(self, left: str, right: str) -> bool:
        """Whether the sentences that only one of the texts has are alike beyond templates, or only one of the texts has any."""
        a, b = ({" ".join(_folded_words(part)) for part in _sentences(text)} - {""} for text in (left, right))
        only_a, only_b = sorted(a - b), sorted(b - a)
        if not only_a or not only_b or max(len(set(" ".join(only).split())) for only in (only_a, only_b)) <= SHORT:
            return True
        own_a, own_b = self._own_words(only_a), self._own_words(only_b)
        return own_a == own_b or len(own_a & own_b) >= REST_LIKENESS * len(own_a | own_b)

    def _own_words(self, sentences: Sequence[str]) -> set[int]:
        """Hashes of the words of sentences that stand beside no word of a template."""
        import numpy as np

        words = words_of(sentences)
        pairs = grams_of(words, 2)
        last = np.zeros(len(words.hashes), dtype=np.bool_)  # of a sentence: no pair begins there
        last[words.offsets[1:] - 1] = True
        begins = np.flatnonzero(~last)[self._templates.holds(pairs.hashes, 2)]
        own = np.ones(len(words.hashes), dtype=np.bool_)
        own[begins] = own[begins + 1] = False
        return set(words.hashes[own].tolist())

    def _gram_size(self, places: Sequence[int]) -> int:
        return int(gram_size(self._words.counts[list(places)].min()))

    def _grams(self, place: int, n: int) -> "Hashes":
        import numpy as np

        grams: Hashes = np.unique(self._words.grams(n).of(place))
        return grams

    def _own_grams(self, place: int, n: int) -> "Hashes":
        if (place, n) not in self._own:
            grams = self._grams(place, n)
            self._own[place, n] = grams[~self._templates.holds(grams, n)]
        return self._own[place, n]


def jaccard(left: "Hashes", right: "Hashes") -> float:
    """Share of the grams of both that are in each; both without repeats."""
    import numpy as np

    common = len(np.intersect1d(left, right, assume_unique=True))
    total = len(left) + len(right) - common
    return common / total if total else 0.0


def groups_of(lines: Sequence[int], likeness: Likeness) -> Iterator[list[int]]:
    """Lines that say nearly the same, first line first; fillings of a template are left out."""
    for group in _gathered(lines, likeness.same):
        if len(group) == 2 or (len(group) > 2 and not likeness.is_template(group)):
            yield group


def copies_of_one(lines: Sequence[int], likeness: Likeness) -> Iterator[list[int]]:
    """The same for many lines that are much alike: three or more that are one text with changes of their own."""
    for group in _gathered(lines, likeness.resemble):
        copies = likeness.near_their_middle(group) if len(group) > 2 else []
        if len(copies) > 2 and not likeness.is_template(copies):
            yield copies


def _gathered(lines: Sequence[int], same: Callable[[int, int], bool]) -> list[list[int]]:
    """Each line with the first one that it is the same as."""
    groups: list[list[int]] = []
    for line in lines:
        home = next((group for group in groups if same(group[0], line)), None)
        if home is None:
            groups.append([line])
        else:
            home.append(line)
    return groups


def _shown(case: Case) -> list[str]:
    return [name for _, name in pictures(case.row)] if isinstance(case.row, VisionRow) else []


def _answer(case: Case) -> str:
    """What is learnt: the answers, and the calls of tools."""
    calls = [f"{call.name} {call.arguments}" for message in case.messages for call in message.tool_calls]
    return "\n".join([*case.answers, *calls])


def _folded_words(text: str) -> list[str]:
    found: list[str] = _word(text.casefold())
    return found


def _answers_alike(left: str, right: str) -> bool:
    a, b = _folded_words(left), _folded_words(right)
    if a == b:
        return True
    return min(len(a), len(b)) > SHORT and len(set(a) & set(b)) >= ANSWER_LIKENESS * len(set(a) | set(b))
