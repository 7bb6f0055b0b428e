"""Keeps each adapter's series, and says what got worse: in the facts of a tick, and in metrics.prom.

Everything is worked out again where live.jsonl or a series has changed, and every ten minutes, since incidents are counted
by time. What a release scored is written once it was live: a crash before that loses nothing, as its verdict stays with it.
What users and programs say of it is counted by `daemon.opinions`, and written every two minutes while it grows.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.fingerprints import mark_of
from core.measures import Measure
from core.opinions import by_day, merged, metric_of, newer
from core.trends import CORRECTION_RATE, USER_SATISFACTION, Regression, Score, Tally, regressions
from core.wire import SWITCHES
from daemon import clock
from daemon.index import Index
from daemon.opinions import Opinions
from store.performance import Performance as Series
from store.performance import first_live, first_target, incidents_by_day, incidents_in, performance_of, remember_samples, scores_of
from store.vault import history_of

log = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0
OPINIONS_EVERY_S = 120.0
SHOWN = timedelta(days=1)  # of opinions, in metrics.prom
Mark = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Performance:
    """How the adapters of one home fare. `look` once a tick."""

    index: Index
    regressions: tuple[Regression, ...] = ()
    measures: tuple[Measure, ...] = ()
    opinions: Opinions | None = None  # none, until the daemon names its own
    _series: Mapping[str, Series] = field(default_factory=dict)  # adapter -> as it was worked out last
    _mark: Mark = ()
    _looked_s: float = float("-inf")
    _recorded: dict[str, set[str]] = field(default_factory=dict)  # adapter -> releases whose scores stand in its series

    def look(self, now: datetime) -> tuple[Regression, ...]:
        """What is proven to be worse now. Never raises: a series that cannot be read or written is told in the log."""
        mark = self._marks()
        passed_s = clock.monotonic_s() - self._looked_s
        is_said = self.opinions is not None and self.opinions.is_changed and passed_s >= OPINIONS_EVERY_S
        if mark != self._mark or is_said or passed_s >= LOOK_EVERY_S:
            self._looked_s = clock.monotonic_s()
            try:
                self._work_out(now)
            except (OSError, ValueError, KeyError) as error:
                log.warning("how the adapters fare is not known: %s", error, extra={"action": "series_failed"})
            self._mark = self._marks()  # with what was just written
        return self.regressions

    def series_of(self, adapter: str) -> Series:
        """The series of an adapter, with what was said since it was written: at most two minutes old, from memory."""
        return self._series.get(adapter, Series())

    def _marks(self) -> Mark:
        home = self.index.home
        return tuple(map(_mark_of, (home.live, *(home.performance(adapter) for adapter in sorted(self._recorded)))))

    def _work_out(self, now: datetime) -> None:
        home = self.index.home
        found: list[Regression] = []
        measures: list[Measure] = []
        series: dict[str, Series] = {}
        history: dict[str, list[Mapping[str, Any]]] = {}
        for entry in first_target(history_of(home, None)):
            history.setdefault(str(entry["alias"]), []).append(entry)
        said = self.opinions.adapters if self.opinions is not None else frozenset()
        for adapter in sorted({*history, *said}):
            mine = history.get(adapter, [])
            self._record(adapter, mine)
            known = performance_of(home, adapter)
            live = next((entry["release"] for entry in reversed(mine) if entry["event"] in SWITCHES), None)
            tallies = self._with_opinions(adapter, known.tallies, mine)
            series[adapter] = Series(scores=known.scores, tallies=tallies)
            worse = regressions(adapter, known.scores, (*by_day(tallies, now), *incidents_by_day(mine, now)), live)
            found += worse
            measures += _measures(adapter, [one for one in known.scores if one.release == live], mine, len(worse))
            measures += _of_opinions(adapter, tallies, live, now)
        self.regressions, self.measures, self._series = tuple(found), tuple(measures), series
        if self.opinions is not None:
            self.opinions.is_changed = False
            self.opinions.forget(now)

    def _with_opinions(self, adapter: str, known: Sequence[Tally], history: Sequence[Mapping[str, Any]]) -> tuple[Tally, ...]:
        """The tallies of an adapter with what was said since they were written, which is written now."""
        if self.opinions is None:
            return tuple(known)
        lived = {str(entry["release"]): int(entry["version"] or 0) for entry in history if entry["release"]}
        releases = {label: (release, version) for release, version in lived.items() for label in (mark_of(release), release)}
        counted = self.opinions.tallies(adapter, releases)
        if grown := newer(known, counted):
            remember_samples(self.index.home, adapter, grown)
        return merged(known, counted)

    def _record(self, adapter: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the scores of what was live and stands in no series yet."""
        home = self.index.home
        if adapter not in self._recorded:
            self._recorded[adapter] = {one.release for one in performance_of(home, adapter).scores}
        for release, at in first_live(history).items():
            there = self.index.releases.get(release)
            if there is not None and release not in self._recorded[adapter]:
                self._recorded[adapter].add(release)
                remember_samples(home, adapter, scores_of(there, at))


def _mark_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _measures(adapter: str, scores: Sequence[Score], history: Sequence[Mapping[str, Any]], num_worse: int) -> Iterator[Measure]:
    of = ("adapter", adapter)
    for score in scores:
        yield Measure("adapter_score", score.value, (of, ("measure", score.measure)))
    yield Measure("adapter_regressions", num_worse, (of,))
    yield Measure("adapter_incidents_total", sum(1 for _ in incidents_in(history)), (of,))


def _of_opinions(adapter: str, tallies: Sequence[Tally], live: str | None, now: datetime) -> Iterator[Measure]:
    for name, metric in (("adapter_user_satisfaction", USER_SATISFACTION), ("adapter_correction_rate", CORRECTION_RATE)):
        measured = metric_of(metric, (), tallies, live, SHOWN, now)
        if measured is not None:
            yield Measure(name, measured.value, (("adapter", adapter),))
            yield Measure(f"{name}_answers", measured.count, (("adapter", adapter),))
