"""Ranking profiles: a set of metrics with targets, each shown as met or not with its interval. They decide nothing: legs do."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from core.config import Config
from core.errors import ConfigError, LoradError
from core.evaluation import RankingConfig
from ranking.evidence import Interval, MetricValue, Rules
from ranking.metrics.held import Held, Measured
from ranking.metrics.metric import Metric
from ranking.metrics.registry import metric_named, where_from
from ranking.scores import EvidenceError
from ranking.statistics import paired_bootstrap

PROFILES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"persona": MappingProxyType({"persona_consistency": 0.90, "relevance": 0.85, "authenticity": 0.80, "factual_recall": 0.95})}
)
ALPHA = 0.05  # 1 - the confidence of every interval


def targets_of(config: RankingConfig) -> Mapping[str, float]:
    """Metric -> target: those of the profile, with the config's own instead or beside. Raises ConfigError for an unknown profile."""
    if not config.profile:
        return config.targets
    if config.profile not in PROFILES:
        hint = f"known are {', '.join(PROFILES)}"
        raise ConfigError(f"ranking.profile: unknown profile {config.profile!r}", hint=hint, code="RANKING_PROFILE_UNKNOWN")
    return {**PROFILES[config.profile], **config.targets}


def check_metrics(config: Config) -> None:
    """Raises ConfigError where ranking names a metric or a profile that is not there, or a metric that is no quality.

    Code of an installed metric that is named runs.
    """
    ranking = config.ranking
    for name in targets_of(ranking):
        metric_named(name)
    if ranking.metric and not (metric := metric_named(ranking.metric)).is_quality:
        what = f"ranking.metric: {metric.name!r} is no quality from 0 to 1 of which more is better"
        raise ConfigError(what, hint="`lorad metrics list` names those that are", code="METRIC_NO_QUALITY")


def shown(held: Held, rules: Rules) -> tuple[MetricValue, ...]:
    """The task metric and the profile's, of the best candidate and the incumbent on the gate split. One that cannot run says why."""
    config = held.ranking
    targets = targets_of(config)
    names = dict.fromkeys([*([config.metric] if config.metric else []), *targets])
    return tuple(_shown(name, targets.get(name), held, rules) for name in names)


def _shown(name: str, target: float | None, held: Held, rules: Rules) -> MetricValue:
    task = held.task
    try:
        metric = metric_named(name)
        after = held.measured(metric, "gate", task.best or "").known()
        before = held.measured(metric, "gate", task.incumbent).known()
    except EvidenceError as error:
        return MetricValue(metric=name, target=target, why=error.what)
    except LoradError as error:  # no sentence model, no library, another package's metric that fails: the others are shown
        return MetricValue(metric=name, target=target, why=f"{error.what}: {error.hint}")
    if not len(after.values):
        return MetricValue(metric=name, target=target, why="it says nothing about any of these rows", source=where_from(metric))
    value = interval_of(metric, after, rules)
    incumbent = _mean(metric, before)
    return MetricValue(
        metric=name,
        value=value,
        before=None if math.isnan(incumbent) else incumbent,
        rows=len(after.values),
        groups=len(set(after.groups)),
        target=target,
        met=None if target is None else value.mean >= target if metric.higher_is_better else value.mean <= target,
        source=where_from(metric),
    )


def _mean(metric: Metric, found: Measured) -> float:
    return metric.shown(float(np.average(found.values, weights=found.weights))) if len(found.values) else math.nan


def interval_of(metric: Metric, found: Measured, rules: Rules) -> Interval:
    """The metric's mean over rows with its 95 % interval, as it is shown: whole conversations are drawn with replacement.

    Where every row is at an end of the scale, resamples are all alike and prove nothing: the interval is then the exact one
    of that many conversations without a single exception (Clopper and Pearson 1934).
    """
    if metric.is_quality and (at := found.values[0]) in (0.0, 1.0) and bool((found.values == at).all()):
        reach = 1 - (ALPHA / 2) ** (1 / len(set(found.groups)))
        return Interval(mean=float(at), low=max(0.0, float(at) - reach), high=min(1.0, float(at) + reach))
    drawn = paired_bootstrap(found.values * found.weights, found.weights, found.groups, resamples=rules.resamples, seed=rules.seed)
    return Interval(mean=metric.shown(drawn.mean), low=metric.shown(drawn.low), high=metric.shown(drawn.high))
