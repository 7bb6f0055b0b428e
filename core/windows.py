"""Windows and quiet hours: whether training may run at an instant, and until when it may not. Pure.

A span is written "[days ]HH:MM-HH:MM": "22:00-06:30" runs across midnight, "mon-fri 20:00-07:00" belongs to the day on
which it begins, "sat,sun 00:00-24:00" are whole days. Times are those of a wall clock in a zone. Each stands for the first
instant at which such a clock shows it or a later time: a time that a change of the clock leaves out is the instant of
the change, of a time that comes twice it is the first. So a span over the change is an hour shorter or longer, never broken.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SPAN = re.compile(r"(?:(?P<days>[a-z,\- ]+?)\s+)?(?P<begin>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
LOOK_AHEAD_DAYS = 9  # every boundary of a week of spans comes again within so many days
FORM = 'write "22:00-06:30" or "mon-fri 20:00-07:00"'


@dataclass(frozen=True, slots=True)
class Span:
    """A span of each week. Minutes count from midnight; an `end` above 24:00 lies on the next day."""

    text: str
    days: frozenset[int]  # 0 is Monday: the days on which it begins
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing may train now. `until` is when it may again; None: not within the next days."""

    why: str
    until: datetime | None


@cache
def parse_span(text: str) -> Span:
    """The span that `text` names. Raises ValueError with what is wrong."""
    found = SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no span of time: {FORM}")
    begin, end = (_minutes(found[name], text) for name in ("begin", "end"))
    if begin == end:
        raise ValueError(f"{text!r} begins when it ends: the whole day is 00:00-24:00")
    if begin == DAY_MINUTES:
        raise ValueError(f"{text!r} begins at 24:00: that is 00:00 of the next day")
    return Span(text.strip(), _days(found["days"], text), begin, end if end > begin else end + DAY_MINUTES)


def _minutes(clock: str, text: str) -> int:
    hours, minutes = (int(part) for part in clock.split(":"))
    if minutes > 59 or hours * 60 + minutes > DAY_MINUTES:
        raise ValueError(f"{text!r}: {clock} is no time of a day")
    return hours * 60 + minutes


def _days(words: str | None, text: str) -> frozenset[int]:
    if not words:
        return frozenset(range(7))
    days: set[int] = set()
    for word in words.replace(" ", "").split(","):
        first, dash, last = word.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{text!r}: {word!r} is no day of the week; days are {', '.join(DAYS)}")
        start, stop = DAYS.index(first), DAYS.index(last if dash else first)
        days |= {(start + step) % 7 for step in range((stop - start) % 7 + 1)}
    return frozenset(days)


def never_open(windows: Sequence[str], quiet_hours: Sequence[str]) -> bool:
    """Whether no minute of a week is left to train in."""
    if not windows and not quiet_hours:
        return False
    allowed = _week(windows) if windows else set(range(WEEK_MINUTES))
    return not allowed - _week(quiet_hours)


def _week(texts: Sequence[str]) -> set[int]:
    spans = [parse_span(text) for text in texts]
    return {(day * DAY_MINUTES + minute) % WEEK_MINUTES for span in spans for day in span.days for minute in range(span.begin, span.end)}


def instant(day: date, minutes: int, zone: tzinfo) -> datetime:
    """The first instant, in UTC, at which a wall clock in `zone` shows so many minutes after midnight of `day`, or more."""
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - what a wall clock shows has no zone
    early, late = sorted(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if _shown(early, zone) == wall:
        return early
    while late - early > timedelta(seconds=1):  # left out by a change of the clock between the two: find it
        middle = early + (late - early) / 2
        early, late = (early, middle) if _shown(middle, zone) >= wall else (middle, late)
    return late.replace(microsecond=0)


def _shown(at: datetime, zone: tzinfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def closed_at(windows: Sequence[str], quiet_hours: Sequence[str], now: datetime, zone: tzinfo) -> Closed | None:
    """Why nothing may train now and until when, or None where it may.

    Args: windows: training runs only inside these; none: always. quiet_hours: training never runs inside these.
    """
    if not windows and not quiet_hours:
        return None
    day = now.astimezone(zone).date() - timedelta(days=1)
    opened, quiet = (list(_spells(texts, day, zone)) for texts in (windows, quiet_hours))
    why = _why(now, opened if windows else None, quiet)
    if not why:
        return None
    starts = {begin for begin, _, _ in opened} | {end for _, end, _ in quiet}
    until = next((at for at in sorted(starts) if at > now and not _why(at, opened if windows else None, quiet)), None)
    return Closed(why, until)


def _spells(texts: Sequence[str], day: date, zone: tzinfo) -> Iterator[tuple[datetime, datetime, str]]:
    for ahead in range(LOOK_AHEAD_DAYS + 1):
        this = day + timedelta(days=ahead)
        for span in map(parse_span, texts):
            if this.weekday() in span.days:
                yield instant(this, span.begin, zone), instant(this, span.end, zone), span.text


def _why(now: datetime, opened: list[tuple[datetime, datetime, str]] | None, quiet: list[tuple[datetime, datetime, str]]) -> str:
    for begin, end, text in quiet:
        if begin <= now < end:
            return f"quiet hours {text}"
    if opened is not None and not any(begin <= now < end for begin, end, _ in opened):
        return f"outside the training windows {', '.join(dict.fromkeys(text for _, _, text in opened))}"
    return ""


def in_words(closed: Closed, zone: tzinfo) -> str:
    """For status: "quiet hours 07:00-22:00, until Mon 22:00"."""
    return f"{closed.why}, until {closed.until.astimezone(zone):%a %H:%M}" if closed.until else f"{closed.why}, for more than {LOOK_AHEAD_DAYS - 1} days"
