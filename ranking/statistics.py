"""How sure a difference between two models is: paired bootstrap over conversations, exact McNemar, Holm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking.evidence import Comparison, Interval, Rules

PERCENTILES = (2.5, 97.5)  # of the resampled differences: a 95 % interval
BLOCK = 1 << 20  # draws at a time: some 20 MB, whatever the number of groups and resamples


Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two models on the same rows: the value of row i is `before[i]`, `after[i]`, a mean over `weights[i]` units of conversation `groups[i]`.

    Units are tokens, bytes or items; all weights are above 0.
    """

    before: Floats
    after: Floats
    weights: Floats
    groups: Sequence[str]
    measure: str = "loss per token"
    higher_is_better: bool = False

    def taken(self, mask: Mask) -> "Paired | None":
        """Only these rows; None where there are none."""
        if not mask.any():
            return None
        groups = [group for group, taken in zip(self.groups, mask, strict=True) if taken]
        return Paired(
            before=self.before[mask],
            after=self.after[mask],
            weights=self.weights[mask],
            groups=groups,
            measure=self.measure,
            higher_is_better=self.higher_is_better,
        )


def resampled(columns: Sequence[Floats], groups: Sequence[str], *, resamples: int, seed: int) -> list[Floats]:
    """Sums of each column over whole groups drawn with replacement: for each column float64 [resamples].

    The same seed draws the same groups for every comparison on these rows. Memory does not grow with groups x resamples.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = [np.bincount(member, weights=column) for column in columns]  # [groups] each
    num_groups = len(sums[0])
    rng = np.random.default_rng(seed)
    found = [np.empty(resamples) for _ in columns]
    block = max(1, BLOCK // num_groups)
    for start in range(0, resamples, block):
        drawn_BG = rng.integers(0, num_groups, size=(min(block, resamples - start), num_groups), dtype=np.int32)
        for column, sums_G in zip(found, sums, strict=True):
            column[start : start + len(drawn_BG)] = sums_G[drawn_BG].sum(axis=1)
    return found


def paired_bootstrap(difference: Floats, tokens: Floats, groups: Sequence[str], *, resamples: int, seed: int) -> Interval:
    """Mean difference of loss per token with its 95 % percentile interval.

    Method: paired, clustered percentile bootstrap of a ratio. Both models scored the same rows, so only the row's
    difference is resampled (paired: Koehn 2004, "Statistical significance tests for machine translation evaluation").
    Rows of one conversation are not independent, so whole groups are drawn with replacement (cluster bootstrap: Field and
    Welsh 2007, "Bootstrapping clustered data"). The estimate is sum(difference) / sum(tokens) over the drawn groups, so
    that long answers weigh by their tokens; the interval is that of the percentiles (Efron and Tibshirani 1993, chapter 13).

    Args: difference: float64 [rows], nats, candidate - incumbent. tokens: float64 [rows], all > 0. groups: one a row.
    """
    assert len(difference) == len(tokens) == len(groups) > 0, "rows, tokens and groups go together"
    drawn, units = resampled([difference, tokens], groups, resamples=resamples, seed=seed)
    return _interval(float(difference.sum() / tokens.sum()), drawn / units)


def compare(paired: Paired, rules: Rules, *, margin: float | None = None, noise: float = 0.0) -> Comparison:
    """Both models by the measure, with the interval of after - before and, of a share, of after / before. The bootstrap is that of `paired_bootstrap`."""
    total = paired.weights.sum()
    columns = [paired.before * paired.weights, paired.after * paired.weights, paired.weights]
    before, after, units = resampled(columns, paired.groups, resamples=rules.resamples, seed=rules.seed)
    means = [float(column.sum() / total) for column in columns[:2]]
    groups = len(set(paired.groups))
    return Comparison(
        before=means[0],
        after=means[1],
        difference=_interval(means[1] - means[0], (after - before) / units),
        rows=len(paired.weights),
        groups=groups,
        tokens=int(total),
        measure=paired.measure,
        higher_is_better=paired.higher_is_better,
        margin=margin,
        p=_p_value(paired, after - before, groups),
        ratio=_interval(_ratio(means[1], means[0]), np.where(before > 0, after / np.where(before > 0, before, 1.0), 1.0)) if paired.higher_is_better else None,
        noise=noise,
    )


def _interval(mean: float, values: Floats) -> Interval:
    low, high = np.percentile(values, PERCENTILES)
    return Interval(mean=mean, low=float(low), high=float(high))


def _ratio(after: float, before: float) -> float:
    """after / before; an incumbent that scores nothing has nothing to retain: 1."""
    return after / before if before > 0 else 1.0


def _p_value(paired: Paired, drawn: Floats, groups: int) -> float:
    """Of no difference, two-sided: exact where each item is by itself and right or wrong, else by where the resamples fall."""
    is_binary = paired.higher_is_better and bool(np.isin(paired.before, (0.0, 1.0)).all() and np.isin(paired.after, (0.0, 1.0)).all())
    if is_binary and groups == len(paired.groups) and bool((paired.weights == paired.weights[0]).all()):
        return mcnemar(paired.before, paired.after)
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def mcnemar(before: Floats, after: Floats) -> float:
    """Exact two-sided p of "both are right equally often": a sign test on the items where only one of them is right (McNemar 1947).

    Args: before, after: float64 [items], 0 or 1.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    won, lost = int((after > before).sum()), int((after < before).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p_values: Sequence[float], weights: Sequence[float] = ()) -> list[float]:
    """p-values adjusted for that many looks, in the order given: each below alpha is proven, all together at alpha (Holm 1979).

    Args: weights: how much of alpha each look has before the others, above 0; empty: all the same.
    """
    shares = list(weights) or [1.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index] / shares[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        left = sum(shares[other] for other in order[place:])
        largest = max(largest, min(1.0, p_values[index] * left / shares[index]))
        adjusted[index] = largest
    return adjusted
