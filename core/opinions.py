"""What signals say of the answers of a release: tallies of its series, and the measure that a trigger goes by. Pure.

An answer counts once, by the newest opinion on it. What users themselves rated makes `user_satisfaction`, of which a tally
counts the dissatisfied, as every tally counts what went wrong; every opinion, also those of rules, failed tools and peer models,
makes `correction_rate`. Only the first takes a release back by itself: who else judges, and how often, changes with the config.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from core.fingerprints import BASE_MARK, mark_in
from core.signals import Origin, Signal, SignalKind, Standing
from core.trends import CORRECTION_RATE, USER_SATISFACTION, Counted, Score, Tally, told_share

HOUR = timedelta(hours=1)  # of a tally
LATEST = timedelta(days=14)  # an opinion that comes later says nothing of what serves now
MOST_OF_A_USER = 20  # answers of a release that count in a day, of each user who is named: nobody takes a release back alone
MEASURES = (USER_SATISFACTION, CORRECTION_RATE)
DETECTED = "detected"  # source of corrections that were found in conversations: nobody rates that way where all is well


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one signal says of one answer."""

    adapter: str
    label: str  # of the release that answered: its id, its mark (`core.fingerprints`), or base
    answer: str  # its response id; where it has none, the signal's own
    at: datetime
    is_negative: bool
    is_rating: bool  # of a user, on their own
    user: str = ""


class _Count(NamedTuple):
    """Where one answer counts: hours and days are numbers since 1970."""

    key: tuple[str, int, str, bool]  # label, hour, measure, is negative
    user: tuple[str, str, int, str]  # label, user, day, measure
    counts: bool  # not where its user has rated too many


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The value of a metric, and of how many answers or rows it is."""

    value: float
    count: float


def opinion_of(signal: Signal) -> Opinion | None:
    """What a signal says, once it counts; None for an import, and for an answer of which the release is not known."""
    label = signal.release or mark_in(signal.response)
    if signal.kind is SignalKind.IMPORT or label is None:
        return None
    return Opinion(
        adapter=signal.adapter,
        label=label,
        answer=signal.response or signal.id,
        at=signal.at,
        is_negative=signal.kind is not SignalKind.POSITIVE,
        is_rating=signal.origin is Origin.HUMAN and signal.source != DETECTED,
        user=signal.user,
    )


def is_heard(standing: Standing, is_proposal: bool) -> bool:
    """Whether a signal that stands there counts: not what is put aside or was a flood, and a proposal once a person took it for true."""
    return standing in (Standing.PENDING, Standing.QUEUED) or (standing is Standing.REVIEW and not is_proposal)


class Book:
    """The opinions on the answers of one adapter, counted as they come. Told of the same signal again, it changes only what has changed."""

    def __init__(self) -> None:
        self._said: dict[str, Opinion] = {}  # by signal
        self._of_answer: dict[str, list[str]] = {}  # answer -> signals
        self._counted: dict[tuple[str, str], _Count] = {}  # (answer, measure) -> where its newest opinion counts
        self._counts: Counter[tuple[str, int, str, bool]] = Counter()
        self._of_user: Counter[tuple[str, str, int, str]] = Counter()

    def hear(self, signal: str, opinion: Opinion | None) -> bool:
        """Take over what a signal says now; None: nothing, or nothing any more. Whether that is news."""
        before = self._said.get(signal)
        if before == opinion:
            return False
        if before is not None:
            del self._said[signal]
            self._of_answer[before.answer].remove(signal)
            self._count_again(before.answer)
        if opinion is not None:
            self._said[signal] = opinion
            self._of_answer.setdefault(opinion.answer, []).append(signal)
            self._count_again(opinion.answer)
        return True

    def tallies(self, releases: Mapping[str, tuple[str, int]]) -> tuple[Tally, ...]:
        """For each release and hour the dissatisfied of those who rated, and the corrected of all answers that were judged.

        Args: releases: id or mark -> (id, version) of what was ever live; the base is known.
        """
        of, found = {BASE_MARK: ("", 0), **releases}, defaultdict[tuple[tuple[str, int], int, str], list[int]](lambda: [0, 0])
        for (label, hour, measure, is_negative), number in self._counts.items():
            if label in of and number:
                count = found[of[label], hour, measure]
                count[0] += number * is_negative
                count[1] += number
        return tuple(_tally(key, hits, out_of) for key, (hits, out_of) in sorted(found.items()))

    def forget(self, until: datetime) -> None:
        """Leave out what was said before the hour of `until`: the series has it."""
        hour = _hour(until)
        for signal in [signal for signal, one in self._said.items() if _hour(one.at) < hour]:
            one = self._said.pop(signal)
            self._of_answer[one.answer].remove(signal)
            if not self._of_answer[one.answer]:
                del self._of_answer[one.answer]
                for measure in MEASURES:
                    self._counted.pop((one.answer, measure), None)
        self._counts = Counter({key: number for key, number in self._counts.items() if key[1] >= hour and number})
        self._of_user = Counter({key: number for key, number in self._of_user.items() if key[2] >= hour // 24 and number})

    def __len__(self) -> int:
        """How many signals say something."""
        return len(self._said)

    def _count_again(self, answer: str) -> None:
        said = [self._said[signal] for signal in self._of_answer[answer]]
        self._put(answer, CORRECTION_RATE, said)
        self._put(answer, USER_SATISFACTION, [one for one in said if one.is_rating])

    def _put(self, answer: str, measure: str, said: Sequence[Opinion]) -> None:
        """Let the newest of these opinions on an answer count, and no other."""
        before = self._counted.pop((answer, measure), None)
        if before is not None and before.counts:
            self._counts[before.key] -= 1
            self._of_user[before.user] -= 1
        if not said:
            return
        one = said[0] if len(said) == 1 else max(said, key=lambda one: (one.at, one.is_negative))
        hour = _hour(one.at)
        user = (one.label, one.user, hour // 24, measure)
        counts = not one.user or self._of_user[user] < MOST_OF_A_USER
        self._counted[answer, measure] = count = _Count((one.label, hour, measure, one.is_negative), user, counts)
        if counts:
            self._counts[count.key] += 1
            self._of_user[user] += 1


def _hour(at: datetime) -> int:
    return int(at.timestamp() // 3600)


def _tally(key: tuple[tuple[str, int], int, str], hits: int, out_of: int) -> Tally:
    (release, version), hour, measure = key
    since = datetime.fromtimestamp(hour * 3600, UTC)
    words = {"release": release, "version": version, "measure": measure}
    return Tally(since=since, until=since + HOUR, counted=Counted.SHARE, hits=float(hits), out_of=float(out_of), **words)  # type: ignore[arg-type]


def newer(known: Iterable[Tally], counted: Collection[Tally]) -> tuple[Tally, ...]:
    """Those of `counted` that say more than what is known of the same release, measure and time: a count never shrinks, whatever was forgotten since."""
    least = {(one.release, one.measure, one.since): one for one in known}
    found = []
    for one in counted:
        before = least.get((one.release, one.measure, one.since))
        if before is None or (one.out_of >= before.out_of and one != before):
            found.append(one)
    return tuple(found)


def merged(known: Iterable[Tally], counted: Collection[Tally]) -> tuple[Tally, ...]:
    """What is known, with what was counted since in its place."""
    known = tuple(known)
    found = {(one.release, one.measure, one.since): one for one in (*known, *newer(known, counted))}
    return tuple(sorted(found.values(), key=lambda one: one.since))


def by_day(tallies: Iterable[Tally], now: datetime) -> tuple[Tally, ...]:
    """What regressions are proven by: the tallies of opinions summed by UTC day, without the day that goes on; others as they are.

    Every look is another chance to accuse by luck. In 150 to 400 simulated adapters each, which did not change within two weeks, a
    look an hour accused 1 to 4 % of a step, a look a day at most 0.8 %. What is quick, the box's own watch sees.
    """
    days: dict[tuple[str, str, date], Tally] = {}
    found = []
    for one in sorted(tallies, key=lambda one: one.since):
        if one.measure not in MEASURES:
            found.append(one)
            continue
        key = (one.release, one.measure, one.since.astimezone(UTC).date())
        known = days.get(key)
        days[key] = one if known is None else replace(known, until=one.until, hits=known.hits + one.hits, out_of=known.out_of + one.out_of)
    today = now.astimezone(UTC).date()
    return (*found, *(tally for (_, _, day), tally in days.items() if day < today))


def metric_of(metric: str, scores: Sequence[Score], tallies: Sequence[Tally], live: str | None, window: timedelta, now: datetime) -> Measured | None:
    """The value of a metric for the release that serves; None where nothing tells it.

    Args: metric: user_satisfaction, correction_rate, or the measure of another score or tally of the series. scores, tallies: of
        the adapter. live: None is the base. window: what tallies are summed over, to the hour; a score has none.
    """
    mine = [one for one in tallies if one.measure == metric and one.release == (live or "") and now - window < one.until and one.since <= now]
    count = sum(one.out_of for one in mine)
    if count > 0:
        return Measured(value=told_share(metric, sum(one.hits for one in mine) / count), count=count)
    score = next((one for one in reversed(scores) if one.measure == metric and one.release == live), None)
    return Measured(value=score.value, count=score.count) if score is not None else None
