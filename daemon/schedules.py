"""The schedule: when each entry of `schedule.entries` comes, and whether the calendar lets training run.

Times come from APScheduler's triggers; nothing of it runs. `series/schedule.json` remembers of each entry when it comes
next and came last. It is written after what the entry asks for was begun: a crash in between asks for it once more.

Times that were missed are made up once. The clock may be wrong: set forward, an entry comes once, not once for each time
in between; set back, it is planned anew from the present. An entry that has just come waits at least half of the time
until its next one, by a clock that never jumps, so that a clock that swings makes no storm.
"""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from core.config import Config
from core.errors import ConfigError, IntegrityError
from core.facts import Due
from core.sections import ScheduleConfig, ScheduleEntry
from core.windows import closed_at, in_words
from daemon import clock
from store.codec import read, write
from store.paths import Home

log = logging.getLogger(__name__)

LEAST_S = 1.0  # between two times of an interval
JUMP_S = 30.0  # a clock that is off by more between two looks was set
ENTRIES, TRIGGERS = "schedule.entries", "triggers"  # of config
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")  # of cron: 0 and 7 are Sunday


@dataclass(frozen=True, slots=True)
class Cron:
    """The cron text of a trigger, as what comes by the clock."""

    cron: str
    every_s: float = 0.0
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an entry stands. `key` names what it said when the plan was made: a changed entry begins anew."""

    key: str
    since: datetime  # intervals count from here
    next: datetime
    put_off_s: float = 0.0  # by jitter
    last: datetime | None = None

    @property
    def comes_at(self) -> datetime:
        """When the entry is going to come, jitter counted."""
        return self.next + timedelta(seconds=self.put_off_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """`schedule.json`."""

    entries: Mapping[str, Plan] = field(default_factory=dict)
    format: int = 1


def machine_zone() -> tzinfo:
    """The zone of this machine; UTC where it has none that is known."""
    from tzlocal import get_localzone

    try:
        return get_localzone()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def zone_of(config: ScheduleConfig) -> tzinfo:
    """The zone that windows and cron fields are read in."""
    return ZoneInfo(config.time_zone) if config.time_zone else machine_zone()


# ---------------------------------------------------------------- when an entry comes


class Timed(Protocol):
    """What comes by the clock: at the times of a cron text, or every so many seconds."""

    @property
    def cron(self) -> str:
        """Five cron fields; empty: none."""

    @property
    def every_s(self) -> float:
        """Seconds between two times, instead of cron."""

    @property
    def jitter_s(self) -> float:
        """Each time is put off by up to so many seconds."""


class Times:
    """The times of one entry. Raises ConfigError where its cron text is wrong or names no time at all.

    Args: since: intervals count from here. where: the section of the config that the entry stands in.
    """

    def __init__(self, name: str, entry: Timed, zone: tzinfo, since: datetime, where: str = ENTRIES) -> None:
        self._every_hour = entry.cron.split()[1:2] in ([], ["*"])  # [] too where it is no cron text
        try:
            if not entry.cron and not entry.every_s >= LEAST_S:
                raise ValueError(f"at least {LEAST_S:g} second, as the daemon looks about that often")
            self._triggers = _cron(entry.cron, zone) if entry.cron else [_interval(entry.every_s, since)]
            comes = self.after(since)
        except (ValueError, OverflowError) as error:
            raise _wrong(f"{where}.{name}", entry, str(error)) from None
        if comes is None:
            raise _wrong(f"{where}.{name}", entry, "it names a day that never comes")

    def after(self, moment: datetime) -> datetime | None:
        """The first time after `moment`, in UTC."""
        found = [self._after(trigger, moment) for trigger in self._triggers]
        return min((at for at in found if at is not None), default=None)

    def _after(self, trigger: "Trigger", moment: datetime) -> datetime | None:
        start = moment + timedelta(microseconds=1)
        while True:
            at = trigger.get_next_fire_time(None, start)
            # Of an hour that comes twice, an entry for that hour takes the first; one for every hour takes both.
            if at is None or not at.fold or self._every_hour:
                return at.astimezone(UTC) if at is not None else None
            start = at.astimezone(UTC) + timedelta(seconds=1)  # in UTC: a sum of wall times forgets which of the two it was

    def newest(self, since: datetime, now: datetime) -> datetime:
        """The newest time up to `now`; `since` is one that is not later."""
        reach = timedelta(minutes=1)
        newest = since
        while newest == since and now - reach > since:
            at = self.after(now - reach)
            newest = at if at is not None and at <= now else newest
            reach *= 2
        while (at := self.after(newest)) is not None and at <= now:
            newest = at
        return newest


class Trigger(Protocol):
    """What is used of APScheduler's triggers."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first time from `now` on."""


def _cron(text: str, zone: tzinfo) -> list[Trigger]:
    """Five fields as cron reads them: 0 and 7 are Sunday, and of a day of the month and one of the week either will do."""
    from apscheduler.triggers.cron import CronTrigger

    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"cron has five fields (minute hour day month weekday), not {len(fields)}")
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    fields[4] = _weekdays(fields[4].lower())
    both = [[*fields[:4], "*"], [*fields[:2], "*", *fields[3:]]] if either else [fields]
    made: list[Trigger] = [CronTrigger.from_crontab(" ".join(one), timezone=zone) for one in both]
    return made


def _weekdays(text: str) -> str:
    """Days of cron, with their steps, one by one as names: APScheduler counts from Monday, also in */2."""
    names: list[str] = []
    for word in text.split(","):
        span, slash, step = word.partition("/")
        first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
        low = _weekday(first, word)
        high = _weekday(last, word) if dash else 6 if slash else low
        high = 7 if low and dash and last == "sun" else high
        if low > high or (slash and not (step.isdigit() and int(step))):
            raise ValueError(f"weekday {word!r} names no days; a span runs upwards within 0-7")
        names += WEEKDAYS[low : high + 1 : int(step) if slash else 1]
    return "*" if text == "*" else ",".join(dict.fromkeys(names))


def _weekday(text: str, word: str) -> int:
    if text in WEEKDAYS:
        return WEEKDAYS.index(text)
    if text.isdecimal() and int(text) <= 7:
        return int(text)
    raise ValueError(f"weekday {word!r} is neither within 0-7 nor one of {', '.join(WEEKDAYS[:7])}")


def _interval(every_s: float, since: datetime) -> Trigger:
    from apscheduler.triggers.interval import IntervalTrigger

    step = timedelta(seconds=every_s)
    made: Trigger = IntervalTrigger(seconds=every_s, start_date=since + step, timezone=UTC)
    return made


def _wrong(key: str, entry: Timed, why: str) -> ConfigError:
    said = f"cron = {entry.cron!r}" if entry.cron else f"every_s = {entry.every_s!r}"
    hint = 'five fields: minute hour day month weekday, for example "0 3 * * sat"' if entry.cron else "seconds: 3600 is an hour, 86400 a day"
    return ConfigError(f"{key}.{said}: {why}", hint=hint, code="CONFIG_VALUE")


# ---------------------------------------------------------------- the schedule as a whole


@dataclass(slots=True)
class _Now:
    """The last look at both clocks."""

    wall: datetime
    elapsed_s: float


class Comings:
    """When each of some entries comes, by a clock that may be wrong. Whoever has one keeps its plans.

    Args: plans: as they were kept. keep: makes changed plans durable; raises OSError.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        keep: Callable[[Mapping[str, Plan]], None],
        *,
        now: Callable[[], datetime] = clock.now,
        elapsed_s: Callable[[], float] = clock.elapsed_s,
        rng: random.Random | None = None,
    ) -> None:
        self._keep = keep
        self._now = now
        self._elapsed_s = elapsed_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, protects nothing
        self._entries: Mapping[str, Timed] = {}
        self._keys: Mapping[str, str] = {}
        self._times: dict[str, Times] = {}
        self._zone: tzinfo = UTC
        self._where = ENTRIES
        self.plans: Mapping[str, Plan] = dict(plans)
        self._held_until_s: dict[str, float] = {}
        self._looked = _Now(now(), elapsed_s())

    def follow(self, entries: Mapping[str, Timed], keys: Mapping[str, str], zone: tzinfo, where: str = ENTRIES) -> None:
        """Go by these entries from now on. Raises ConfigError, and nothing has changed, where one is wrong.

        A new or changed one, by its key, begins now; one that was taken out is forgotten.
        """
        now = self._now()
        known = {name: plan for name, plan in self.plans.items() if plan.key == keys.get(name)}
        since = {name: known[name].since if name in known else now for name in entries}
        times = {name: Times(name, entry, zone, since[name], where) for name, entry in entries.items()}
        self._entries, self._keys, self._times, self._zone, self._where = entries, keys, times, zone, where
        plans = {name: known.get(name) or self._planned(name, now, now, None) for name in entries}
        changed, self.plans = plans != self.plans, plans
        self._held_until_s = {name: until_s for name, until_s in self._held_until_s.items() if name in known}  # a changed entry waits for nothing
        self._replan(now)
        if changed:
            self._keep(self.plans)

    def look(self) -> dict[str, datetime]:
        """The entries whose time has come, each once, with the newest time that was due."""
        now, elapsed_s = self._now(), self._elapsed_s()
        slept = (now - self._looked.wall).total_seconds() - (elapsed_s - self._looked.elapsed_s)
        self._looked = _Now(now, elapsed_s)
        if abs(slept) > JUMP_S:
            log.warning("the clock was set by %.0f s", slept, extra={"action": "clock_set"})
            self._replan(now)
        due = [name for name, plan in self.plans.items() if now >= plan.comes_at and elapsed_s >= self._held_until_s.get(name, elapsed_s)]
        return {name: self._times[name].newest(self.plans[name].next, now) for name in due}

    def fired(self, name: str, at: datetime) -> None:
        """Remember that what an entry asks for at this time was begun, and when it comes again. Raises OSError; it counts all the same."""
        now = self._now()
        plan = self._planned(name, self.plans[name].since, max(now, at), at)
        self.plans = {**self.plans, name: plan}
        self._held_until_s[name] = self._elapsed_s() + max(0.0, (plan.next - now).total_seconds() / 2)
        self._keep(self.plans)

    def _planned(self, name: str, since: datetime, now: datetime, last: datetime | None) -> Plan:
        entry, times = self._entries[name], self._times[name]
        comes = times.after(now) or now + timedelta(days=366)
        following = times.after(comes) or comes
        room_s = min(entry.jitter_s, max(0.0, (following - comes).total_seconds() - 1))  # a time put off stays before the one after it
        return Plan(key=self._keys[name], since=since, next=comes, put_off_s=self._rng.uniform(0, room_s), last=last)

    def _replan(self, now: datetime) -> None:
        """The clock was set back: what would come too late is planned from the present."""
        for name, plan in self.plans.items():
            if plan.since > now:
                self._times[name] = Times(name, self._entries[name], self._zone, now, self._where)
            comes = self._times[name].after(now)
            if comes is not None and comes < plan.next:
                self.plans = {**self.plans, name: replace(plan, since=min(plan.since, now), next=comes)}


class Schedules:
    """What is due. Only the daemon has one; `lorad schedule` reads its file."""

    def __init__(
        self, home: Home, *, now: Callable[[], datetime] = clock.now, elapsed_s: Callable[[], float] = clock.elapsed_s, rng: random.Random | None = None
    ) -> None:
        self._now = now
        self._config = ScheduleConfig()
        self._zone: tzinfo = UTC
        self._comings = Comings(read_plans(home), lambda plans: write_plans(home, plans), now=now, elapsed_s=elapsed_s, rng=rng)
        self._closed: tuple[datetime, str] | None = None

    def follow(self, config: ScheduleConfig) -> None:
        """Go by this schedule from now on. Raises ConfigError, and nothing has changed, where an entry is wrong.

        A new or changed entry begins now; one that was taken out is forgotten.
        """
        zone = zone_of(config)
        self._comings.follow(config.entries, {name: key_of(entry, zone) for name, entry in config.entries.items()}, zone)
        self._config, self._zone, self._closed = config, zone, None

    def look(self) -> tuple[Due, ...]:
        """The entries whose time has come, each once, with the newest time that was due."""
        found = ((name, self._config.entries[name], at) for name, at in self._comings.look().items())
        return tuple(Due(entry=name, does=entry.does, adapter=entry.adapter, at=at) for name, entry, at in found)

    def fired(self, due: Due) -> None:
        """Remember that what `due` asks for was begun, and when the entry comes again. Raises OSError; it counts all the same."""
        self._comings.fired(due.entry, due.at)

    def closed(self) -> str:
        """Why the calendar lets nothing train now, in words; empty: it does."""
        now = self._now().replace(microsecond=0)
        if self._closed is None or self._closed[0] != now:
            found = closed_at(self._config.windows, self._config.quiet_hours, now, self._zone)
            self._closed = (now, in_words(found, self._zone) if found else "")
        return self._closed[1]


def check_crons(config: Config) -> None:
    """Raises ConfigError where the cron text of a trigger is wrong, or names no time at all."""
    zone = zone_of(config.schedule)
    for name, trigger in config.triggers.items():
        for place, conditions in (("any", trigger.any), ("all", trigger.all)):
            for number, one in enumerate(conditions):
                if one.cron:
                    Times(f"{name}.{place}.{number}", Cron(one.cron), zone, clock.now(), TRIGGERS)


def key_of(entry: ScheduleEntry, zone: tzinfo) -> str:
    """What an entry says, in short: a plan made for another text does not count."""
    said = json.dumps([entry.model_dump(mode="json"), str(zone) if entry.cron else ""], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def mark_of(due: Due) -> str:
    """The last part of the id of the job that `due` makes, the same at every repeat."""
    return hashlib.sha256(f"{due.entry} {due.at.isoformat()}".encode()).hexdigest()[:12]


def read_plans(home: Home) -> Mapping[str, Plan]:
    """The plans on disk; none where the file is missing or damaged: then every entry begins anew."""
    try:
        return read(Plans, home.schedule).entries
    except FileNotFoundError:
        return {}
    except IntegrityError as error:
        log.warning("%s; the schedule begins anew", error.what, extra={"action": "record_damaged"})
        return {}


def write_plans(home: Home, plans: Mapping[str, Plan]) -> None:
    """Replace `schedule.json` durably."""
    home.schedule.parent.mkdir(exist_ok=True)
    write(home.schedule, Plans(entries=plans))
