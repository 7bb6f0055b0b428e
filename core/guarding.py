"""What a box's own guard decides: whether a rehearsal passed, whom a canary answers, when a new release is rolled back. Pure.

A share of bad answers counts as worse when it is above the release before by more than is tolerated, and the whole interval
of the difference (`core.trends.difference`, 99.5 %, as it is looked at again and again) lies above zero. Latency is compared
on the canary prompts alone: both sides are asked the same at the same time, so that neither load nor long prompts count.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from statistics import median

from core.trends import Counted, difference
from core.wire import Trial, TrialResult, Watch

PERCENTILE = 0.95
LEAST_MS = 25.0  # a difference in latency below this is the machine's own unrest, not the release's
BROKEN_SHARE = 0.5  # of the canary prompts, from which a round by itself proves that a release is broken
REPEATED_WORDS = 12  # from so many words on, an answer of hardly any different ones is stuck
STUCK_SHARE = 0.2  # different words of all, up to which it is
RUBBISH_NATS = -8.0  # a token, under the base. Measured on a 135M model: adapters of noise at -8.3 to -9.7, such as leave answers whole at -0.3 to -5.3


class Phase(StrEnum):
    """How far a watch is (`core.wire.WatchState.phase`)."""

    SHADOW = "shadow"
    CANARY = "canary"
    ALL = "all"
    PASSED = "passed"
    ROLLED_BACK = "rolled_back"


OPEN = frozenset({Phase.SHADOW, Phase.CANARY, Phase.ALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of the same prompts asked of one side. `broken`: answered, but nothing that a person could use."""

    requests: int = 0
    errors: int = 0
    broken: int = 0
    first_ms: tuple[float, ...] = ()  # to the first token, of those that answered
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """Errors and broken answers together."""
        return self.errors + self.broken

    def __add__(self, other: "Asked") -> "Asked":
        return Asked(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            broken=self.broken + other.broken,
            first_ms=self.first_ms + other.first_ms,
            seconds=self.seconds + other.seconds,
        )


NOTHING = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What was counted of one side: its users' answers, their ratings, and the canary prompts of all rounds."""

    answers: int = 0
    errors: int = 0
    rated: int = 0
    negative: int = 0
    canary: Asked = NOTHING

    @property
    def seen(self) -> int:
        """Answers and errors, of users and canary prompts."""
        return self.answers + self.errors + self.canary.requests

    @property
    def failed(self) -> int:
        """Of those seen."""
        return self.errors + self.canary.bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What is to be done about a watched release: nothing (both false), let it pass, or roll it back, and why."""

    passes: bool = False
    rolls_back: bool = False
    reason: str = ""


# ---------------------------------------------------------------- before the flip


def rehearsed(trial: Trial, release: str, at: datetime, new: Asked, live: Asked) -> TrialResult:
    """The result of a rehearsal: what was measured, and each criterion that it missed. `live` without requests: nothing to compare with."""
    latency, live_latency = percentile(new.first_ms), percentile(live.first_ms)
    rate = (new.requests - new.errors) / new.seconds if new.seconds else 0.0
    reasons = []
    if new.requests and new.bad / new.requests > trial.max_error_share:
        reasons.append(f"{new.bad} of {new.requests} answers failed ({new.broken} of them unusable), {trial.max_error_share:.1%} may")
    if trial.max_latency_ms and latency > trial.max_latency_ms:
        reasons.append(f"{latency:.0f} ms to the first token at the 95th percentile, {trial.max_latency_ms:.0f} are allowed")
    if rate < trial.min_requests_s:
        reasons.append(f"{rate:.2f} answers a second, {trial.min_requests_s:.2f} are asked for")
    if _slower(trial.max_latency_ratio, latency, live_latency):
        ratio, allowed = latency / live_latency, trial.max_latency_ratio
        reasons.append(f"{latency:.0f} ms to the first token, the live release {live_latency:.0f} ms: {ratio:.1f} times, {allowed:.1f} are allowed")
    return TrialResult(
        id=trial.id,
        release=release,
        at=at,
        passed=not reasons,
        reasons=tuple(reasons),
        requests=new.requests,
        errors=new.bad,
        latency_ms=round(latency, 1),
        live_latency_ms=round(live_latency, 1),
        requests_s=round(rate, 2),
    )


def is_unusable(text: str) -> bool:
    """Whether an answer is nothing, mostly signs that cannot be read, or the same few words again and again."""
    said = text.strip()
    if not said:
        return True
    if sum((not sign.isprintable() and not sign.isspace()) or sign == "\ufffd" for sign in said) > len(said) / 3:
        return True
    words = said.split()
    return len(words) >= REPEATED_WORDS and len(set(words)) / len(words) <= STUCK_SHARE


def is_rubbish(base_logprobs: Sequence[Sequence[float]]) -> bool:
    """Whether most greedy answers of an adapter are nothing that the base would ever say (its log-probabilities in nats a token, by answer)."""
    rubbish = [not math.fsum(one) / len(one) > RUBBISH_NATS for one in base_logprobs if one]
    return sum(rubbish) * 2 > len(rubbish) > 0


# ---------------------------------------------------------------- after it


def rule(watch: Watch, new: Series, before: Series, elapsed_s: float) -> Ruling:
    """What the counts of both sides say. `elapsed_s`: since this phase began."""
    if why := _broken(new, before) or _failing(watch, new, before) or _slow(watch, new, before) or _disliked(watch, new, before):
        return Ruling(rolls_back=True, reason=why)
    if elapsed_s < watch.window_s:
        return Ruling()
    enough = min(new.seen, before.seen) >= watch.min_requests
    return Ruling(passes=True, reason="" if enough else f"too few answers to compare: {new.seen} and {before.seen}, {watch.min_requests} are asked for")


def _broken(new: Series, before: Series) -> str:
    """Most of the canary prompts failed, and those of the release before did not: no need to wait for users to suffer."""
    mine, theirs = new.canary, before.canary
    if mine.requests and mine.bad / mine.requests >= BROKEN_SHARE and (not theirs.requests or theirs.bad / theirs.requests < BROKEN_SHARE / 2):
        return f"{mine.bad} of {mine.requests} canary prompts failed ({mine.broken} answers unusable), of the release before {theirs.bad} of {theirs.requests}"
    return ""


def _failing(watch: Watch, new: Series, before: Series) -> str:
    return _worse("answers failed", watch, watch.max_error_share, (new.failed, new.seen), (before.failed, before.seen))


def _disliked(watch: Watch, new: Series, before: Series) -> str:
    return _worse("ratings are negative", watch, watch.max_negative_share, (new.negative, new.rated), (before.negative, before.rated))


def _worse(what: str, watch: Watch, tolerated: float, new: tuple[int, int], before: tuple[int, int]) -> str:
    if min(new[1], before[1]) < max(1, watch.min_requests):
        return ""
    change = difference(Counted.SHARE, before, new)
    if change.mean <= tolerated or change.low <= 0:
        return ""
    return f"{new[0]} of {new[1]} {what}, of the release before {before[0]} of {before[1]}: {change.mean:.1%} more, {tolerated:.1%} are tolerated"


def _slow(watch: Watch, new: Series, before: Series) -> str:
    mine, theirs = new.canary.first_ms, before.canary.first_ms
    if min(len(mine), len(theirs)) < watch.min_requests or not _slower(watch.max_latency_ratio, middle(mine), middle(theirs)):
        return ""
    return f"{middle(mine):.0f} ms to the first token, the release before {middle(theirs):.0f} ms: more than {watch.max_latency_ratio:g} times"


def _slower(allowed: float, new_ms: float, before_ms: float) -> bool:
    return bool(allowed and before_ms and new_ms - before_ms >= LEAST_MS and new_ms > allowed * before_ms)


def first_phase(watch: Watch) -> Phase:
    """Where a watch begins once a release is shown at all."""
    return Phase.CANARY if 0 < watch.canary_share < 1 else Phase.ALL


# ---------------------------------------------------------------- who is answered by which


def is_canary(user: str, release: str, share: float) -> bool:
    """Whether the new release answers this user. Always the same for one user and release; other users for the next release."""
    return _place(release, user) < share


def is_sampled(number: int, share: float) -> bool:
    """Whether the request of this running number is one of those that are answered twice; evenly spread, without chance."""
    return math.floor((number + 1) * share) > math.floor(number * share)


def _place(*words: str) -> float:
    """0 to 1, by hash."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:6], "big") / (1 << 48)


# ---------------------------------------------------------------- numbers


def percentile(values: Sequence[float], share: float = PERCENTILE) -> float:
    """The value that `share` of them do not exceed (nearest rank); 0 for none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0


def middle(values: Sequence[float]) -> float:
    """The median; 0 for none."""
    return median(values) if values else 0.0
