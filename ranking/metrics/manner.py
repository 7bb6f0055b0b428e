"""Metrics of manner: does an answer sound like the answers that the persona was trained on?

All measure by the persona's own rows. A text's distance to them is judged by the distances that they have among
themselves (split in halves, each measured by the other), so that the persona's own answers reach 0.97 whatever they are
like: a value says how typical a text is, not how well it is written.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ranking.metrics.matches import most_common
from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError, Need, Values
from ranking.metrics.tonewords import HEDGES, NEGATIVE, POSITIVE
from rendering.answers import words_of

FEWEST = 20  # rows of the persona, and texts of others: with fewer the 5 % that are least typical are none
FUNCTION_WORDS = 40
TYPICAL = 0.05  # a text is wholly typical unless it is farther out than all but this share of the persona's own
RIDGE = 1.0  # of the classifier: on vectors of unit length, so that a direction that few texts have counts little
FOLDS = 5
SIGNS = ",.;:!?…—–-()\"'*`\n"
EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")
SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|$)|\n+")
CONTRACTION = re.compile(r"\w['\u2019](?:m|s|re|ve|ll|d|t)\b", re.IGNORECASE)


def _style(texts: Sequence[str], vocabulary: Sequence[str]) -> Values:
    """Function words, punctuation, length and sentiment of each text: [texts, features]."""
    return np.array([[*_function_words(text, vocabulary), *_signs(text), *_sizes(text), valence(text)] for text in texts])


def _signs(text: str) -> list[float]:
    return [100 * text.count(sign) / (1 + len(text)) for sign in SIGNS]


def _function_words(text: str, vocabulary: Sequence[str]) -> list[float]:
    words = words_of(text)
    return [words.count(word) / (1 + len(words)) for word in vocabulary]


def _sizes(text: str) -> tuple[float, float, float]:
    words = words_of(text)
    sentences = _num_sentences(text)
    return float(np.log1p(len(words))), len(words) / sentences, sum(map(len, words)) / (1 + len(words))


def _num_sentences(text: str) -> int:
    return max(1, sum(1 for part in SENTENCE.split(text) if part.strip()))


def valence(text: str) -> float:
    """How friendly a text is, -1 to 1: positive less negative words over both, drawn to 0 where there are few. A small list of words in four languages."""
    words = words_of(text)
    good, bad = sum(word in POSITIVE for word in words), sum(word in NEGATIVE for word in words)
    return (good - bad) / (good + bad + 1)


def _tone(texts: Sequence[str]) -> Values:
    """Sentiment and temper of each text: [texts, features]."""
    return np.array([_temper(text) for text in texts])


def _temper(text: str) -> list[float]:
    words, sentences = words_of(text), _num_sentences(text)
    letters = sum(letter.isalpha() for letter in text)
    rates = [text.count("!"), text.count("?"), text.count("…") + text.count("..."), len(EMOJI.findall(text))]
    manner = [len(CONTRACTION.findall(text)), sum(word in HEDGES for word in words)]
    return [valence(text), *(rate / sentences for rate in rates), *(count / (1 + len(words)) for count in manner), sum(map(str.isupper, text)) / (1 + letters)]


def typicality(own: Values, texts: Values) -> Values:
    """How typical texts are of one's own, 0 to 1, by features [texts, features].

    Distance is the mean of |z| over features (Burrows 2002, "Delta: a measure of stylistic difference"). With p the share
    of one's own that lie at least as far out (conformal, Vovk et al. 2005), the value is min(1, p / 0.05).
    """
    halves = [own[0::2], own[1::2]]
    apart = np.concatenate([_distance(halves[1], halves[0]), _distance(halves[0], halves[1])])
    # A text is measured by each half as the other half was: like with like.
    found = (_distance(halves[0], texts) + _distance(halves[1], texts)) / 2
    return np.asarray(np.minimum(1, _at_least(apart, found) / TYPICAL))


def _distance(to: Values, of: Values) -> Values:
    spread = to.std(axis=0)
    # What one's own never vary in would weigh without end; what they never do at all still counts when a text does it.
    floor = np.maximum(0.1 * np.abs(to).mean(axis=0), 1e-2)
    return np.asarray(np.minimum(np.abs(of - to.mean(axis=0)) / np.maximum(spread, floor), 10).mean(axis=1))


def _at_least(known: Values, values: Values) -> Values:
    """For each value the share of `known`, itself counted in, that is at least as large: a conformal p."""
    ordered = np.sort(known)
    return np.asarray((1 + len(ordered) - np.searchsorted(ordered, values, side="left")) / (1 + len(ordered)))


def _own(kit: Kit) -> list[str]:
    own = [text for text in kit.own if text.strip()]
    if len(own) < FEWEST:
        raise MetricError(f"{len(own)} training rows have an answer, {FEWEST} are needed to know the persona by", hint="drop more rows", code="METRIC_NOT_RUN")
    return own


def _style_values(cases: Sequence[Case], kit: Kit) -> Values:
    own = _own(kit)
    vocabulary = most_common(own, FUNCTION_WORDS)
    return typicality(_style(own, vocabulary), _style([case.answer for case in cases], vocabulary))


def _voice_values(cases: Sequence[Case], kit: Kit) -> Values:
    """How surely a classifier of embeddings takes each answer for the persona's and not for another speaker's."""
    own, others = _own(kit), [text for text in kit.others if text.strip()]
    if len(others) < FEWEST:
        raise MetricError(f"{len(others)} texts of other speakers, {FEWEST} are needed to tell the persona from", hint="drop more rows", code="METRIC_NOT_RUN")
    mine, theirs, said = (kit.vectors(texts).astype(np.float64) for texts in (own, others, [case.answer for case in cases]))
    vectors, is_mine = np.concatenate([mine, theirs]), np.repeat([True, False], [len(mine), len(theirs)])
    fold = np.arange(len(vectors)) % FOLDS
    scores, heard = np.empty(len(vectors)), np.zeros(len(said))
    for place in range(FOLDS):  # each known text is scored by a classifier that has not seen it
        direction, middle = _classifier(vectors[fold != place], is_mine[fold != place])
        scores[fold == place] = vectors[fold == place] @ direction - middle
        heard += (said @ direction - middle) / FOLDS
    as_mine = _at_least(-scores[is_mine], -heard)  # share of the persona's own that sound no more like it
    as_theirs = _at_least(scores[~is_mine], heard)  # share of the others that sound at least as much like it
    return np.asarray(as_mine / (as_mine + as_theirs))


def _classifier(vectors: Values, is_mine: NDArray[np.bool_]) -> tuple[Values, float]:
    """Direction and threshold of a ridge classifier, both classes weighing the same."""
    middle = (vectors[is_mine].mean(axis=0) + vectors[~is_mine].mean(axis=0)) / 2
    weight = np.where(is_mine, 0.5 / is_mine.mean(), 0.5 / (1 - is_mine.mean()))
    centred = vectors - middle
    squares = (centred * weight[:, None]).T @ centred + RIDGE * np.eye(vectors.shape[1])
    direction = np.linalg.solve(squares, (centred * weight[:, None]).T @ np.where(is_mine, 1.0, -1.0))
    return direction, float(middle @ direction)


def _consistency(cases: Sequence[Case], kit: Kit) -> Values:
    return (_style_values(cases, kit) + _voice_values(cases, kit)) / 2


def _authenticity(cases: Sequence[Case], kit: Kit) -> Values:
    return typicality(_tone(_own(kit)), _tone([case.answer for case in cases]))


def _answers(score: Callable[[str], float]) -> Callable[[Sequence[Case], Kit], list[float]]:
    return lambda cases, kit: [score(case.answer) for case in cases]


BY_MEANING = (Need.ANSWERS, Need.EMBEDDINGS)
METRICS = (
    Metric(name="style", about="function words, punctuation, length and sentiment as in the persona's own rows", kind=Kind.SHARE, score=_style_values),
    Metric(
        name="voice",
        about="a classifier of meanings takes the answer for the persona's, not for another speaker's",
        kind=Kind.SHARE,
        score=_voice_values,
        needs=BY_MEANING,
    ),
    Metric(name="persona_consistency", about="the mean of style and voice", kind=Kind.SHARE, score=_consistency, needs=BY_MEANING),
    Metric(name="tone", about="friendly words less unfriendly ones, -1 to 1", kind=Kind.OPEN, score=_answers(valence)),
    Metric(
        name="authenticity",
        about="the tone (sentiment, exclamations, questions, emoji, hedges) is that of the persona's own rows",
        kind=Kind.SHARE,
        score=_authenticity,
    ),
)
