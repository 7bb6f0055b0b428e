"""What is still to be sent to people, and when it is tried again. Pure.

A notice goes to every channel once. One that a channel did not take is tried again for a day, later each time; the others
do not get it a second time. After a crash a notice may be sent twice, with the same id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from core.notices import Book, Notice

AGAIN_S = (10.0, 60.0, 300.0, 900.0, 3600.0)  # after the first, second … attempt; the last of them again and again
GIVE_UP = timedelta(hours=24)
MOST = 300  # notices that wait; of more the oldest are given up
BATCH = 20  # sent by one child


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A notice that not every channel has taken."""

    notice: Notice
    delivered: tuple[str, ...] = ()  # channels that have it
    attempts: int = 0
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of one attempt: the channels that took the notice, and why the others did not."""

    delivered: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # channel -> why, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """All that waits, and how the channels fare."""

    waiting: tuple[Pending, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # channel -> why its last attempt failed; gone once one succeeds
    given_up: int = 0  # notices that some channel never took


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`series/alerts.json`."""

    book: Book
    outbox: Outbox = Outbox()
    format: int = 1


def put(outbox: Outbox, notices: tuple[Notice, ...]) -> Outbox:
    """The outbox with these behind what waits."""
    waiting = (*outbox.waiting, *(Pending(notice=notice) for notice in notices))
    num_too_many = max(0, len(waiting) - MOST)
    return replace(outbox, waiting=waiting[num_too_many:], given_up=outbox.given_up + num_too_many)


def due(outbox: Outbox, now: datetime) -> tuple[Pending, ...]:
    """What is to be sent now, oldest first."""
    latest = now + timedelta(seconds=AGAIN_S[-1])  # a later time was set before the clock was set back
    return tuple(one for one in outbox.waiting if one.not_before is None or not now < one.not_before <= latest)[:BATCH]


def after(outbox: Outbox, sent: Mapping[str, Sent], now: datetime) -> Outbox:
    """The outbox after an attempt; `sent` says by notice what came of it."""
    waiting, given_up = [], outbox.given_up
    failed = dict(outbox.failed)
    for one in outbox.waiting:
        result = sent.get(one.notice.id)
        if result is None:
            waiting.append(one)
            continue
        for channel in result.delivered:
            failed.pop(channel, None)
        failed |= result.failed
        if not result.failed:
            continue
        if now - one.notice.at > GIVE_UP:
            given_up += 1
            continue
        wait_s = AGAIN_S[min(one.attempts, len(AGAIN_S) - 1)]
        delivered = tuple(dict.fromkeys((*one.delivered, *result.delivered)))
        waiting.append(replace(one, delivered=delivered, attempts=one.attempts + 1, not_before=now + timedelta(seconds=wait_s)))
    return replace(outbox, waiting=tuple(waiting), failed=failed, given_up=given_up)
