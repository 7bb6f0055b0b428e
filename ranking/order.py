"""The order of the candidates: dev loss per token, each against the best and against the incumbent."""

from core.records import Candidate
from core.tasks import RankTask
from ranking.evidence import Interval, Order, Place, Rules
from ranking.scores import Scores, aligned, check_conditions, path_of, read_scores
from ranking.statistics import paired_bootstrap

BASE = "base"


def order(task: RankTask, rules: Rules) -> Order:
    """Candidates, best first: lowest mean dev loss, the earliest step where two are exactly equal. Raises EvidenceError.

    Training loss plays no part. A tie says that dev cannot tell two candidates apart; the lowest mean still goes first.
    """
    models = dict.fromkeys([*(candidate.id for candidate in task.candidates), task.incumbent])
    if f"dev/{BASE}" in task.scores:
        models[BASE] = None
    read = {model: read_scores(f"dev/{model}", path_of(task.scores, f"dev/{model}")) for model in models}
    conditions = check_conditions(list(read.values()), task.backend)
    first = read[task.incumbent]
    files = {model: aligned(scores, first) for model, scores in read.items()}
    ranked = sorted(task.candidates, key=lambda candidate: (files[candidate.id].standing().loss, candidate.step))
    best = files[ranked[0].id]
    places = tuple(_place(candidate, files[candidate.id], best, first, rules) for candidate in ranked)
    return Order(
        job=task.job,
        best=ranked[0].id,
        places=places,
        incumbent=first.standing(),
        base=files[BASE].standing() if BASE in files else None,
        rows=len(first.rows),
        groups=len(set(first.groups)),
        made_up=first.made_up,
        conditions=conditions,
        rules=rules,
        scores={f"dev/{model}": scores.file for model, scores in files.items()},
    )


def _place(candidate: Candidate, scores: Scores, best: Scores, incumbent: Scores, rules: Rules) -> Place:
    against_best = _difference(best, scores, rules)
    return Place(
        id=candidate.id,
        step=candidate.step,
        loss=scores.standing().loss,
        against_best=against_best,
        against_incumbent=_difference(incumbent, scores, rules),
        tied=against_best.low <= 0 <= against_best.high,
    )


def _difference(before: Scores, after: Scores, rules: Rules) -> Interval:
    return paired_bootstrap(after.loss - before.loss, before.tokens, before.groups, resamples=rules.resamples, seed=rules.seed)
