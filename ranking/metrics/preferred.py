"""The judge's result as a metric: how often this model's answer is preferred to the incumbent's."""

import math
from collections.abc import Sequence

from ranking.metrics.metric import Case, Kind, Kit, Metric, MetricError, Need


def _judged(cases: Sequence[Case], kit: Kit) -> list[float]:
    if not kit.against:
        raise MetricError("no judge was asked", hint="name url and model in ranking.judge", code="METRIC_NOT_RUN")
    return [kit.against.get((case.row.drop, case.row.line), math.nan) for case in cases]


METRICS = (
    Metric(
        name="judge",
        about="how often a judge prefers the answer to the incumbent's; a tie counts a half",
        kind=Kind.SHARE,
        score=_judged,
        needs=(Need.ANSWERS, Need.JUDGE),
    ),
)
