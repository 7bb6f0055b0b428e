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


class LegResult(StrEnum):
    """How one leg of a verdict ended."""

    PASSED = "passed"
    SKIPPED = "skipped"  # nothing to judge; does not stand in the way
    UNPROVEN = "unproven"  # holds the job
    REGRESSION = "regression"  # proven worse: refuses the job


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference of loss per token with its 95 % interval; below 0 is better."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two losses per token on the same rows; `difference` is that of after - before."""

    before: float
    after: float
    difference: Interval
    rows: int
    groups: int
    tokens: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One candidate in the order. `tied`: the interval of its difference to the best holds 0 (the best is tied with itself)."""

    id: str
    step: int
    loss: float
    against_best: Interval
    against_incumbent: Interval
    tied: bool


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One question of a verdict and its answer."""

    name: str
    passed: bool
    result: LegResult
    reason: str
    comparison: Comparison | None = None


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
