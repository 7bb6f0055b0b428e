"""What the conditions of triggers read beside the pending signals: measures of the live release, marks of files, the calendar.

Each is looked at seldom, so that a tick stays short. The daemon and `lorad trigger` read the same here.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice

from core.conditions import metric_key
from core.learning import ConditionConfig
from core.opinions import Measured, metric_of
from core.sections import ScheduleConfig
from core.windows import closed_at
from daemon.clock import elapsed_s
from daemon.schedules import zone_of
from store.performance import Performance

MARKS_EVERY_S = 30.0
MOST_ENTRIES = 10_000  # of a folder that are looked at; some 30 ms


class Readings:
    """What was read last.

    Args: series_of: gives the series of an adapter, from memory where it is asked in every tick. look_s: the clock by which files are looked at anew.
    """

    def __init__(self, series_of: Callable[[str], Performance], look_s: Callable[[], float] = elapsed_s) -> None:
        self.series_of = series_of
        self._look_s = look_s
        self._marks: dict[str, tuple[float, str]] = {}

    def marks(self, paths: Iterable[str]) -> dict[str, str]:
        """What changes when these files or folders do; empty for one that is not there."""
        now_s = self._look_s()
        for path in paths:
            if path not in self._marks or now_s - self._marks[path][0] >= MARKS_EVERY_S:
                self._marks[path] = (now_s, mark_of(path))
        return {path: self._marks[path][1] for path in paths}

    def measures(self, adapter: str, wanted: Iterable[ConditionConfig], live: str | None, now: datetime) -> dict[str, Measured]:
        """The metrics of these conditions for the release that is live; None is the base."""
        found = {}
        for one in wanted:
            series = self.series_of(adapter)
            measured = metric_of(one.metric, series.scores, series.tallies, live, timedelta(seconds=one.window_s), now)
            if measured is not None:
                found[metric_key(one.metric, one.window_s)] = measured
        return found


def mark_of(path: str) -> str:
    """What changes when the file changes, or any file in the folder; empty where it is not there or cannot be read.

    Of a folder that holds more than `MOST_ENTRIES` only what is added to or taken from itself counts.
    """
    try:
        found = os.stat(path)
        if not os.path.isdir(path):
            return f"{found.st_mtime_ns}-{found.st_size}"
        entries = list(islice(_entries(path), MOST_ENTRIES + 1))
    except OSError:
        return ""
    if len(entries) > MOST_ENTRIES:
        return f"{found.st_mtime_ns}-folder"
    return hashlib.sha256("\n".join(sorted(entries)).encode(errors="surrogateescape")).hexdigest()[:32]


def _entries(folder: str) -> Iterator[str]:
    """A line for each file below; links are not followed."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)
            else:
                seen = entry.stat(follow_symlinks=False)
                yield f"{entry.path} {seen.st_mtime_ns} {seen.st_size}"


def opening(schedule: ScheduleConfig) -> Callable[[datetime], datetime | None]:
    """Gives the first time from one on at which windows and quiet hours let training run; None where that is days away."""
    zone = zone_of(schedule)

    @lru_cache(maxsize=64)
    def opens(at: datetime) -> datetime | None:
        closed = closed_at(schedule.windows, schedule.quiet_hours, at, zone)
        return closed.until if closed else at

    return opens
