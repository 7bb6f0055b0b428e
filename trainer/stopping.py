"""When a generated suite has said enough: a sequential test of a candidate against a reference, item by item. Pure.

The rule. Items come in the order of the hashes of their ids, the same for every model. After each one two bets are looked at,
of the differences d = value of the candidate - value of the reference, which lie between -1 and 1:

- against "the candidate is worse by the margin or more": its wealth is the product of 1 + b (d + margin);
- against "the candidate is not worse by the margin": its wealth is the product of 1 - b (d + margin),

each as the mean over the stakes b of BETS: a small one for a reference that differs on many items, a large one for few.

Where the claim is true, its bet cannot be expected to win, so that its wealth ever reaches 1 / LEVEL with a probability of at
most LEVEL, whenever one looks (Ville's inequality; test martingales as in Waudby-Smith and Ramdas, arXiv 2010.09686). The suite
stops once either bet has: more items could not change what is proven. Without a reference, and for items scored by likelihood,
nothing stops. A result that stopped early is no result of the model by itself: it is never kept for another comparison.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LEVEL = 0.025  # the one-sided level of a 95 % interval
BETS = (0.2, 0.5, 0.95)  # shares of the wealth
RULE = f"sequential test of paired differences (bets of {', '.join(map(str, BETS))}, level {LEVEL:g}), items in order of the SHA-256 of their ids"

Outcome = Literal["", "worse", "not worse"]


def place_of(item: str) -> str:
    """What items are sorted by."""
    return hashlib.sha256(item.encode()).hexdigest()


@dataclass(slots=True, kw_only=True)
class Sequential:
    """One candidate on one suite. `hear` every item; `outcome` says whether it is enough."""

    against: str
    """Model id of the reference."""
    reference: Mapping[str, float]
    """Value of each item, from a whole run."""
    margin: float
    outcome: Outcome = ""
    _worse: list[float] = field(default_factory=lambda: [0.0] * len(BETS), init=False)  # logarithms of wealth, by stake
    _not_worse: list[float] = field(default_factory=lambda: [0.0] * len(BETS), init=False)

    def hear(self, item: str, value: float) -> None:
        """The candidate's value of one more item. Raises KeyError for an item that the reference has not."""
        shift = value - self.reference[item] + self.margin
        for place, bet in enumerate(BETS):
            self._not_worse[place] += _log(1.0 + bet * shift)
            self._worse[place] += _log(1.0 - bet * shift)
        if self.outcome:
            return
        if _wealth(self._worse) >= 1.0 / LEVEL:
            self.outcome = "worse"
        elif _wealth(self._not_worse) >= 1.0 / LEVEL:
            self.outcome = "not worse"


def _log(factor: float) -> float:
    return math.log(factor) if factor > 0 else -math.inf  # ruined


def _wealth(logs: list[float]) -> float:
    return math.fsum(map(math.exp, logs)) / len(logs)
