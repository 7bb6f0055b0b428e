"""The verdict on the best candidate: promote when every leg passes, refuse when a regression is proven, else hold.

Legs: this drop (better than the incumbent on its held-out rows), earlier drops (not worse by more than the margin on theirs),
retention and quality (shares from 0 to 1), regression suites (not worse), coherence and the gate's report (the answers belong
to their questions), enough evidence, servability, made up (the stub).
"""

from collections.abc import Sequence
from dataclasses import replace

from core.records import VerdictWord
from core.tasks import RankTask
from ranking.evidence import Leg, LegResult, Rules, Verdict
from ranking.fitness import gate_report, servability
from ranking.gathering import Evidence, gather
from ranking.judge import judged
from ranking.legs import coherence, earlier_drops, enough, leg, made_up, rows_for, this_drop
from ranking.metrics.targets import shown
from ranking.quality import TOKENS, Quality, chosen, floor, quality, retention
from ranking.rated import rating_legs
from ranking.report import MADE_UP, sentence
from ranking.scores import EvidenceError
from ranking.suitelegs import suite_legs

__all__ = ["judge", "rows_for", "without_evidence"]


def judge(task: RankTask, rules: Rules) -> Verdict:
    """The verdict on `task.best`. Raises EvidenceError where a file is missing, damaged or not comparable."""
    assert task.best is not None, "the spec of a verdict names the best candidate"
    evidence = gather(task, rules)
    judgement = judged(evidence.held, rules)
    found = quality(evidence)
    report, report_file = gate_report(task)
    suites, suite_files = suite_legs(task, rules)
    rated, rating_file = rating_legs(task, rules)
    legs = (
        *_on_rows(evidence, found),
        *suites,
        *([judgement.leg] if judgement else []),
        *rated,
        coherence(evidence),
        report,
        enough(evidence),
        servability(task),
        made_up(evidence),
    )
    verdict = Verdict(
        job=task.job,
        word=_word(legs),
        this_drop=task.this_drop,
        candidate=task.best,
        incumbent=task.incumbent,
        base=evidence.base.standing() if evidence.base else None,
        legs=legs,
        looks=task.looks,
        made_up=evidence.best.made_up,
        conditions=evidence.conditions,
        rules=rules,
        scores={**evidence.files, **(found.files if found else {}), **suite_files, **report_file, **rating_file},
        pooled=evidence.pooled,
        metrics=shown(evidence.held, rules),
        judged=judgement.record if judgement else None,
    )
    return replace(verdict, sentence=sentence(verdict))


def _on_rows(evidence: Evidence, found: Quality | None) -> list[Leg]:
    """The legs that compare both models on held-out rows."""
    # Token accuracy says what the loss says, and less sharply; a task metric or pair accuracy is another measure of the same rows.
    measures = [found.compared(evidence, evidence.judged)] if found is not None and found.name != TOKENS else []
    of_chosen = chosen(evidence)
    legs = [this_drop(evidence, measures), earlier_drops(evidence), retention(evidence, found), floor(evidence, found)]
    return [*legs, of_chosen] if of_chosen else legs


def without_evidence(task: RankTask, rules: Rules, error: EvidenceError) -> Verdict:
    """The verdict where the evidence could not be read: hold."""
    verdict = Verdict(
        job=task.job,
        word=VerdictWord.HOLD,
        this_drop=task.this_drop,
        candidate=task.best or "",
        incumbent=task.incumbent,
        legs=(leg("evidence", LegResult.UNPROVEN, f"evidence missing: {error}"),),
        looks=task.looks,
        rules=rules,
    )
    return replace(verdict, sentence=sentence(verdict))


def _word(legs: Sequence[Leg]) -> VerdictWord:
    if all(leg.passed for leg in legs):
        return VerdictWord.PROMOTE
    made_up = any(leg.name == MADE_UP and not leg.passed for leg in legs)  # made-up numbers prove nothing, a regression neither
    proven_worse = any(leg.result is LegResult.REGRESSION for leg in legs)
    return VerdictWord.REFUSE if proven_worse and not made_up else VerdictWord.HOLD
