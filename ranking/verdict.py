"""The verdict on the best candidate: promote when every leg passes, refuse when a regression is proven, else hold.

Legs: this drop (the candidate must be better than the incumbent on its held-out rows), earlier drops (it must not be
worse by more than the margin on theirs), coherence (an answer must cost more under another row's question than under its
own, else the answers say nothing about their questions: shuffled or shifted), enough evidence, made up (the stub).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.records import VerdictWord
from core.splits import held_out_groups
from core.tasks import RankTask
from ranking.evidence import Comparison, Conditions, Leg, LegResult, Rules, Verdict
from ranking.order import BASE
from ranking.report import difference, sentence
from ranking.scores import EvidenceError, Scores, aligned, check_conditions, path_of, read_scores, read_shift
from ranking.statistics import compare

# With fewer groups nothing is proven at 95 %, even where all point one way (sign test: 2 * 0.5**6 = 0.03).
FEWEST_GROUPS = 6
MADE_UP = "made up"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """The score files of one verdict; `best` is in the row order of `incumbent`."""

    incumbent: Scores
    best: Scores
    shifts: tuple[Scores, ...]
    base: Scores | None
    conditions: Conditions

    @property
    def files(self) -> tuple[Scores, ...]:
        return (self.incumbent, self.best, *self.shifts, *([self.base] if self.base else []))


def _gather(task: RankTask) -> _Evidence:
    def read(key: str) -> Scores:
        return read_scores(key, path_of(task.scores, key))

    incumbent, best = read(f"gate/{task.incumbent}"), read(f"gate/{task.best}")
    keys = sorted(key for key in task.scores if key.startswith("shift") and key.endswith(f"/{task.best}")) or [f"shift/{task.best}"]
    shifts = tuple(read_shift(key, path_of(task.scores, key)) for key in keys)
    base = next((read(key) for key in (f"gate/{BASE}", f"dev/{BASE}") if key in task.scores), None)
    conditions = check_conditions([incumbent, best, *shifts, *([base] if base else [])], task.backend)
    return _Evidence(incumbent=incumbent, best=aligned(best, incumbent), shifts=shifts, base=base, conditions=conditions)


def judge(task: RankTask, rules: Rules) -> Verdict:
    """The verdict on `task.best`. Raises EvidenceError where a score file is missing, damaged or not comparable."""
    assert task.best is not None, "the spec of a verdict names the best candidate"
    evidence = _gather(task)
    is_this = [drop == task.this_drop for drop, _ in evidence.incumbent.rows]
    this = _compare(evidence, rules, is_this)
    legs = (
        _this_drop(this, rules),
        _earlier_drops(_compare(evidence, rules, [not this for this in is_this]), rules),
        _coherence(_shifted(evidence.shifts, task.this_drop, rules), rules),
        _enough(this.groups if this else 0, rules, task.job),
        _made_up(evidence.best.made_up, rules),
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
        scores={f"{scores.split}/{scores.model}": scores.file for scores in evidence.files},
    )
    return replace(verdict, sentence=sentence(verdict))


def without_evidence(task: RankTask, rules: Rules, error: EvidenceError) -> Verdict:
    """The verdict where the evidence could not be read: hold."""
    leg = _leg("evidence", LegResult.UNPROVEN, f"evidence missing: {error}")
    verdict = Verdict(
        job=task.job,
        word=VerdictWord.HOLD,
        this_drop=task.this_drop,
        candidate=task.best or "",
        incumbent=task.incumbent,
        legs=(leg,),
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


def _compare(evidence: _Evidence, rules: Rules, chosen: list[bool]) -> Comparison | None:
    mask = np.array(chosen, dtype=np.bool_)
    if not mask.any():
        return None
    before, after = evidence.incumbent, evidence.best
    groups = [group for group, taken in zip(before.groups, chosen, strict=True) if taken]
    return compare(before.loss[mask], after.loss[mask], before.tokens[mask], groups, rules)


def _shifted(shifts: Sequence[Scores], this_drop: str, rules: Rules) -> Comparison | None:
    """Own question against another row's question, over all shift files of the candidate (dev and gate do not share rows)."""
    parts = [(shift, np.array([drop == this_drop for drop, _ in shift.rows], dtype=np.bool_)) for shift in shifts]
    own, shifted, tokens = (
        np.concatenate(columns)
        for columns in zip(*((shift.losses["loss_own"][mask], shift.losses["loss_shifted"][mask], shift.tokens[mask]) for shift, mask in parts), strict=True)
    )
    groups = [group for shift, mask in parts for group, taken in zip(shift.groups, mask, strict=True) if taken]
    return compare(own, shifted, tokens, groups, rules) if groups else None


def _leg(name: str, result: LegResult, reason: str, comparison: Comparison | None = None) -> Leg:
    passed = result in (LegResult.PASSED, LegResult.SKIPPED)
    return Leg(name=name, passed=passed, result=result, reason=reason, comparison=comparison)


def _can_prove(comparison: Comparison, rules: Rules) -> bool:
    return comparison.groups >= min(FEWEST_GROUPS, rules.min_gate_groups)


def _this_drop(found: Comparison | None, rules: Rules) -> Leg:
    name = "this drop"
    if found is None:
        return _leg(name, LegResult.UNPROVEN, "no held-out row of this drop was scored")
    text = f"on {found.rows} held-out rows of this drop the loss per token {{}} from {found.before:.2f} to {found.after:.2f} ({difference(found.difference)})"
    if found.difference.high < 0 and _can_prove(found, rules):
        return _leg(name, LegResult.PASSED, text.format("falls"), found)
    if found.difference.low > 0 and _can_prove(found, rules):
        return _leg(name, LegResult.REGRESSION, text.format("rises"), found)
    return _leg(name, LegResult.UNPROVEN, f"{text.format('goes')}: no proof that the candidate is better", found)


def _earlier_drops(found: Comparison | None, rules: Rules) -> Leg:
    name = "earlier drops"
    if found is None:
        return _leg(name, LegResult.SKIPPED, "there are no held-out rows of earlier drops")
    text = (
        f"on {found.rows} held-out rows of earlier drops the loss per token goes from {found.before:.2f} to {found.after:.2f} ({difference(found.difference)})"
    )
    allowed = f"{rules.margin:+g} is allowed"
    if not _can_prove(found, rules):
        return _leg(name, LegResult.UNPROVEN, f"{text}: {found.groups} conversations are too few to prove that it is not worse", found)
    if found.difference.high < rules.margin:
        return _leg(name, LegResult.PASSED, f"{text}: not worse, {allowed}", found)
    if found.difference.low > rules.margin:
        return _leg(name, LegResult.REGRESSION, f"{text}: worse, {allowed}", found)
    return _leg(name, LegResult.UNPROVEN, f"{text}: no proof that it is not worse, {allowed}", found)


def _coherence(found: Comparison | None, rules: Rules) -> Leg:
    name = "coherence"
    if found is None:
        return _leg(
            name, LegResult.UNPROVEN, "no answer could be scored under another row's question, so nothing shows that the answers belong to their questions"
        )
    change = f"under another row's question an answer's loss per token changes by {difference(found.difference)}, {found.rows} rows"
    if found.difference.low > 0 and _can_prove(found, rules):
        return _leg(name, LegResult.PASSED, f"the answers belong to their questions ({change})", found)
    if found.difference.low > 0:
        return _leg(name, LegResult.UNPROVEN, f"too few conversations to show that the answers belong to their questions ({change})", found)
    return _leg(name, LegResult.UNPROVEN, f"the answers carry no information about their questions, shuffled or shifted? ({change})", found)


def _enough(groups: int, rules: Rules, job: str) -> Leg:
    name = "enough evidence"
    needed = rules.min_gate_groups
    if groups >= needed:
        return _leg(name, LegResult.PASSED, f"{groups} held-out conversations of this drop, {needed} are needed")
    do = f"drop at least {rows_for(needed)} rows, or look at it and `lorad jobs approve {job} --reason …`"
    return _leg(name, LegResult.UNPROVEN, f"{groups} held-out conversations of this drop are too few to judge by, {needed} are needed: {do}")


def rows_for(groups: int) -> int:
    """The smallest drop of distinct conversations (to the next ten) whose gate split has `groups` groups."""
    rows = math.ceil(groups / 10) * 10
    while held_out_groups(rows) < groups:
        rows += 10
    return rows


def _made_up(made_up: bool, rules: Rules) -> Leg:
    if not made_up:
        return _leg(MADE_UP, LegResult.SKIPPED, "the scores were measured")
    if rules.allow_stub:
        return _leg(MADE_UP, LegResult.PASSED, "the scores are made up by the stub backend, which config allows (allow_stub)")
    return _leg(MADE_UP, LegResult.UNPROVEN, "the scores are made up by the stub backend: never promoted unless config says allow_stub")
