"""Metrics of meaning, by the sentence model: nearness of an answer to the row's, and to its own question."""

import math
from collections.abc import Sequence

import numpy as np

from ranking.metrics.metric import Case, Kind, Kit, Metric, Need, Values
from rendering.answers import folded

FEWEST_QUESTIONS = 5  # others to tell an answer's own question from
MOST_QUESTIONS = 500  # others that are looked at


def _similarity(cases: Sequence[Case], kit: Kit) -> list[float]:
    answers, wanted = kit.vectors([case.answer for case in cases]), kit.vectors([case.expected for case in cases])
    cosines = np.einsum("nd,nd->n", answers, wanted)
    return [max(0.0, float(cosine)) if case.expected.strip() else math.nan for case, cosine in zip(cases, cosines, strict=True)]


def _relevance(cases: Sequence[Case], kit: Kit) -> Values:
    """Share of the other questions to which an answer is less near than to its own (a tie counts a half); 0 for an empty answer."""
    answers = kit.vectors([case.answer for case in cases])
    texts = list(dict.fromkeys(folded(case.asked) for case in cases if case.asked.strip()))[:MOST_QUESTIONS]
    others_Q = kit.vectors(texts)  # Q: distinct questions
    own = np.einsum("nd,nd->n", answers, kit.vectors([folded(case.asked) for case in cases]))
    values = np.full(len(cases), np.nan)
    for place, case in enumerate(cases):
        is_other = np.array([text != folded(case.asked) for text in texts], dtype=np.bool_)
        if not case.asked.strip() or is_other.sum() < FEWEST_QUESTIONS:
            continue
        difference = own[place] - others_Q[is_other] @ answers[place]
        values[place] = float((difference > 0).mean() + (difference == 0).mean() / 2) if case.answer.strip() else 0.0
    return values


METRICS = (
    Metric(
        name="embedding_similarity",
        about="cosine of the meaning of the answer and of the row's, at least 0",
        kind=Kind.SHARE,
        score=_similarity,
        needs=(Need.ANSWERS, Need.EMBEDDINGS),
    ),
    Metric(
        name="relevance",
        about="share of the other rows' questions that the answer fits less than its own question, by meaning",
        kind=Kind.SHARE,
        score=_relevance,
        needs=(Need.ANSWERS, Need.EMBEDDINGS),
    ),
)
