"""What ranking writes: `ranking.json` (the order) and `verdict.json` (the verdict with all that it rests on).

Losses are nats per supervised token. Files are named by key and SHA-256, never by path: a verdict travels with its release.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from core.records import VerdictWord

FORMAT = 1
RANKING = "ranking.json"
VERDICT = "verdict.json"
BASE = "base"  # model id of the base
ALPHA = 0.05


class LegResult(StrEnum):
    """How one leg of a verdict ended."""

    PASSED = "passed"
    SKIPPED = "skipped"  # nothing to judge; does not stand in the way
    WARNED = "warned"  # looks worse, on too few items to stand in the way
    UNPROVEN = "unproven"  # holds the job
    REGRESSION = "regression"  # proven worse: refuses the job


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference, or a ratio, with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same rows, by one measure; `difference` is that of after - before."""

    before: float
    after: float
    difference: Interval
    rows: int
    groups: int
    tokens: int
    measure: str = "loss per token"  # what was compared, in words
    higher_is_better: bool = False
    margin: float | None = None  # how much worse counts as not worse; None: no margin was asked for
    p: float | None = None  # of no difference, two-sided: exact McNemar for answers that are right or wrong, else by the resamples
    ratio: Interval | None = None  # after / before, of shares from 0 to 1
    noise: float = 0.0  # what the incumbent differs from itself: a smaller difference is none

    @property
    def gain(self) -> Interval:
        """The difference turned so that above 0 is better."""
        found = self.difference
        return found if self.higher_is_better else Interval(mean=-found.mean, low=-found.high, high=-found.low)

    @property
    def is_better(self) -> bool:
        """Whether the candidate is proven better at 95 %."""
        return self.gain.low > self.noise and self._is_significant

    @property
    def is_worse(self) -> bool:
        """Whether the candidate is proven worse at 95 %."""
        return self.gain.high < -self.noise and self._is_significant

    def is_not_worse(self, margin: float) -> bool:
        """Whether it is proven that the candidate is not worse by as much as `margin`."""
        return self.gain.low > -margin

    @property
    def _is_significant(self) -> bool:
        return self.p is None or self.p < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One model on one split."""

    model: str
    split: str
    loss: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFile:
    """A score file that was read."""

    sha256: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what the scores were made; equal in all files that are compared."""

    backend: str
    base_sha256: str
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that a verdict was given under."""

    resamples: int
    seed: int
    margin: float
    min_gate_groups: int
    allow_stub: bool
    confidence: float = 0.95
    rule: str = "superior"  # or retained
    retention: float = 0.95
    floor: float | None = None
    metric: str = ""
    suite_margin: float = 0.02
    suite_margins: Mapping[str, float] = field(default_factory=dict)
    critical_suites: tuple[str, ...] = ()  # empty: all
    suites: tuple[str, ...] = ()  # named in config, so that their results must be there
    rating: bool = False

    def margin_of(self, suite: str) -> float:
        """How much worse a candidate may be on a suite and still count as not worse."""
        return self.suite_margins.get(suite, self.suite_margin)

    def is_critical(self, suite: str) -> bool:
        """Whether a proven regression on a suite refuses; else it holds."""
        return not self.critical_suites or suite in self.critical_suites


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One candidate in the order. `tied`: dev loss cannot tell it from the best (which is tied with itself)."""

    id: str
    step: int
    loss: float
    against_best: Interval
    against_incumbent: Interval
    tied: bool
    tie_group: int = 1  # candidates of one group cannot be told apart by dev loss from the first of it
    measures: Mapping[str, float] = field(default_factory=dict)  # what else was known of it on dev: task metric, suites, pair accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`ranking.json`: candidates by dev loss per token, best first."""

    format: int = FORMAT
    job: str
    best: str
    places: tuple[Place, ...]
    incumbent: Standing
    base: Standing | None
    rows: int
    groups: int
    made_up: bool
    conditions: Conditions
    rules: Rules
    scores: Mapping[str, ScoreFile]
    measure: str = "loss per token"  # that the order went by


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One question of a verdict and its answer."""

    name: str
    passed: bool
    result: LegResult
    reason: str
    comparison: Comparison | None = None
    also: tuple[Comparison, ...] = ()  # other measures of the same rows that were looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A metric of the candidate on held-out rows, shown beside the legs. Without a value `why` says why it did not run."""

    metric: str
    value: Interval | None = None
    before: float | None = None  # the incumbent's
    rows: int = 0
    groups: int = 0
    target: float | None = None
    met: bool | None = None  # None: it has no target, or no value
    why: str = ""
    source: str = "lorad"  # the library behind it, with version


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a judge said of the answers of candidate and incumbent, over all pairs; both orders, so that place does not count."""

    judge: str  # name of the model that was asked
    wins: int  # the candidate's answer is the better one in both orders
    ties: int  # undecided, or the orders disagree
    losses: int
    votes: int  # on each pair in each order
    disagreements: int  # ties where the two orders said opposite things
    words: tuple[float, float]  # mean length of the answers of incumbent and candidate: judges like long ones
    share: Interval  # of pairs won, ties a half, with its 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`verdict.json`. `base` is there for the reader's sense of proportion; it decides nothing."""

    format: int = FORMAT
    job: str
    word: VerdictWord
    sentence: str = ""
    this_drop: str
    candidate: str
    incumbent: str
    base: Standing | None = None
    legs: tuple[Leg, ...]
    looks: int
    made_up: bool = False
    conditions: Conditions | None = None  # None where the evidence could not be read
    rules: Rules
    scores: Mapping[str, ScoreFile] = field(default_factory=dict)
    pooled: tuple[str, ...] = ()  # earlier drops whose rows were judged with those of this drop, latest first
    metrics: tuple[MetricValue, ...] = ()  # the task metric and those of the profile, shown
    judged: Judged | None = None
