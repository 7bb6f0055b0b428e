"""The values of a metric over rows, and their mean: what a verdict and a report ask for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from core.errors import LoradError
from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError, Need, Place, Reply, Values
from ranking.scores import HINT, EvidenceError
from rendering.answers import question_of
from rendering.rows import Row

ROUNDING = 1e-6  # how far outside 0 to 1 a sum of shares may come out


def metric_values(metric: Metric, rows: Sequence[Row], replies: Mapping[Place, Reply], kit: Kit) -> Values:
    """One number for each row, in their order: float64 [rows], NaN where the metric says nothing about a row.

    Raises EvidenceError where a row lacks the reply that the metric needs, MetricError where it cannot be worked out here or
    fails (a missing library or model, another package's metric that raises or gives what is no value).
    """
    found = np.full(len(rows), np.nan)
    cases = [(place, case) for place, row in enumerate(rows) if (case := _case(metric, row, replies)) is not None]
    if Need.EMBEDDINGS in metric.needs:
        kit.vectors([])  # says why before anything is worked out
    values = _scored(metric, [case for _, case in cases], kit)
    found[[place for place, _ in cases]] = values
    return found


def weights(metric: Metric, rows: Sequence[Row], replies: Mapping[Place, Reply]) -> Values:
    """How much each row counts in the metric's mean: its supervised tokens, or 1. float64 [rows]."""
    return np.array([replies[row.drop, row.line].tokens if metric.per_token else 1 for row in rows], dtype=np.float64)


def _case(metric: Metric, row: Row, replies: Mapping[Place, Reply]) -> Case | None:
    question = question_of(row)
    if question is None:
        return None
    reply = replies.get((row.drop, row.line), Reply())
    if Need.ANSWERS in metric.needs and reply.answer is None:
        raise _missing(f"line {row.line} of {row.drop!r} has no answer, which the metric {metric.name!r} needs")
    if Need.LOSSES in metric.needs and reply.loss is None:
        raise _missing(f"line {row.line} of {row.drop!r} has no loss, which the metric {metric.name!r} needs")
    return Case(row=row, question=question, reply=reply)


def _missing(what: str) -> EvidenceError:
    return EvidenceError(what, hint=HINT, code="EVIDENCE_MISSING")


def _scored(metric: Metric, cases: Sequence[Case], kit: Kit) -> Values:
    if not cases:
        return np.empty(0)
    try:
        values = np.asarray(metric.score(cases, kit), dtype=np.float64)
    except LoradError:
        raise
    except Exception as error:  # a plugin call: another package's code may raise anything
        raise _failed(metric, f"fails: {type(error).__name__}: {error}") from error
    if values.shape != (len(cases),):
        raise _failed(metric, f"gives {values.shape} values for {len(cases)} rows")
    known = values[~np.isnan(values)]
    if not np.isfinite(known).all():
        raise _failed(metric, "gives a value that is not finite")
    if metric.kind is not Kind.OPEN and (known.min(initial=0) < -ROUNDING or known.max(initial=1) > 1 + ROUNDING):
        raise _failed(metric, f"is a {metric.kind} and gives values from {known.min():g} to {known.max():g}")
    if metric.kind is Kind.BINARY and not np.isin(known, (0, 1)).all():
        raise _failed(metric, f"is binary and gives {next(value for value in known if value not in (0, 1)):g}")
    return values if metric.kind is Kind.OPEN else np.clip(values, 0, 1)


def _failed(metric: Metric, what: str) -> MetricError:
    return MetricError(f"the metric {metric.name!r} {what}", hint="correct the metric, or name another in ranking.metric", code="METRIC_FAILED")


def mean_of(metric: Metric, values: Values, weight: Values) -> float:
    """The metric over rows as it is shown; NaN where it says nothing about any of them."""
    known = ~np.isnan(values) & (weight > 0)
    return metric.shown(float((values[known] * weight[known]).sum() / weight[known].sum())) if known.any() else math.nan
