"""Decides when the pending rows of an adapter become a drop, and says why, or why not, and when they could. Pure.

A trigger fires where its conditions hold, enough rows are new, and no brake is on. What it fires is one batch of all that is
pending, whichever trigger it was; so what has to stay apart (cool-down, cap per day, new rows) is counted by adapter.

Three things take care that much at once becomes one batch and not many: while rows still pour in, nothing fires; while the
adapter's own training is on its way, nothing fires; and a time of a cron text that has come stays open until it has led to
a firing, so that the times of a week that was missed are one. It is passed over where `LINGER_S` after it was noticed there
still is too little to fire with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.conditions import Firing, Part, Past, Seen, Stamp, cron_key, mark_key, part_of, shown, span
from core.config import Config
from core.learning import DEFAULT_TRIGGERS, ConditionConfig, TriggerConfig
from core.signals import MOST_OF_A_BATCH

CALM_S = 10.0  # no new row for so long: a box is looked at every few seconds, so a storm has no such gap
LONGEST_S = 300.0  # so long rows that keep coming put a firing off
LINGER_S = 600.0  # rows that arrive so long after the time of a cron text still count for it
DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """What keeps a trigger from firing, though its conditions hold; until when, where that is known."""

    words: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One trigger and one adapter, as they stand now."""

    trigger: str
    seen: Seen
    any: tuple[Part, ...]
    all: tuple[Part, ...]
    enough: Part  # of new rows
    brakes: tuple[Brake, ...]
    last: Firing | None = None
    pours: bool = False  # it would fire, but for rows that keep coming in

    @property
    def adapter(self) -> str:
        """Whose pending rows it is about."""
        return self.seen.adapter

    @property
    def holds(self) -> bool:
        """Whether all that it asks for is so."""
        return self.enough.holds and self.asked

    @property
    def asked(self) -> bool:
        """Whether its conditions hold, however few rows are new."""
        return (not self.any or any(part.holds for part in self.any)) and all(part.holds for part in self.all)

    @property
    def fires(self) -> bool:
        """Whether it fires now."""
        return self.holds and not self.brakes

    @property
    def why(self) -> str:
        """Of one that fires: what made it."""
        held = [part.words for part in (*self.any, *self.all) if part.holds]
        return "; ".join(dict.fromkeys(held))

    @property
    def words(self) -> str:
        """Whether it fires, or the first things that keep it from it."""
        if self.fires:
            return f"fires: {self.why}"
        if self.holds:
            return "; ".join(brake.words for brake in self.brakes)
        missing = [] if self.enough.holds else [self.enough.words]
        missing += [part.words for part in self.all if not part.holds]
        if self.any and not any(part.holds for part in self.any):
            missing.append(" and ".join(part.words for part in self.any))
        return "; ".join(missing)

    @property
    def next_at(self) -> datetime | None:
        """The first time at which it could fire by itself, as far as times alone decide; None: something else has to happen."""
        now = self.seen.now.at
        times: list[datetime | None] = [now if self.enough.holds else None]
        times += [now if part.holds else part.at for part in self.all]
        if self.any:
            known = [at for part in self.any if (at := now if part.holds else part.at) is not None]
            times.append(min(known, default=None))
        times += [brake.until for brake in self.brakes]
        if any(at is None for at in times):
            return None
        return self.seen.opens(max(at for at in times if at is not None))

    @property
    def next_in_words(self) -> str:
        """When it could fire next, for people."""
        if self.fires:
            return "now"
        if (at := self.next_at) is not None:
            return f"{shown(at, self.seen.zone)} (in {span((at - self.seen.now.at).total_seconds())})"
        if not self.enough.holds:
            return "when there are more new rows"
        return "when what holds it up has ended" if self.holds else "when its conditions hold"


def judge(name: str, config: TriggerConfig, seen: Seen, past: Past, ripe_s: float = 0.0) -> Judgement:
    """Whether the trigger fires for the adapter that was seen.

    Args: ripe_s: how long it would have fired already, but for rows that keep coming in.
    """
    fresh = past.new_rows(seen.rows, seen.arrived, seen.quarantined)
    enough = Part(words=f"{fresh:,} new rows, of at least {config.min_rows:,}", holds=fresh >= config.min_rows)
    found = Judgement(
        trigger=name,
        seen=seen,
        any=tuple(part_of(name, one, seen, past) for one in config.any),
        all=tuple(part_of(name, one, seen, past) for one in config.all),
        enough=enough,
        brakes=tuple(_brakes(config, seen, past)),
        last=past.last,
    )
    if found.fires and seen.calm_s < CALM_S and ripe_s < LONGEST_S:
        until = seen.now.at + timedelta(seconds=min(CALM_S - seen.calm_s, LONGEST_S - ripe_s))
        found = replace(found, brakes=(Brake(words="rows are still coming in", until=until),), pours=True)
    return found


def _brakes(config: TriggerConfig, seen: Seen, past: Past) -> Iterator[Brake]:
    if seen.stopped:
        yield Brake(words=f"continuous mode of {seen.adapter} is stopped")
    if seen.waits:
        yield Brake(words=f"nothing may train: {seen.waits}", until=_reopens(seen))
    if seen.busy:
        yield Brake(words=seen.busy)
    now = seen.now
    if past.last is not None and (left_s := config.cooldown_s - past.last.stamp.passed_s(now)) > 0:
        until = now.at + timedelta(seconds=left_s)
        yield Brake(words=f"cools down after {_by(past.last)} until {shown(until, seen.zone)}", until=until)
    today = [passed_s for one in past.firings if (passed_s := one.stamp.passed_s(now)) < DAY_S]
    if len(today) >= config.per_day:
        until = now.at + timedelta(seconds=DAY_S - sorted(today)[config.per_day - 1])
        yield Brake(words=f"fired {len(today)} times within a day, of at most {config.per_day}, until {shown(until, seen.zone)}", until=until)


def _by(firing: Firing) -> str:
    return f"{firing.trigger!r}" if not firing.actor else f"{firing.actor}, who fired it,"


def _reopens(seen: Seen) -> datetime | None:
    """When the calendar lets training run again; None where it is not the calendar that is in the way."""
    at = seen.opens(seen.now.at)
    return at if at is not None and at > seen.now.at else None


# ---------------------------------------------------------------- what becomes of the past


def triggers_of(config: Config) -> Mapping[str, TriggerConfig]:
    """The triggers of a config; where it names none, those that stand in for them."""
    return config.triggers or DEFAULT_TRIGGERS


def covered(config: TriggerConfig, adapter: str) -> bool:
    """Whether the trigger is about this adapter."""
    return config.adapter in ("*", "", adapter)


def conditions_of(config: TriggerConfig) -> tuple[ConditionConfig, ...]:
    """All its conditions."""
    return (*config.any, *config.all)


def crons_of(triggers: Mapping[str, TriggerConfig]) -> dict[str, str]:
    """Key -> cron text, of all triggers."""
    return {cron_key(name, one.cron): one.cron for name, config in triggers.items() for one in conditions_of(config) if one.cron}


def files_of(triggers: Mapping[str, TriggerConfig]) -> dict[str, str]:
    """Key -> path of each file or folder whose change is waited for."""
    return {mark_key(name, one.changed): one.changed for name, config in triggers.items() for one in conditions_of(config) if one.changed}


def after_firing(past: Past, firing: Firing, config: TriggerConfig | None, seen: Seen) -> Past:
    """The past with one firing more: what it answered is done with. `config` is None where no trigger was named."""
    name, conditions = firing.trigger, conditions_of(config) if config is not None else ()
    done = {key: seen.came[key].at for one in conditions if one.cron and (key := cron_key(name, one.cron)) in seen.came}
    marks = {mark_key(name, one.changed): seen.marks[one.changed] for one in conditions if one.changed and one.changed in seen.marks}
    kept = [one for one in past.firings if one.stamp.passed_s(seen.now) < DAY_S]
    left = max(0, seen.rows - MOST_OF_A_BATCH)  # they make the next batch, and are new until then
    fields = {"arrived": seen.arrived - left, "quarantined": seen.quarantined}
    return Past(firings=(*kept, firing), done={**past.done, **done}, marks={**past.marks, **marks}, **fields)


def begun(past: Past, key: str, batch: str) -> Past:
    """The past in which the firing of this key has its batch."""
    return replace(past, firings=tuple(replace(one, batch=batch) if one.key == key else one for one in past.firings))


def passed_over(name: str, config: TriggerConfig, seen: Seen, past: Past) -> dict[str, datetime]:
    """The times of cron texts that have waited long enough for rows: key -> time. To be asked only where the trigger does not hold."""
    found = {}
    for one in conditions_of(config):
        key = cron_key(name, one.cron)
        came = seen.came.get(key) if one.cron else None
        is_open = came is not None and (key not in past.done or came.at > past.done[key])
        if came is not None and is_open and came.noticed.passed_s(seen.now) >= LINGER_S:
            found[key] = came.at
    return found


def first_marks(name: str, config: TriggerConfig, seen: Seen, past: Past) -> dict[str, str]:
    """Marks of files that are looked at for the first time: from now on a change counts."""
    paths = {mark_key(name, one.changed): one.changed for one in conditions_of(config) if one.changed}
    return {key: seen.marks[path] for key, path in paths.items() if key not in past.marks and path in seen.marks}


def anchored(past: Past, now: Stamp) -> Past:
    """The past where nothing lies ahead: times of a clock that was wrong count as the present."""
    firings = tuple(replace(one, stamp=one.stamp.anchored(now)) for one in past.firings)
    return replace(past, firings=firings, done={key: min(at, now.at) for key, at in past.done.items()})


def pruned(past: Past, triggers: Mapping[str, TriggerConfig]) -> Past:
    """The past without what is of triggers that are gone."""
    crons = crons_of(triggers)
    files = files_of(triggers)
    done = {key: at for key, at in past.done.items() if key in crons}
    return replace(past, done=done, marks={key: mark for key, mark in past.marks.items() if key in files})
