"""BLEU, chrF and ROUGE of an answer against the row's, by the libraries that papers report: sacrebleu and rouge-score."""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError

INSTALL = "pip install 'lorad[evaluation]'"


def _not_installed(library: str) -> NoReturn:
    raise MetricError(f"the package {library} is not installed", hint=INSTALL, code="METRIC_NOT_RUN")


def _each(cases: Sequence[Case], score: Callable[[str, str], float]) -> list[float]:
    # A library may count a hair over 100.
    return [min(1.0, score(case.answer, case.expected)) if case.expected.strip() else math.nan for case in cases]


def _bleu(cases: Sequence[Case], kit: Kit) -> list[float]:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        _not_installed("sacrebleu")
    bleu = BLEU(effective_order=True)  # of sentences: an answer of three words has no run of four
    return _each(cases, lambda answer, expected: float(bleu.sentence_score(answer, [expected]).score) / 100)


def _chrf(cases: Sequence[Case], kit: Kit) -> list[float]:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        _not_installed("sacrebleu")
    chrf = CHRF()
    return _each(cases, lambda answer, expected: float(chrf.sentence_score(answer, [expected]).score) / 100)


class _Words:
    """Folded words of any script: rouge-score's own tokenizer drops every letter that is not of a to z."""

    def tokenize(self, text: str) -> list[str]:
        from rendering.answers import words_of

        return words_of(text)


def _rouge(kind: str) -> Callable[[Sequence[Case], Kit], list[float]]:
    def scored(cases: Sequence[Case], kit: Kit) -> list[float]:
        try:
            scorers = import_module("rouge_score.rouge_scorer")
        except ImportError:
            _not_installed("rouge-score")
        scorer = scorers.RougeScorer([kind], tokenizer=_Words())
        return _each(cases, lambda answer, expected: float(scorer.score(expected, answer)[kind].fmeasure))

    return scored


METRICS = (
    Metric(name="bleu", about="BLEU of each sentence-long answer, effective order, over 100", kind=Kind.SHARE, score=_bleu, library="sacrebleu"),
    Metric(name="chrf", about="chrF2 of each answer, over 100: letters, so fit for every language", kind=Kind.SHARE, score=_chrf, library="sacrebleu"),
    Metric(name="rouge1", about="ROUGE-1 F of each answer: single words", kind=Kind.SHARE, score=_rouge("rouge1"), library="rouge-score"),
    Metric(name="rouge2", about="ROUGE-2 F of each answer: pairs of words", kind=Kind.SHARE, score=_rouge("rouge2"), library="rouge-score"),
    Metric(name="rougeL", about="ROUGE-L F of each answer: longest common order of words", kind=Kind.SHARE, score=_rouge("rougeL"), library="rouge-score"),
)
