"""Quality, a share from 0 to 1: the task metric that config names, else how often pairs are told apart, else token accuracy.

Its legs: at least `ranking.retention` of the incumbent's on earlier drops' rows, at least the floor on all. Both compare
means; that the difference is no accident is the business of the legs that compare losses. Below by its mean is held, and
refused where the whole interval lies below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ranking.evidence import Comparison, Leg, LegResult, ScoreFile
from ranking.gathering import Evidence
from ranking.legs import can_prove, leg
from ranking.report import difference
from ranking.scores import missing
from ranking.statistics import Floats, Mask, Paired, compare
from ranking.taskmetric import answer_files, metric_of

PAIRS = "pair accuracy"
TOKENS = "token accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The quality of incumbent and candidate; row i of `paired` is row `rows[i]` of the evidence."""

    paired: Paired
    rows: NDArray[np.intp]
    files: Mapping[str, ScoreFile] = field(default_factory=dict)  # that were read for it, beside score files

    @property
    def name(self) -> str:
        """What it is measured by."""
        return self.paired.measure

    def compared(self, evidence: Evidence, mask: Mask) -> Comparison | None:
        """Both models on those of the rows that it has a value for; None where there are none."""
        paired = self.paired.taken(mask[self.rows])
        return compare(paired, evidence.rules) if paired else None


def quality(evidence: Evidence) -> Quality | None:
    """The quality by which the candidate is judged; None where the scores tell of none. Raises EvidenceError."""
    before, after = evidence.incumbent, evidence.best
    if evidence.rules.metric:
        return _by_metric(evidence)
    if before.right is not None and after.right is not None:
        return _quality(evidence, PAIRS, (before.right, after.right), np.ones(len(before.rows)))
    if before.correct is not None and after.correct is not None and not evidence.other_base:
        return _quality(evidence, TOKENS, (before.correct / before.tokens, after.correct / before.tokens), before.tokens)
    return None


def _quality(evidence: Evidence, name: str, values: tuple[Floats, Floats], weight: Floats) -> Quality:
    known = np.flatnonzero(~np.isnan(values[0]) & ~np.isnan(values[1]) & (weight > 0))
    if not len(known):
        missing(f"{name} says nothing about any held-out row")
    groups = [evidence.incumbent.groups[index] for index in known]
    paired = Paired(before=values[0][known], after=values[1][known], weights=weight[known], groups=groups, measure=name, higher_is_better=True)
    return Quality(paired=paired, rows=known)


def _by_metric(evidence: Evidence) -> Quality:
    before, after = (metric_of(evidence.held, evidence.rules, "gate", scores) for scores in (evidence.incumbent, evidence.best))
    if not np.array_equal(np.isnan(before.weights), np.isnan(after.weights)):
        missing("incumbent and candidate did not answer the same rows")
    found = _quality(evidence, evidence.rules.metric, (before.after, after.after), np.nan_to_num(before.weights))
    return replace(found, files=answer_files(evidence.held, evidence.rules, "gate", [evidence.task.incumbent, evidence.best.model]))


# ---------------------------------------------------------------- legs


def retention(evidence: Evidence, found: Quality | None) -> Leg:
    """At least the configured share of the incumbent's quality on earlier drops' rows."""
    name, least = "retention", evidence.rules.retention
    if evidence.this.all():
        return leg(name, LegResult.SKIPPED, "there are no held-out rows of earlier drops")
    if found is None:
        return leg(name, LegResult.SKIPPED, _why_none(evidence))
    compared = found.compared(evidence, ~evidence.this)
    if compared is None:
        return leg(name, LegResult.UNPROVEN, f"{found.name} was measured on no row of earlier drops")
    ratio = compared.ratio
    assert ratio is not None, "quality is a share"
    interval = f"95 % interval {ratio.low:.1%} to {ratio.high:.1%}"
    text = f"on {compared.rows} held-out rows of earlier drops {ratio.mean:.1%} of the incumbent's {found.name} is retained ({interval})"
    if ratio.mean >= least:
        return leg(name, LegResult.PASSED, f"{text}, {least:.0%} is asked for", compared)
    result = LegResult.REGRESSION if ratio.high < least and can_prove(compared, evidence.rules) else LegResult.UNPROVEN
    return leg(name, result, f"{text}: less than the {least:.0%} asked for", compared)


def floor(evidence: Evidence, found: Quality | None) -> Leg:
    """At least the least quality that config asks for, on all held-out rows."""
    name, least = "quality", evidence.rules.floor
    if least is None:
        return leg(name, LegResult.SKIPPED, "no least quality is asked for")
    if found is None:
        return leg(name, LegResult.UNPROVEN, f"a quality of {least:g} is asked for, and {_why_none(evidence)}")
    against = replace(found.paired, before=np.full(len(found.rows), least), measure=f"{found.name} against the least")
    compared = compare(against, evidence.rules)
    low, high = (compared.difference.low + least, compared.difference.high + least)
    text = f"{found.name} is {compared.after:.3f} (95 % interval {low:.3f} to {high:.3f}) on {compared.rows} held-out rows"
    if compared.after >= least:
        return leg(name, LegResult.PASSED, f"{text}, {least:g} is asked for", compared)
    result = LegResult.REGRESSION if high < least and can_prove(compared, evidence.rules) else LegResult.UNPROVEN
    return leg(name, result, f"{text}: below the {least:g} asked for", compared)


def _why_none(evidence: Evidence) -> str:
    if evidence.other_base:
        return "token accuracy says nothing across different bases: name a ranking.metric"
    return "the scores, of an earlier lorad, tell of no quality"


def chosen(evidence: Evidence) -> Leg | None:
    """Of pairs: whether the better answers themselves became much less likely, which telling them apart does not show. None without pairs."""
    before, after = evidence.incumbent.chosen, evidence.best.chosen
    if before is None or after is None:
        return None
    known = ~np.isnan(before) & ~np.isnan(after)
    weight = evidence.incumbent.tokens
    every = Paired(before=before / weight, after=after / weight, weights=weight, groups=evidence.incumbent.groups, measure="loss of chosen answers")
    if (paired := every.taken(known)) is None:
        return None
    found = compare(paired, evidence.rules, margin=evidence.margin)
    text = f"the loss per token of chosen answers changes by {difference(found.difference)}"
    if found.gain.high < -evidence.margin and can_prove(found, evidence.rules):
        return leg("chosen answers", LegResult.UNPROVEN, f"{text}: the model unlearns good answers to tell them from bad ones", found)
    return leg("chosen answers", LegResult.PASSED, text, found)
