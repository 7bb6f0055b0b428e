"""The legs of a verdict that look at losses: this drop, earlier drops, coherence, enough evidence, made-up numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.splits import held_out_groups
from ranking.evidence import Comparison, Leg, LegResult, Rules
from ranking.gathering import Evidence
from ranking.report import MADE_UP, difference
from ranking.scores import Scores
from ranking.statistics import Paired, compare, holm

# With fewer groups nothing is proven at 95 %, even where all point one way (sign test: 2 * 0.5**6 = 0.03).
FEWEST_GROUPS = 6
# What a person named (a task metric) or the rows ask for (pairs) gets most of the 5 %; the loss, which is sharp, can do with the rest.
MEASURED = 0.8


def leg(name: str, result: LegResult, reason: str, comparison: Comparison | None = None, also: Sequence[Comparison] = ()) -> Leg:
    """One leg."""
    passed = result in (LegResult.PASSED, LegResult.SKIPPED, LegResult.WARNED)
    return Leg(name=name, passed=passed, result=result, reason=reason, comparison=comparison, also=tuple(also))


def can_prove(comparison: Comparison, rules: Rules) -> bool:
    """Whether there are enough conversations for a proof of any kind."""
    return comparison.groups >= min(FEWEST_GROUPS, rules.min_gate_groups)


def changed(found: Comparison, verb: str = "goes") -> str:
    """`the loss per token goes from 4.00 to 3.40 (-0.60, 95 % interval …)`."""
    return f"the {found.measure} {verb} from {found.before:.2f} to {found.after:.2f} ({difference(found.difference)})"


def this_drop(evidence: Evidence, measures: Sequence[Comparison | None]) -> Leg:
    """Better than the incumbent on this drop's held-out rows: by the loss, or by one of the `measures` of the same rows.

    Where more than one thing is looked at (measures, or candidates at earlier looks), Holm's rule keeps the chance of a
    promotion by luck at 5 % for all together. What is proven better by one and worse by another is for a person.
    """
    name, rules = "this drop", evidence.rules
    found = evidence.compared(evidence.judged) if evidence.this.any() else None
    if found is None:
        return leg(name, LegResult.UNPROVEN, "no held-out row of this drop was scored")
    looks = [found, *(one for one in measures if one is not None)]
    adjusted = _adjusted(evidence, looks)
    rows = f"on {found.rows} held-out rows of this drop{_with_pooled(evidence)} "
    better = [one for one in adjusted if can_prove(one, rules) and one.is_better]
    worse = [one for one in looks if can_prove(one, rules) and one.is_worse]
    best = (better or worse or adjusted)[0]
    also = [one for one in adjusted if one.measure != best.measure]
    text = rows + changed(best, _verb(best) if better or worse else "goes")
    if better and worse:
        return leg(name, LegResult.UNPROVEN, f"{text}, but {changed(worse[0])}: they disagree", best, also)
    if worse:
        return leg(name, LegResult.REGRESSION, text, best, also)
    if better:
        return leg(name, LegResult.PASSED, text, best, also)
    if rules.rule == "retained" and best.gain.mean > 0 and best.is_not_worse(evidence.margin) and can_prove(best, rules):
        return leg(name, LegResult.PASSED, f"{text}: better by its mean and not worse, which is the rule", best, also)
    return leg(name, LegResult.UNPROVEN, f"{text}: no proof that the candidate is better", best, also)


def _verb(found: Comparison) -> str:
    return "rises" if found.difference.mean > 0 else "falls"


def _adjusted(evidence: Evidence, looks: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values adjusted for all that was looked at on these rows; the loss comes first in `looks`."""
    rivals = [one for rival in evidence.rivals if (one := evidence.compared(evidence.judged, rival)) is not None]
    shares = [1.0] if len(looks) == 1 else [1 - MEASURED, *([MEASURED / (len(looks) - 1)] * (len(looks) - 1))]
    p_values = holm([one.p if one.p is not None else 1.0 for one in (*looks, *rivals)], [*shares, *([1.0] * len(rivals))])
    return [replace(one, p=p) for one, p in zip(looks, p_values, strict=False)]


def _with_pooled(evidence: Evidence) -> str:
    if not evidence.pooled:
        return ""
    own = int(evidence.this.sum())
    count = len(evidence.pooled)
    return f" and {f'of the {count} drops' if count > 1 else 'of the drop'} before it (its own are only {own})"


def earlier_drops(evidence: Evidence) -> Leg:
    """Not worse than the incumbent on the held-out rows of all earlier drops."""
    name, rules = "earlier drops", evidence.rules
    found = evidence.compared(~evidence.this)
    if found is None:
        return leg(name, LegResult.SKIPPED, "there are no held-out rows of earlier drops")
    text = f"on {found.rows} held-out rows of earlier drops {changed(found)}"
    allowed = f"{evidence.margin:+.3g} is allowed"
    if not can_prove(found, rules):
        return leg(name, LegResult.UNPROVEN, f"{text}: {found.groups} conversations are too few to prove that it is not worse", found)
    if found.is_not_worse(evidence.margin):
        return leg(name, LegResult.PASSED, f"{text}: not worse, {allowed}", found)
    if found.gain.high < -evidence.margin:
        return leg(name, LegResult.REGRESSION, f"{text}: worse, {allowed}", found)
    return leg(name, LegResult.UNPROVEN, f"{text}: no proof that it is not worse, {allowed}", found)


def coherence(evidence: Evidence) -> Leg:
    """An answer must cost more under another row's question than under its own, else the answers say nothing about their questions."""
    name, rules = "coherence", evidence.rules
    found = _shifted(evidence.shifts, evidence.task.this_drop, rules)
    if found is None:
        return leg(
            name, LegResult.UNPROVEN, "no answer could be scored under another row's question, so nothing shows that the answers belong to their questions"
        )
    change = f"under another row's question an answer's loss per token changes by {difference(found.difference)}, {found.rows} rows"
    if found.difference.low > 0 and can_prove(found, rules):
        return leg(name, LegResult.PASSED, f"the answers belong to their questions ({change})", found)
    if found.difference.low > 0:
        return leg(name, LegResult.UNPROVEN, f"too few conversations to show that the answers belong to their questions ({change})", found)
    return leg(name, LegResult.UNPROVEN, f"the answers carry no information about their questions, shuffled or shifted? ({change})", found)


def _shifted(shifts: Sequence[Scores], drop: str, rules: Rules) -> Comparison | None:
    """Own question against another row's question, over all shift files of the candidate (dev and gate do not share rows)."""
    parts = [(shift, np.array([of == drop for of, _ in shift.rows], dtype=np.bool_)) for shift in shifts]
    own, shifted, tokens = (
        np.concatenate(columns)
        for columns in zip(*((shift.losses["loss_own"][mask], shift.losses["loss_shifted"][mask], shift.tokens[mask]) for shift, mask in parts), strict=True)
    )
    groups = [group for shift, mask in parts for group, taken in zip(shift.groups, mask, strict=True) if taken]
    return compare(Paired(before=own / tokens, after=shifted / tokens, weights=tokens, groups=groups), rules) if groups else None


def enough(evidence: Evidence) -> Leg:
    """Enough held-out conversations to judge by, those of the pooled drops counted in."""
    name, needed = "enough evidence", evidence.rules.min_gate_groups
    groups = len({group for group, taken in zip(evidence.incumbent.groups, evidence.judged, strict=True) if taken})
    of = "of this drop and those before it" if evidence.pooled else "of this drop"
    if groups >= needed:
        return leg(name, LegResult.PASSED, f"{groups} held-out conversations {of}, {needed} are needed")
    do = f"drop at least {rows_for(needed)} rows, or look at it and `lorad jobs approve {evidence.task.job} --reason …`"
    return leg(name, LegResult.UNPROVEN, f"{groups} held-out conversations {of} are too few to judge by, {needed} are needed: {do}")


def rows_for(groups: int) -> int:
    """The smallest drop of distinct conversations (to the next ten) whose gate split has `groups` groups."""
    rows = math.ceil(groups / 10) * 10
    while held_out_groups(rows) < groups:
        rows += 10
    return rows


def made_up(evidence: Evidence) -> Leg:
    """Numbers of the stub backend promote nothing unless config says so."""
    if not evidence.best.made_up:
        return leg(MADE_UP, LegResult.SKIPPED, "the scores were measured")
    if evidence.rules.allow_stub:
        return leg(MADE_UP, LegResult.PASSED, "the scores are made up by the stub backend, which config allows (allow_stub)")
    return leg(MADE_UP, LegResult.UNPROVEN, "the scores are made up by the stub backend: never promoted unless config says allow_stub")
