"""What a person's blind choices prove: exact sign test, and the share of choices with its exact interval. Pure."""

from dataclasses import dataclass

from ranking.evidence import ALPHA, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How often the candidate's answer was preferred, of the pairs where one was; ties say nothing about a preference and are left out."""

    share: Interval
    p: float
    """Two-sided, of no preference."""
    decided: int

    @property
    def is_better(self) -> bool:
        """Whether the candidate's answers are proven to be preferred."""
        return self.p < ALPHA and self.share.mean > 0.5

    @property
    def is_worse(self) -> bool:
        """Whether the other's are."""
        return self.p < ALPHA and self.share.mean < 0.5


def preference(better: int, worse: int) -> Preference:
    """Sign test (binomial, p = 1/2) on independent pairs, and the interval of Clopper and Pearson (1934); nothing decided: 0 to 1."""
    if not better + worse:
        return Preference(share=Interval(mean=0.5, low=0.0, high=1.0), p=1.0, decided=0)
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    test = binomtest(better, better + worse)
    ends = test.proportion_ci(confidence_level=1 - ALPHA, method="exact")
    return Preference(share=Interval(mean=better / (better + worse), low=float(ends.low), high=float(ends.high)), p=float(test.pvalue), decided=better + worse)
