"""How an adapter fares over time, and whether it got worse. Pure.

Two sorts of numbers make the series of an adapter. A *score* is measured once, at the verdict, on rows that release and
incumbent share: it brings its change against the release before, with the interval of the paired comparison. A *tally* is
counted while a release serves: so many bad answers of so many that were judged, so many incidents in so many days.

A regression is proven, not guessed: the whole interval of the change lies on the bad side, beyond what is tolerated. Tallies
are looked at again and again while they grow, so their intervals hold with 99.5 %, and a window ends where a tally ends.

Intervals: Wilson (1927) for a share, Byar's approximation for a count in a time (Breslow & Day 1987, 2.10), and for their
difference MOVER (Zou & Donner 2008), of which Newcombe's hybrid score interval (1998) is the case of two shares.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from statistics import NormalDist
from typing import Literal

CONFIDENCE = 0.995
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Z_95 = NormalDist().inv_cdf(0.975)  # of the intervals that a verdict brings
USER_SATISFACTION = "user_satisfaction"  # a tally of the dissatisfied, told as the share of the others
CORRECTION_RATE = "correction_rate"  # a tally that is told and takes nothing back: programs judge too, and how much they do changes with the config


class Counted(StrEnum):
    """What a tally counts by."""

    SHARE = "share"  # of so many judged answers
    RATE = "rate"  # in so many days


class Against(StrEnum):
    """What a release is compared with."""

    BEGINNING = "beginning"  # its own first days: the world changed, or the box
    BEFORE = "before"  # the release that it replaced
    BEST = "best"  # an earlier release: many steps, each too small to be refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A difference with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measure of a release, as its verdict has it. `change`: against `replaced`, on the same rows; above 0 is more, not better."""

    at: datetime  # when the release went live first
    release: str
    version: int
    measure: str
    value: float
    count: int  # of rows or items
    higher_is_better: bool
    replaced: str = ""  # release id; empty: the base
    change: Change | None = None
    kind: Literal["score"] = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted of a release between two times. More is worse: what counts is what went wrong."""

    since: datetime
    until: datetime
    release: str
    version: int
    measure: str
    counted: Counted
    hits: float
    out_of: float  # answers, or days
    kind: Literal["tally"] = "tally"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When a change of tallies counts."""

    least: float  # answers or days under which a window says nothing
    window: float  # answers or days of the newest window, and of the first
    tolerated: float  # how much worse is no regression


BOUNDS: Mapping[Counted, Bounds] = {
    Counted.SHARE: Bounds(least=30, window=200, tolerated=0.02),
    Counted.RATE: Bounds(least=1 / 24, window=1.0, tolerated=0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """That an adapter got worse: by which measure, since when, by how much. `low` above 0 is what makes it one.

    `worse_by`, `low`, `high` are turned so that more is worse. `goes_back_to` names the release that did better, for a
    rollback; None where going back would not help (the release itself was better once). An empty id is the base.
    """

    adapter: str
    measure: str
    release: str
    version: int
    against: Against
    since: datetime
    before: float
    now: float
    worse_by: float
    low: float
    high: float
    count: float
    goes_back_to: str | None = None
    counted: bool = False  # by a tally, while it served; else by the scores of its verdict, which somebody has let pass

    @property
    def sentence(self) -> str:
        """In one sentence, for people."""
        than = {Against.BEGINNING: "in its first days", Against.BEFORE: "the release before it", Against.BEST: "its best release"}[self.against]
        interval = f"{self.low:+.3g} to {self.high:+.3g}"
        return f"{self.adapter}@v{self.version}: {self.measure} is {self.now:.3g}, {than} {self.before:.3g}: worse by {self.worse_by:.3g} ({interval})"


# ---------------------------------------------------------------- detection


def regressions(adapter: str, scores: Sequence[Score], tallies: Sequence[Tally], live: str | None) -> tuple[Regression, ...]:
    """What is proven to be worse about the release that is live; nothing where the base is.

    Args: scores, tallies: of this adapter, in any order. live: the release that serves; None is the base.
    """
    if live is None:
        return ()
    found = [*_of_scores(adapter, scores, live), *_of_tallies(adapter, tallies, live)]
    return tuple(sorted(found, key=lambda one: (one.measure, one.against)))


def _of_scores(adapter: str, scores: Sequence[Score], live: str) -> Iterator[Regression]:
    for _, group in groupby(sorted(scores, key=lambda one: (one.measure, one.version)), key=lambda one: one.measure):
        chain = _chain(list(group), live)
        found = (_step(adapter, chain[-1]) or _slide(adapter, chain)) if chain else None
        if found is not None:
            yield found


def _chain(scores: Sequence[Score], live: str) -> list[Score]:
    """From the live release back over what each one replaced, as far as they were compared; oldest first."""
    by_release = {one.release: one for one in scores}
    found: list[Score] = []
    one = by_release.get(live)
    while one is not None and one not in found:
        found.insert(0, one)
        one = by_release.get(one.replaced) if one.change is not None else None
    return found


def _worse(score: Score) -> Change:
    """The change, turned so that more is worse."""
    assert score.change is not None
    mean, low, high = score.change.mean, score.change.low, score.change.high
    return Change(mean=-mean, low=-high, high=-low) if score.higher_is_better else Change(mean=mean, low=low, high=high)


def _step(adapter: str, score: Score) -> Regression | None:
    """Worse than what it replaced: a person released it all the same."""
    if score.change is None or not score.replaced or _worse(score).low <= 0:
        return None
    change = _worse(score)
    return Regression(
        adapter=adapter,
        measure=score.measure,
        release=score.release,
        version=score.version,
        against=Against.BEFORE,
        since=score.at,
        before=score.value - score.change.mean,
        now=score.value,
        worse_by=change.mean,
        low=change.low,
        high=change.high,
        count=score.count,
        goes_back_to=score.replaced,
    )


def _slide(adapter: str, chain: Sequence[Score]) -> Regression | None:
    """Worse than an earlier release by steps that were too small for a verdict: the sum of the changes, errors added in squares.

    Changes of neighbours share a release and so are not independent; their errors cancel there, and the interval is too wide
    rather than too narrow.
    """
    sums = [0.0]
    for score in chain[1:]:
        sums.append(sums[-1] + _worse(score).mean)
    best = min(range(len(sums)), key=lambda place: (sums[place], -place))
    steps = [_worse(score) for score in chain[best + 1 :]]
    if len(steps) < 2:
        return None
    mean = sum(step.mean for step in steps)
    half = math.sqrt(sum(max(step.high - step.mean, step.mean - step.low) ** 2 for step in steps)) * Z / Z_95
    change = Change(mean=mean, low=mean - half, high=mean + half)
    if change.low <= 0:
        return None
    last = chain[-1]
    return Regression(
        adapter=adapter,
        measure=last.measure,
        release=last.release,
        version=last.version,
        against=Against.BEST,
        since=chain[best + 1].at,
        before=last.value + (mean if last.higher_is_better else -mean),
        now=last.value,
        worse_by=change.mean,
        low=change.low,
        high=change.high,
        count=last.count,
        goes_back_to=chain[best].release,
    )


# ---------------------------------------------------------------- tallies


def _of_tallies(adapter: str, tallies: Sequence[Tally], live: str) -> Iterator[Regression]:
    for _, group in groupby(sorted(tallies, key=lambda one: (one.measure, one.since)), key=lambda one: one.measure):
        everything = list(group)
        mine = [one for one in everything if one.release == live]
        if not mine:
            continue
        earlier = [one for one in everything if one.release != live and one.since < mine[0].since]
        before = [one for one in earlier if one.release == earlier[-1].release] if earlier else []
        bounds = BOUNDS[mine[0].counted]
        newest = _window(reversed(mine), bounds.window)
        found = _compared(adapter, Against.BEFORE, before, newest, mine[0].since)
        if found is None:
            first = _window(mine, bounds.window)
            apart = first[-1].until <= newest[0].since
            found = _compared(adapter, Against.BEGINNING, first if apart else [], newest, newest[0].since)
        if found is not None:
            yield found


def _window(tallies: Iterable[Tally], wanted: float) -> list[Tally]:
    """As many tallies from the front as make `wanted`, in the order of time."""
    found: list[Tally] = []
    held = 0.0
    for one in tallies:
        if held >= wanted:
            break
        found.append(one)
        held += one.out_of
    return sorted(found, key=lambda one: one.since)


def _compared(adapter: str, against: Against, before: Sequence[Tally], now: Sequence[Tally], since: datetime) -> Regression | None:
    """The regression that two windows prove; None where they do not, or hold too little to say anything."""
    if not before or not now:
        return None
    bounds, last = BOUNDS[now[-1].counted], now[-1]
    hits, out_of = _sums(now)
    hits_before, out_of_before = _sums(before)
    if min(out_of, out_of_before) < bounds.least:
        return None
    change = difference(last.counted, (hits_before, out_of_before), (hits, out_of))
    if change.low <= bounds.tolerated:
        return None
    return Regression(
        adapter=adapter,
        measure=last.measure,
        release=last.release,
        version=last.version,
        against=against,
        since=since,
        before=told_share(last.measure, hits_before / out_of_before),
        now=told_share(last.measure, hits / out_of),
        worse_by=change.mean,
        low=change.low,
        high=change.high,
        count=out_of,
        goes_back_to=before[-1].release if against is Against.BEFORE and last.measure != CORRECTION_RATE else None,
        counted=True,
    )


def _sums(tallies: Sequence[Tally]) -> tuple[float, float]:
    return sum(one.hits for one in tallies), sum(one.out_of for one in tallies)


# ---------------------------------------------------------------- intervals


def told_share(measure: str, share: float) -> float:
    """What people are told of a tally's share or rate: of user_satisfaction the satisfied, else what went wrong."""
    return 1 - share if measure == USER_SATISFACTION else share


def difference(counted: Counted, before: tuple[float, float], now: tuple[float, float]) -> Change:
    """now - before of two independent (hits, out_of), with the interval at `CONFIDENCE` (MOVER)."""
    interval = share_interval if counted is Counted.SHARE else rate_interval
    first, second = before[0] / before[1], now[0] / now[1]
    (low_1, high_1), (low_2, high_2) = interval(*before), interval(*now)
    mean = second - first
    low = mean - math.hypot(second - low_2, high_1 - first)
    high = mean + math.hypot(high_2 - second, first - low_1)
    return Change(mean=mean, low=low, high=high)


def share_interval(hits: float, out_of: float) -> tuple[float, float]:
    """Wilson's interval of a share."""
    share, square = hits / out_of, Z * Z / out_of
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / out_of + square / (4 * out_of)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_interval(hits: float, days: float) -> tuple[float, float]:
    """Byar's interval of a count, by the day."""
    low = hits * (1 - 1 / (9 * hits) - Z / (3 * math.sqrt(hits))) ** 3 if hits > 0 else 0.0
    more = hits + 1
    high = more * (1 - 1 / (9 * more) + Z / (3 * math.sqrt(more))) ** 3
    return max(0.0, low) / days, high / days
