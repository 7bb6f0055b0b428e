"""When alerts are told, told again, and taken back. Pure.

An alert is known by its rule and by what it is about. It is told when it comes up; again while it lasts, the first time
after `alerts.cooldown_s`, then each time after twice as long; and once more when it is over. One that comes back within the
cooldown is counted, and told once that has passed. Of a flood of one rule the first ten in ten minutes are told, the rest
as one number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from core.alerts import RULES, Alert, Severity
from core.sections import AlertsConfig

BURST = 10  # of one rule in BURST_S; the rest is counted
BURST_S = 600.0
SOONEST_S = 60.0  # between two reminders, where the cooldown is 0
LONGEST_S = 24 * 3600.0
KEPT = timedelta(days=7)  # an alert that is over, for `lorad alerts list`
MOST = 500  # entries of the book


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is remembered of an alert."""

    alert: Alert
    opened_at: datetime
    is_open: bool = True
    told_at: datetime | None = None  # None: not yet, or not since it is open
    told: int = 0  # times since it is open
    untold: int = 0  # times that it came up and was not told, since it was told last


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message to people. `id` stays the same when it is sent again."""

    id: str
    kind: str  # opened, reminder, resolved, happened, more, test
    at: datetime
    alert: Alert
    opened_at: datetime
    more: int = 0  # times that it came up and was not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What was told when. Lives in `series/alerts.json`, so that a restart repeats nothing."""

    begun_at: datetime
    entries: Mapping[str, Entry] = field(default_factory=dict)
    told: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)  # rule -> when, within BURST_S
    flood: Mapping[str, int] = field(default_factory=dict)  # rule -> alerts that were too many to be told
    count: int = 0  # notices ever made


def turn(book: Book, found: Mapping[str, Alert], config: AlertsConfig, now: datetime) -> tuple[Book, tuple[Notice, ...]]:
    """The book after what the rules have `found`, by key, and what is to be told now. The same book where nothing is new."""
    return _Turn(book, config, now).run(found)


class _Turn:
    """One look: writes into copies, which become the next book."""

    def __init__(self, book: Book, config: AlertsConfig, now: datetime) -> None:
        self.now, self.config, self.book = now, config, book
        self.entries = dict(book.entries)
        since = self.now - timedelta(seconds=BURST_S)
        self.told = {rule: kept for rule, times in book.told.items() if (kept := tuple(at for at in times if since < at <= self.now))}
        self.flood = dict(book.flood)
        self.count = book.count
        self.notices: list[Notice] = []

    def run(self, found: Mapping[str, Alert]) -> tuple[Book, tuple[Notice, ...]]:
        for key, alert in found.items():
            self._found(key, alert)
        for key, entry in self.book.entries.items():
            if entry.is_open and key not in found:
                self._over(key, entry)  # of a rule that is turned off now, too, but without a word
        for rule in self.book.flood:
            self._tell_flood(rule)
        self._forget()
        after = replace(self.book, entries=self.entries, told=self.told, flood=self.flood, count=self.count)
        return (after if after != self.book else self.book), tuple(self.notices)

    def _found(self, key: str, alert: Alert) -> None:
        lasts = alert.rule not in RULES or RULES[alert.rule].lasts
        entry = self.entries.get(key)
        if entry is None:
            entry = Entry(alert=alert, opened_at=self.now)
        elif not entry.is_open:
            entry = replace(entry, alert=alert, opened_at=self.now, is_open=True, told=0)
            entry = entry if self._may_tell(entry) else replace(entry, untold=entry.untold + 1)
        elif entry.alert != alert and (self._may_tell(entry) or entry.alert.severity != alert.severity):
            entry = replace(entry, alert=alert)  # else the words of the first time: seconds that count on are no news
        if self._may_tell(entry) and self._has_room(alert.rule):
            self._tell("happened" if not lasts else "reminder" if entry.told else "opened", entry)
            entry = replace(entry, told_at=self.now, told=entry.told + 1, untold=0)
        elif self._may_tell(entry):
            self.flood[alert.rule] = self.flood.get(alert.rule, 0) + 1
            entry = replace(entry, told_at=self.now)
        self.entries[key] = entry if lasts else replace(entry, is_open=False)

    def _may_tell(self, entry: Entry) -> bool:
        if entry.told_at is None:
            return True
        cooldown_s = self.config.cooldown_s if not entry.told else self.config.cooldown_s or SOONEST_S
        wait = timedelta(seconds=min(cooldown_s * 2 ** min(max(0, entry.told - 1), 10), max(LONGEST_S, cooldown_s)))
        return not self.now - wait < entry.told_at <= self.now + timedelta(minutes=1)  # a later time was told before the clock was set back

    def _over(self, key: str, entry: Entry) -> None:
        if entry.told and entry.alert.rule not in self.config.off:
            self._tell("resolved", entry)
        self.entries[key] = replace(entry, is_open=False)

    def _has_room(self, rule: str) -> bool:
        return len(self.told.get(rule, ())) < BURST

    def _tell_flood(self, rule: str) -> None:
        """How many were too many, once there is room again."""
        if not self._has_room(rule) or not self.flood[rule]:
            return
        number = self.flood.pop(rule)
        reason = f"more than {BURST} came in {BURST_S / 60:.0f} minutes; these {number:,} were not told one by one"
        alert = Alert(rule=rule, about="more", severity=Severity.WARNING, title=f"{rule}: {number:,} more", reason=reason, next="lorad alerts list")
        self._tell("more", Entry(alert=alert, opened_at=self.now, untold=number))

    def _tell(self, kind: str, entry: Entry) -> None:
        rule = entry.alert.rule
        self.count += 1
        identity = f"{self.book.begun_at:%Y%m%d%H%M%S}-{self.count}"
        self.notices.append(Notice(id=identity, kind=kind, at=self.now, alert=entry.alert, opened_at=entry.opened_at, more=entry.untold))
        if kind != "resolved":
            self.told[rule] = (*self.told.get(rule, ()), self.now)

    def _forget(self) -> None:
        over = [key for key, entry in self.entries.items() if not entry.is_open]
        over.sort(key=lambda key: self.entries[key].opened_at)
        num_too_many = len(self.entries) - MOST
        for number, key in enumerate(over):
            if number < num_too_many or self.now - self.entries[key].opened_at > KEPT:
                del self.entries[key]
