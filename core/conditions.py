"""What a trigger's conditions ask of one adapter, and which of them hold, in words. Pure; `core.triggers` decides by it.

Time that has passed is taken by a clock that nobody sets, as long as the machine has not started anew since; else by the
wall clock. So a clock that is set neither shortens a wait nor makes it endless.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from core.learning import ConditionConfig
from core.opinions import Measured

LEAST_JUDGED = 20  # answers or rows under which a measure says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """One instant by both clocks."""

    at: datetime
    elapsed_s: float = 0.0  # by the clock that never jumps, since the boot that `boot` names
    boot: str = ""

    def passed_s(self, now: "Stamp") -> float:
        """Seconds from here to `now`, at least 0."""
        if self.boot and self.boot == now.boot:
            return max(0.0, now.elapsed_s - self.elapsed_s)
        return max(0.0, (now.at - self.at).total_seconds())

    def anchored(self, now: "Stamp") -> "Stamp":
        """The same; of an earlier boot whose clock was ahead, the present."""
        return now if self.boot != now.boot and self.at > now.at else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """The newest time of a cron text that has come: the time itself, and when it was noticed."""

    at: datetime
    noticed: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """That a trigger fired for an adapter. `batch` is empty until the batch was begun; `key` makes it the same at a repeat."""

    key: str
    trigger: str
    stamp: Stamp
    rows: int
    why: str
    actor: str = ""  # a person who fired it by hand
    batch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is remembered of one adapter."""

    firings: tuple[Firing, ...] = ()  # of the last 24 hours, and the newest; oldest first
    arrived: int = 0  # signals that had ever become pending when one fired last
    quarantined: int = 0  # signals that were quarantined for their own rows then
    done: Mapping[str, datetime] = field(default_factory=dict)  # key of a cron -> its newest time that has led to a firing or was passed over
    marks: Mapping[str, str] = field(default_factory=dict)  # key of a file -> its mark when the trigger fired last

    @property
    def last(self) -> Firing | None:
        """The newest firing."""
        return self.firings[-1] if self.firings else None

    def new_rows(self, rows: int, arrived: int, quarantined: int) -> int:
        """How many of the pending rows no firing has met as they are now, by the counts of the adapter.

        Rows that the gate gave back are new only where others were quarantined for what they say since, or let go: the same drop
        would only be refused again. What a held source brings was in none.
        """
        if quarantined != self.quarantined or arrived < self.arrived:  # below: the signals came back from an older backup
            return rows
        return min(rows, arrived - self.arrived)


def _same(at: datetime) -> datetime | None:
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is to know of one adapter now."""

    adapter: str
    now: Stamp
    rows: int = 0  # pending
    arrived: int = 0  # signals that ever became pending
    quarantined: int = 0  # for their own rows
    oldest_at: datetime | None = None
    calm_s: float = float("inf")  # since the newest row came
    stopped: bool = False  # continuous mode, by a person
    busy: str = ""  # what is on its way for this adapter, in words
    waits: str = ""  # why nothing may train now, in words
    came: Mapping[str, Came] = field(default_factory=dict)  # by key of the cron
    comes: Mapping[str, datetime] = field(default_factory=dict)  # when it comes next
    readings: Mapping[str, Measured] = field(default_factory=dict)  # by key of the metric
    marks: Mapping[str, str] = field(default_factory=dict)  # path -> what changes when the file does; empty: it is not there
    zone: tzinfo = UTC  # of times in words
    opens: Callable[[datetime], datetime | None] = _same  # the first time from one on at which the calendar lets training run


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One condition: whether it holds, and if not when it will by itself, where that is known."""

    words: str
    holds: bool
    at: datetime | None = None


def cron_key(trigger: str, cron: str) -> str:
    """Names a cron text of a trigger."""
    return f"{trigger} {cron}"


def mark_key(trigger: str, path: str) -> str:
    """Names a file of a trigger."""
    return f"{trigger} {path}"


def metric_key(metric: str, window_s: float) -> str:
    """Names a measure over a window."""
    return f"{metric} {window_s:g}"


def part_of(trigger: str, condition: ConditionConfig, seen: Seen, past: Past) -> Part:
    """The condition as it stands now."""
    if condition.rows:
        return Part(words=f"{seen.rows:,} of {condition.rows:,} pending rows", holds=seen.rows >= condition.rows)
    if condition.after_s:
        return _age(condition.after_s, seen)
    if condition.cron:
        return _cron(cron_key(trigger, condition.cron), condition.cron, seen, past)
    if condition.metric:
        return _metric(condition, seen)
    return _change(trigger, condition.changed, seen, past)


def _age(after_s: float, seen: Seen) -> Part:
    if seen.oldest_at is None or not seen.rows:
        return Part(words=f"no pending row; one must be {span(after_s)} old", holds=False)
    age_s = max(0.0, (seen.now.at - seen.oldest_at).total_seconds())
    words = f"the oldest pending row is {span(age_s)} old, of {span(after_s)}"
    return Part(words=words, holds=age_s >= after_s, at=seen.now.at + timedelta(seconds=after_s - age_s))


def _cron(key: str, cron: str, seen: Seen, past: Past) -> Part:
    came, comes = seen.came.get(key), seen.comes.get(key)
    if came is not None and came.at > past.done.get(key, datetime.min.replace(tzinfo=UTC)):
        return Part(words=f'"{cron}" came {shown(came.at, seen.zone)}', holds=True)
    return Part(words=f'"{cron}" comes {shown(comes, seen.zone) if comes else "at a time that is not known yet"}', holds=False, at=comes)


def _metric(condition: ConditionConfig, seen: Seen) -> Part:
    reading = seen.readings.get(metric_key(condition.metric, condition.window_s))
    wanted = f"wanted below {condition.below:g}"
    if reading is None:
        return Part(words=f"{condition.metric} of the live release is not known, {wanted}", holds=False)
    said = f"{condition.metric} is {reading.value:.3g} (of {reading.count:,.0f}), {wanted}"
    if reading.count < LEAST_JUDGED:
        return Part(words=f"{said}; fewer than {LEAST_JUDGED} say nothing", holds=False)
    return Part(words=said, holds=reading.value < condition.below)


def _change(trigger: str, path: str, seen: Seen, past: Past) -> Part:
    mark, known = seen.marks.get(path, ""), past.marks.get(mark_key(trigger, path))
    if not mark:
        return Part(words=f"{path} is not there", holds=False)
    has_changed = known is not None and mark != known
    return Part(words=f"{path} has {'changed' if has_changed else 'not changed'} since the trigger fired last", holds=has_changed)


# ---------------------------------------------------------------- words


def shown(at: datetime, zone: tzinfo) -> str:
    """A time as people read it: "Sat 2026-03-07 03:00"."""
    return f"{at.astimezone(zone):%a %Y-%m-%d %H:%M}"


def span(seconds: float) -> str:
    """So much time, in its two largest units: "6 d 4 h"."""
    left, parts = max(0, round(seconds)), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
