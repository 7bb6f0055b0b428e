"""Metrics of the loss on the rows' own answers: no answer is generated for them."""

import math
from collections.abc import Sequence

from ranking.metrics.metric import Case, Kind, Kit, Metric, Need


def _nll(cases: Sequence[Case], kit: Kit) -> list[float]:
    return [case.reply.loss / case.reply.tokens if case.reply.loss is not None and case.reply.tokens else math.nan for case in cases]


def _accuracy(cases: Sequence[Case], kit: Kit) -> list[float]:
    return [case.reply.correct / case.reply.tokens if case.reply.correct is not None and case.reply.tokens else math.nan for case in cases]


METRICS = (
    Metric(
        name="nll",
        about="loss of the row's own answer, nats per token",
        kind=Kind.OPEN,
        score=_nll,
        higher_is_better=False,
        needs=(Need.LOSSES,),
        per_token=True,
    ),
    Metric(
        name="perplexity",
        about="e to the loss per token: between how many tokens the model wavers",
        kind=Kind.OPEN,
        score=_nll,
        higher_is_better=False,
        needs=(Need.LOSSES,),
        per_token=True,
        shown=math.exp,
    ),
    Metric(
        name="token_accuracy",
        about="share of the tokens of the row's own answer that are the model's first choice",
        kind=Kind.SHARE,
        score=_accuracy,
        needs=(Need.LOSSES,),
        per_token=True,
    ),
)
