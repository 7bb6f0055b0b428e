"""Which questions are of one kind, what they have in common, and what they may be called. Numbers and texts only, no files."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

FEWEST = 3  # questions that make a kind
APART = 0.6  # mean cosine distance of two kinds. Of 700 questions from ten sources, 96 % of those in kinds stood with their own source's
COMMON = 0.6  # of the questions, in which a word of a pattern stands
COMPARED = 20  # questions that a pattern is made of
NAME_WORDS = 3
GAP, NUMBER = "…", "<number>"
_WORD = re.compile(r"[^\W\d_]{3,}")
_TOKEN = re.compile(r"\d[\d.,]*\d|\d|\w+|[^\w\s]")
_NUMBER = re.compile(r"\d[\d.,]*")
_FILLERS = (
    "about after all also and any are been before but can could did does each for from get give had has have her here him his how into its just like "
    "made make many may more most much must not now off one only our out over please shall she should some such than that the their them then there "
    "these they this those too two use very was were what when where which who why will with would you your"
)
_NO_NAME = frozenset(re.findall("[a-z]+", _FILLERS))


def kinds_of(vectors: "Vectors", apart: float = APART) -> list[list[int]]:
    """Places of the questions of each kind, the largest kind first; questions alike to no others are in none.

    Agglomerative clustering by average linkage (Sokal and Michener 1958), cut at a mean cosine distance: no number of kinds has
    to be guessed, and one question between two kinds does not join them. Memory grows with the square: 2,000 questions take 16 MB.

    Args: vectors: float32 (questions, dimensions) of unit length.
    """
    if len(vectors) < FEWEST:
        return []
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

    alike_NN = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    upper = np.triu_indices(len(vectors), k=1)
    distances = np.clip(1.0 - alike_NN[upper], 0.0, 2.0)
    labels = fcluster(linkage(distances, "average"), t=apart, criterion="distance")
    kinds: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        kinds.setdefault(label, []).append(place)
    return sorted((kind for kind in kinds.values() if len(kind) >= FEWEST), key=lambda kind: (-len(kind), kind[0]))


def middle_first(vectors: "Vectors", kind: Sequence[int]) -> list[int]:
    """The places of one kind, nearest to its middle first."""
    own = vectors[list(kind)]
    near = own @ own.mean(axis=0)
    return [kind[place] for place in sorted(range(len(kind)), key=lambda place: (-float(near[place]), place))]


def telling_words(kinds: Sequence[Sequence[str]], num: int = NAME_WORDS) -> list[tuple[str, ...]]:
    """For each kind the words that several of its questions have and few others, the most telling first; its rarest where no two share one.

    The weight is the share of its questions with the word, times the inverse frequency of the word over all kinds, as in TF-IDF
    by class.
    """
    counts = [Counter(word for question in kind for word in _words(question)) for kind in kinds]
    everywhere = sum(counts, Counter[str]())
    total = sum(len(kind) for kind in kinds)
    found = []
    for kind, count in zip(kinds, counts, strict=True):
        shared = {word: number for word, number in count.items() if number > 1} or count
        weights = {word: number / len(kind) * math.log(1 + total / everywhere[word]) for word, number in shared.items()}
        found.append(tuple(sorted(weights, key=lambda word: (-weights[word], word))[:num]))
    return found


def _words(question: str) -> set[str]:
    return {word for word in _WORD.findall(question.casefold()) if word not in _NO_NAME}


def pattern_of(questions: Sequence[str]) -> str:
    """What most of the questions have in common, in the order of the first: "What is <number> + <number>?"; empty where that is next to nothing."""
    first, *others = [_TOKEN.findall(question) for question in questions[:COMPARED]] or [[]]
    counts = [1] * len(first)
    for other in others:
        for block in SequenceMatcher(None, _folded(first), _folded(other), autojunk=False).get_matching_blocks():
            for place in range(block.a, block.a + block.size):
                counts[place] += 1
    kept = [token if count >= COMMON * (1 + len(others)) else GAP for token, count in zip(first, counts, strict=True)]
    kept = [NUMBER if _NUMBER.fullmatch(token) else token for token in kept]
    text = ""
    for place, token in enumerate(kept):
        if token == GAP and place and kept[place - 1] == GAP:
            continue
        text += token if not text or re.fullmatch(r"[.,;:?!)\]}'’]", token) or text[-1] in "([{'’" else f" {token}"
    return text if sum(bool(_WORD.fullmatch(token)) for token in kept) > 1 else ""


def _folded(tokens: Sequence[str]) -> list[str]:
    return [NUMBER if _NUMBER.fullmatch(token) else token.casefold() for token in tokens]
