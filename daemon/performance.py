"""Keeps each adapter's series, and says what got worse: in the facts of a tick, and in metrics.prom.

Everything is worked out again where live.jsonl or a series has changed, and every ten minutes, since incidents are counted
by time. What a release scored is written once it was live: a crash before that loses nothing, as its verdict stays with it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from core.measures import Measure
from core.trends import Regression, Score, regressions
from core.wire import SWITCHES
from daemon import clock
from daemon.index import Index
from store.performance import first_live, first_target, incidents_by_day, incidents_in, performance_of, remember_samples, scores_of
from store.vault import history_of

log = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0
Mark = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Performance:
    """How the adapters of one home fare. `look` once a tick."""

    index: Index
    regressions: tuple[Regression, ...] = ()
    measures: tuple[Measure, ...] = ()
    _mark: Mark = ()
    _looked_s: float = float("-inf")
    _recorded: dict[str, set[str]] = field(default_factory=dict)  # adapter -> releases whose scores stand in its series

    def look(self, now: datetime) -> tuple[Regression, ...]:
        """What is proven to be worse now. Never raises: a series that cannot be read or written is told in the log."""
        mark = self._marks()
        if mark != self._mark or clock.monotonic_s() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = clock.monotonic_s()
            try:
                self._work_out(now)
            except (OSError, ValueError, KeyError) as error:
                log.warning("how the adapters fare is not known: %s", error, extra={"action": "series_failed"})
            self._mark = self._marks()  # with what was just written
        return self.regressions

    def _marks(self) -> Mark:
        home = self.index.home
        return tuple(map(_mark_of, (home.live, *(home.performance(adapter) for adapter in sorted(self._recorded)))))

    def _work_out(self, now: datetime) -> None:
        home = self.index.home
        found: list[Regression] = []
        measures: list[Measure] = []
        history: dict[str, list[Mapping[str, Any]]] = {}
        for entry in first_target(history_of(home, None)):
            history.setdefault(str(entry["alias"]), []).append(entry)
        for adapter, mine in sorted(history.items()):
            self._record(adapter, mine)
            known = performance_of(home, adapter)
            live = next((entry["release"] for entry in reversed(mine) if entry["event"] in SWITCHES), None)
            worse = regressions(adapter, known.scores, (*known.tallies, *incidents_by_day(mine, now)), live)
            found += worse
            measures += _measures(adapter, [one for one in known.scores if one.release == live], mine, len(worse))
        self.regressions, self.measures = tuple(found), tuple(measures)

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
