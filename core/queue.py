"""The queue: which jobs start training now, why the others wait, and what stops one that is at work. Pure.

Higher priority first. Within a priority a job that has a checkpoint goes on before a new one begins; then comes the
adapter that was served longest ago, so that a busy one cannot starve the others; within an adapter the oldest job.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

from core.devices import slots_with_room
from core.facts import DeviceSeen, Facts, incumbent_of
from core.records import Job, Kind, Queued
from core.sortedids import SortedIds
from core.steps import StartChild, Step

RETRY_FIRST = timedelta(seconds=1)  # after a failed attempt; each later one waits five times as long
RETRY_GROWTH = 5
RETRY_LONGEST = timedelta(minutes=5)
NEVER = datetime(1, 1, 1, tzinfo=UTC)
LOOK_AHEAD = 32  # plain jobs of one line that are looked at for one that names no drop with a check open: these are checked oldest first
DEEP_CHECK = "waits for the deep check of its rows"

Turn = tuple[int, bool, datetime, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePause:
    """`paused.json`: who paused the whole queue, and why. Written by the daemon, gone when it is resumed."""

    at: datetime
    actor: str = ""
    reason: str = ""

    @property
    def words(self) -> str:
        """Who paused the queue and why, in words."""
        return pause_words(self.actor, self.reason)


def pause_words(actor: str, reason: str) -> str:
    """For status: "paused by ann: the GPU is mine"."""
    return f"paused by {actor or 'a person'}" + (f": {reason}" if reason else "")


def retry_at(attempts: int, now: datetime) -> datetime:
    """When the next attempt may begin, after so many that failed."""
    growth = int(RETRY_GROWTH ** min(attempts - 1, 8))
    return now + min(RETRY_FIRST * growth, RETRY_LONGEST)


# ---------------------------------------------------------------- what starts


def decide_start(facts: Facts, free_slots: list[int], now: datetime) -> Iterator[Step]:
    """Start the jobs whose turn it is in the free slots."""
    if not free_slots or not facts.views.queued or why_all_wait(facts):
        return
    served, started = dict(facts.views.served), set[str]()
    while free_slots:
        job = next((job for job in _in_turn(facts, served, now) if job.id not in started and not _names_unproven(job, facts)), None)
        if job is None:
            return
        started.add(job.id)
        served[job.card.adapter] = now
        yield StartChild(job=job.id, kind=Kind.TRAIN, slot=free_slots.pop(0), incumbent=incumbent_of(job.card.adapter, facts))


def _in_turn(facts: Facts, served: dict[str, datetime], now: datetime) -> Iterator[Job]:
    """The queued jobs that may start, but for what they name, in the order of their turns; of a line as many as are looked at."""
    queue = facts.views.queued
    turns: list[tuple[Turn, int, SortedIds | None]] = [(turn(job, served), 0, None) for job in queue.special.values() if _may_start(job, facts, now)]
    turns += [(_turn_of(adapter, priority, line[0], served), 0, line) for adapter, priority, line in queue.lines()]
    heapify(turns)
    while turns:
        its_turn, place, line = heappop(turns)
        if line is None:
            yield queue.special[its_turn[-1]]
            continue
        job = queue.plain(its_turn[-1])
        if place + 1 < min(len(line), LOOK_AHEAD):
            heappush(turns, (_turn_of(job.card.adapter, job.card.priority, line[place + 1], served), place + 1, line))
        if job.card.drop not in facts.unproven:
            yield job


def turn(job: Job, served: dict[str, datetime]) -> Turn:
    """What the queue is sorted by; `served` says when an adapter was last at work."""
    assert isinstance(job.facts, Queued)
    return (-job.card.priority, job.facts.checkpoint is None, served.get(job.card.adapter, NEVER), job.id)


def _turn_of(adapter: str, priority: int, id: str, served: dict[str, datetime]) -> Turn:
    """The turn of a plain job."""
    return (-priority, True, served.get(adapter, NEVER), id)


def _may_start(job: Job, facts: Facts, now: datetime) -> bool:
    work = job.facts
    assert isinstance(work, Queued)
    if work.paused or (work.not_before is not None and now < work.not_before):
        return False
    return job.card.drop not in facts.unproven  # whether it names another one costs more: see `_names_unproven`


def _names_unproven(job: Job, facts: Facts) -> bool:
    card = job.card
    unproven = facts.unproven_of.get(card.adapter, ())
    return any(card.trains_on(drop, card.adapter) for drop in unproven[: bisect_right(unproven, card.drop)])


def usable_slots(facts: Facts) -> list[int]:
    """The free slots whose device nobody else holds, that is not too hot, and has room beside what trains on it already."""
    barred = {device.slot for device in facts.devices if why_barred(device)}
    return slots_with_room(facts, [slot for slot in facts.free_slots if slot not in barred])


def why_barred(device: DeviceSeen) -> str:
    """Why nothing starts on a device now, in words; empty: it may."""
    if device.foreign:
        return f"{device.name} is held by {device.foreign}"
    return f"{device.name}: {device.hot}" if device.hot else ""


# ---------------------------------------------------------------- why the others wait


def why_stop(facts: Facts) -> str:
    """Why no training may go on, in words: one at work writes a checkpoint and goes back to the queue. Empty: it may."""
    return facts.paused or facts.closed or facts.disk.low


def why_all_wait(facts: Facts) -> str:
    """Why no job at all starts now, in words. Empty: the next one may, in a slot that is free."""
    if reason := why_stop(facts):
        return reason
    if facts.base_sha256 is None:
        return "waits for the base model"
    return facts.disk.short


def why_waits(job: Job, facts: Facts, now: datetime) -> str:
    """Why a queued job does not train yet, in words for the listing. Never written into its folder: it may change with every tick."""
    work = job.facts
    assert isinstance(work, Queued)
    if work.paused:
        return work.paused
    if reason := why_all_wait(facts):
        return reason
    if work.not_before is not None and now < work.not_before:
        before = f"{work.reason}; tried again" if work.attempts else "not"
        return f"{before} before {work.not_before:%Y-%m-%d %H:%M:%S}Z"
    if job.card.drop in facts.unproven or _names_unproven(job, facts):
        return DEEP_CHECK
    return _why_barred_all(facts) or work.reason


def _why_barred_all(facts: Facts) -> str:
    """Why no device takes a job, in words; empty: one does."""
    barred = [reason for device in facts.devices if (reason := why_barred(device))]
    return "; ".join(dict.fromkeys(barred)) if len(barred) == len(facts.devices) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What plain jobs wait for (see `core.waiting`), so that nobody has to write it at each of a hundred thousand."""

    all: str = ""
    unproven: Mapping[str, Sequence[str]] = field(default_factory=dict)  # adapter -> its oldest drops with a check open
    barred: str = ""

    def reason(self, adapter: str, drop: str, without: Sequence[str]) -> str:
        """Why a plain job of this adapter waits: made on `drop`, it trains on all before it but for `without`."""
        if self.all:
            return self.all
        if any(unproven <= drop and unproven not in without for unproven in self.unproven.get(adapter, ())):
            return DEEP_CHECK
        return self.barred


def waits_of(facts: Facts) -> Waits:
    """What plain jobs wait for now."""
    unproven = {adapter: drops[:LOOK_AHEAD] for adapter, drops in facts.unproven_of.items()}
    return Waits(all=why_all_wait(facts), unproven=unproven, barred=_why_barred_all(facts))
