"""The order of the candidates, by what was measured on dev: loss per token first, and among those that it cannot tell apart
the task metric, then the suites. Of pairs: how often they are told apart, then the loss of the chosen answers.

A measure decides only where it proves a difference; where none does, the lowest mean loss goes first, then the earliest step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.records import Candidate
from core.tasks import RankTask
from ranking.evidence import BASE, Comparison, Interval, Order, Place, Rules, ScoreFile
from ranking.metrics.held import Held
from ranking.scores import EvidenceError, Scores, aligned, check_conditions, has_other_base, path_of, read_scores
from ranking.statistics import Floats, Mask, Paired, compare, paired_bootstrap
from ranking.suiteresults import paired_suite, suite_names
from ranking.taskmetric import answer_files, is_known_on_dev, metric_of

LOSS, PAIRS, CHOSEN, SUITES = "loss per token", "pair accuracy", "loss of chosen answers", "suites"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """One thing that candidates are compared by: the mean of each, and any two of them."""

    name: str
    means: Mapping[str, float]
    compared: Callable[[str, str], Comparison]
    higher_is_better: bool = False

    def leaders(self, ids: Sequence[str]) -> list[str]:
        """The best by its mean, and all that are not proven worse than it."""
        best = min(ids, key=lambda one: -self.means[one] if self.higher_is_better else self.means[one])
        return [one for one in ids if one == best or not self.compared(best, one).is_worse]


def order(task: RankTask, rules: Rules) -> Order:
    """Candidates, best first. Raises EvidenceError. Training loss plays no part."""
    models = dict.fromkeys([*(candidate.id for candidate in task.candidates), task.incumbent])
    if f"dev/{BASE}" in task.scores:
        models[BASE] = None
    read = {model: read_scores(f"dev/{model}", path_of(task.scores, f"dev/{model}")) for model in models}
    incumbent = read[task.incumbent]
    own = [scores for model, scores in read.items() if model != task.incumbent]
    conditions = check_conditions(own, task.backend, incumbent)
    first = read[task.candidates[0].id]
    files = {model: aligned(scores, first) for model, scores in read.items()}
    measures, more = _measures(task, rules, files)
    ranked = _ranked({candidate.id: candidate for candidate in task.candidates}, measures, files)
    groups = _tie_groups([candidate.id for candidate in ranked], measures[0])
    best = files[ranked[0].id]
    places = tuple(
        replace(
            _place(candidate, files[candidate.id], best, files[task.incumbent], rules),
            tied=groups[candidate.id] == 1,
            tie_group=groups[candidate.id],
            measures={measure.name: measure.means[candidate.id] for measure in measures if measure.name != LOSS},
        )
        for candidate in ranked
    )
    return Order(
        job=task.job,
        best=ranked[0].id,
        places=places,
        incumbent=files[task.incumbent].standing(),
        base=files[BASE].standing() if BASE in files else None,
        rows=len(first.rows),
        groups=len(set(first.groups)),
        made_up=first.made_up,
        conditions=conditions,
        rules=rules,
        scores={f"dev/{model}": scores.file for model, scores in files.items()} | more,
        measure=measures[0].name,
    )


def _place(candidate: Candidate, own: Scores, best: Scores, incumbent: Scores, rules: Rules) -> Place:
    return Place(
        id=candidate.id,
        step=candidate.step,
        loss=own.standing().loss,
        against_best=_difference(best, own, rules),
        against_incumbent=_against_incumbent(incumbent, own, rules),
        tied=False,
    )


def _ranked(candidates: Mapping[str, Candidate], measures: Sequence[_Measure], files: Mapping[str, Scores]) -> list[Candidate]:
    """Again and again the best of those that are left."""
    left, found = list(candidates), list[Candidate]()
    while left:
        leaders = left
        for measure in measures:
            leaders = measure.leaders(leaders) if len(leaders) > 1 else leaders
        best = min(leaders, key=lambda one: (files[one].standing().loss, candidates[one].step))
        found.append(candidates[best])
        left = [one for one in left if one != best]
    return found


def _tie_groups(ranked: Sequence[str], measure: _Measure) -> dict[str, int]:
    """The tie group of each: a candidate that is proven worse than the first of a group begins the next."""
    groups, number, head = dict[str, int](), 1, ranked[0]
    for one in ranked:
        if one != head and measure.compared(head, one).is_worse:
            number, head = number + 1, one
        groups[one] = number
    return groups


def _measures(task: RankTask, rules: Rules, files: Mapping[str, Scores]) -> tuple[list[_Measure], dict[str, ScoreFile]]:
    """What the candidates are compared by, in order of weight; and files that were read for it beside the scores."""
    ids = [candidate.id for candidate in task.candidates]
    loss = _measure(LOSS, {one: _losses(files[one]) for one in ids}, rules)
    measures, answers = [loss], dict[str, ScoreFile]()
    if all(files[one].right is not None and files[one].chosen is not None for one in ids):
        measures = [*_of_pairs(ids, files, rules), loss]
    if rules.metric and all(f"answers/dev/{one}" in task.scores for one in ids) and is_known_on_dev(rules):
        held = Held(task)
        measures.append(_metric(held, rules, files))
        answers = answer_files(held, rules, "dev", ids)
    suites, read = _suites(task, rules, ids)
    return [*measures, *suites], answers | read


def _measure(name: str, values: Mapping[str, Paired], rules: Rules) -> _Measure:
    """Args: values: of each candidate, its own values in `after`."""

    def compared(best: str, other: str) -> Comparison:
        one, two = values[best], values[other]
        return compare(
            Paired(before=one.after, after=two.after, weights=one.weights, groups=one.groups, measure=name, higher_is_better=one.higher_is_better), rules
        )

    means = {one: float((value.after * value.weights).sum() / value.weights.sum()) for one, value in values.items()}
    return _Measure(name=name, means=means, compared=compared, higher_is_better=next(iter(values.values())).higher_is_better)


def _losses(scores: Scores) -> Paired:
    values = scores.loss / scores.tokens
    return Paired(before=values, after=values, weights=scores.tokens, groups=scores.groups)


def _of_pairs(ids: Sequence[str], files: Mapping[str, Scores], rules: Rules) -> list[_Measure]:
    def part(scores: Scores, *, is_right: bool) -> Paired:
        values = scores.right if is_right else scores.chosen
        assert values is not None, "all candidates have both"
        weights = np.ones(len(values)) if is_right else scores.tokens
        values = values if is_right else values / scores.tokens
        found = Paired(before=values, after=values, weights=weights, groups=scores.groups, higher_is_better=is_right).taken(
            np.asarray(~np.isnan(values), dtype=np.bool_)
        )
        assert found is not None, "a column without a value is none"
        return found

    return [
        _measure(PAIRS, {one: part(files[one], is_right=True) for one in ids}, rules),
        _measure(CHOSEN, {one: part(files[one], is_right=False) for one in ids}, rules),
    ]


def _metric(held: Held, rules: Rules, files: Mapping[str, Scores]) -> _Measure:
    values = {candidate.id: metric_of(held, rules, "dev", files[candidate.id]) for candidate in held.task.candidates}
    known = _known(np.sum([one.after for one in values.values()], axis=0))
    taken = {one: found for one, value in values.items() if (found := value.taken(known)) is not None}
    if not taken:
        raise EvidenceError(f"the metric {rules.metric!r} says nothing about any dev row", hint="name another in ranking.metric", code="EVIDENCE_MISSING")
    return _measure(rules.metric, taken, rules)


def _known(values: Floats) -> Mask:
    known: Mask = ~np.isnan(values)
    return known


def _suites(task: RankTask, rules: Rules, ids: Sequence[str]) -> tuple[list[_Measure], dict[str, ScoreFile]]:
    """All suites that every candidate was scored on, as one measure."""
    names = [name for name in suite_names(task, rules) if all(f"suite/{name}/{one}" in task.scores for one in ids)]
    if not names or len(ids) < 2:
        return [], {}
    found = {one: [paired_suite(task, name, ids[0], one)[1] for name in names] for one in ids}
    values = {}
    for one, results in found.items():
        column = np.concatenate([result.values for result in results])
        groups = [f"{result.name}/{group}" for result in results for group in result.groups]
        values[one] = Paired(before=column, after=column, weights=np.ones(len(column)), groups=groups, higher_is_better=True)
    files = {f"suite/{result.name}/{one}": result.file for one, results in found.items() for result in results}
    return [_measure(SUITES, values, rules)], files


def _against_incumbent(incumbent: Scores, candidate: Scores, rules: Rules) -> Interval:
    """Loss per token against the incumbent. Across bases, where tokens differ, per token of the candidate."""
    if has_other_base(incumbent, candidate):
        return paired_bootstrap(candidate.loss - incumbent.loss, candidate.tokens, candidate.groups, resamples=rules.resamples, seed=rules.seed)
    return _difference(incumbent, candidate, rules)


def _difference(before: Scores, after: Scores, rules: Rules) -> Interval:
    return paired_bootstrap(after.loss - before.loss, before.tokens, before.groups, resamples=rules.resamples, seed=rules.seed)
