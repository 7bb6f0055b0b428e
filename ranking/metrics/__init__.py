"""Metrics of answers and losses, by name: `metric_values(metric_named(name), rows, replies, kit)`. No tensors, no network."""

from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError, Need, Place, Reply, Values
from ranking.metrics.registry import metric_named, metric_names
from ranking.metrics.values import mean_of, metric_values, weights

__all__ = [
    "Case",
    "Kind",
    "Kit",
    "Metric",
    "MetricError",
    "Need",
    "Place",
    "Reply",
    "Values",
    "mean_of",
    "metric_named",
    "metric_names",
    "metric_values",
    "weights",
]
