"""The task metric that config names, over the held-out rows of one split."""

from collections.abc import Sequence

import numpy as np

from core.errors import LoradError
from ranking.evidence import Rules, ScoreFile
from ranking.metrics import Need, metric_named
from ranking.metrics.held import Held
from ranking.scores import EvidenceError, Scores, missing
from ranking.statistics import Paired


def metric_of(held: Held, rules: Rules, split: str, scores: Scores) -> Paired:
    """The task metric of one model, in `after`, on all rows of `scores`: value and weight are NaN where a row was not answered,
    the value also where the metric says nothing about it. Raises EvidenceError."""
    try:
        metric = metric_named(rules.metric)
        if not metric.is_quality:
            missing(f"ranking.metric {metric.name!r} is not a share from 0 to 1 of which more is better", "`lorad metrics list` shows which are")
        found = held.measured(metric, split, scores.model)
    except EvidenceError:
        raise
    except LoradError as error:
        raise EvidenceError(f"the metric {rules.metric!r} could not be worked out: {error.what}", hint=error.hint, code="EVIDENCE_MISSING") from None
    place_of = {place: index for index, place in enumerate(scores.rows)}
    if strangers := [place for place in found.places if place not in place_of]:
        missing(f"answers/{split}/{scores.model} answers {len(strangers)} rows that were not scored")
    known = [place_of[place] for place in found.places]
    values, weight = np.full(len(scores.rows), np.nan), np.full(len(scores.rows), np.nan)
    values[known], weight[known] = found.values, found.weights
    return Paired(before=values, after=values, weights=weight, groups=scores.groups, measure=metric.name, higher_is_better=True)


def is_known_on_dev(rules: Rules) -> bool:
    """Whether the metric can order candidates: a judge is asked about the best one alone."""
    return Need.JUDGE not in metric_named(rules.metric).needs


def answer_files(held: Held, rules: Rules, split: str, models: Sequence[str]) -> dict[str, ScoreFile]:
    """The answer files that the metric looked at, by key. Raises EvidenceError where they were not made under the same conditions."""
    if Need.ANSWERS not in metric_named(rules.metric).needs:
        return {}
    found = [held.answers(split, model) for model in models]
    for answers in found[1:]:
        found[0].check_alike(answers)
    return {f"answers/{split}/{answers.model}": answers.file for answers in found}
