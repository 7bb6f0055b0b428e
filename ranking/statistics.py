"""How sure a difference of loss per token is: paired bootstrap over conversations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranking.evidence import Comparison, Interval, Rules

PERCENTILES = (2.5, 97.5)  # of the resampled differences: a 95 % interval
BLOCK = 1 << 20  # draws at a time: some 20 MB, whatever the number of groups and resamples


Floats = NDArray[np.float64]


def paired_bootstrap(difference: Floats, tokens: Floats, groups: Sequence[str], *, resamples: int, seed: int) -> Interval:
    """Mean difference of loss per token with its 95 % percentile interval.

    Method: paired, clustered percentile bootstrap of a ratio. Both models scored the same rows, so only the row's
    difference is resampled (paired: Koehn 2004, "Statistical significance tests for machine translation evaluation").
    Rows of one conversation are not independent, so whole groups are drawn with replacement (cluster bootstrap: Field and
    Welsh 2007, "Bootstrapping clustered data"). The estimate is sum(difference) / sum(tokens) over the drawn groups, so
    that long answers weigh by their tokens; the interval is that of the percentiles (Efron and Tibshirani 1993, chapter 13).

    Args: difference: float64 [rows], nats, candidate - incumbent. tokens: float64 [rows], all > 0. groups: one a row.
    The same seed draws the same groups for every comparison on these rows. Memory does not grow with groups x resamples.
    """
    assert len(difference) == len(tokens) == len(groups) > 0, "rows, tokens and groups go together"
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums_G = np.bincount(member, weights=difference)  # G: groups
    tokens_G = np.bincount(member, weights=tokens)
    num_groups = len(sums_G)
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    block = max(1, BLOCK // num_groups)
    for start in range(0, resamples, block):
        drawn_BG = rng.integers(0, num_groups, size=(min(block, resamples - start), num_groups), dtype=np.int32)
        ratios[start : start + len(drawn_BG)] = sums_G[drawn_BG].sum(axis=1) / tokens_G[drawn_BG].sum(axis=1)
    low, high = np.percentile(ratios, PERCENTILES)
    return Interval(mean=float(sums_G.sum() / tokens_G.sum()), low=float(low), high=float(high))


def compare(before: Floats, after: Floats, tokens: Floats, groups: Sequence[str], rules: Rules) -> Comparison:
    """Two losses (nats a row) of the same rows, per token, with the interval of after - before."""
    interval = paired_bootstrap(after - before, tokens, groups, resamples=rules.resamples, seed=rules.seed)
    total = tokens.sum()
    return Comparison(
        before=float(before.sum() / total),
        after=float(after.sum() / total),
        difference=interval,
        rows=len(tokens),
        groups=len(set(groups)),
        tokens=int(total),
    )
