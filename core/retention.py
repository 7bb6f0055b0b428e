"""What may be deleted, and in which order, so that home keeps to its counts, its budget and its floor of free space. Pure.

Never: what belongs to a job that is on its way or unknown; an adapter's newest and best checkpoint; a release that is live,
was live before it, is wished for, is compared against, is pinned, or is the newest of its adapter and not expired; the newest snapshot; an
accepted drop. Nothing at all goes where the list of what is needed cannot be trusted.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from core.sections import RetentionConfig

WHOLE_AFTER = 5  # a job's last small files (verdict, ranking, log) go once it is so many times keep_jobs from the newest
REJECTED_STAYS = timedelta(days=7)  # somebody may still want to read why


class Part(StrEnum):
    """What a thing is; under pressure the parts go in this order, and each from the oldest."""

    RESUME = "resume point"  # of an ended job: nothing goes on from it
    CHECKPOINT = "checkpoint"
    SNAPSHOT = "snapshot"
    RESULTS = "scores and samples"
    RUNS = "runs"  # what is left of the run folders of a job: verdict, ranking, exit, log
    REJECTED = "rejected drop"
    RELEASE = "release"


OF_JOBS = frozenset({Part.RESUME, Part.CHECKPOINT, Part.RESULTS, Part.RUNS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A thing on disk that can go by itself. `bytes` and `inodes` are what its going frees: bytes that others link to count nothing."""

    part: Part
    paths: tuple[str, ...]  # relative to home
    owner: str  # id of the job, release, snapshot or drop
    adapter: str = ""
    bytes: int = 0
    inodes: int = 0
    at: datetime
    step: int = 0  # of a checkpoint
    best: bool = False  # a checkpoint that ranking found to be its job's best
    version: int = 0  # of a release
    expires_at: datetime | None = None  # of a release: from then on only what is in use keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRef:
    """An ended job."""

    adapter: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What is needed. A job that is not in `ended` is on its way or unknown: nothing of it goes."""

    ended: Mapping[str, EndedRef] = field(default_factory=dict)
    releases: Mapping[str, str] = field(default_factory=dict)  # release -> why it stays
    trouble: str = ""  # why this list cannot be trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How much has to be freed beside what the counts let go."""

    bytes: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """Something that may be deleted, and the rule that lets it go, in words."""

    item: Item
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes, in order. `missing_bytes` and `missing_inodes`: what could not be found although it was asked for."""

    going: tuple[Going, ...] = ()
    missing_bytes: int = 0
    missing_inodes: int = 0
    refused: str = ""

    @property
    def bytes(self) -> int:
        """Bytes on disk of all that goes."""
        return sum(one.item.bytes for one in self.going)


def plan(items: Sequence[Item], references: References, config: RetentionConfig, pressure: Pressure, now: datetime) -> Plan:
    """What goes: first what the counts do not keep, then, as far as the pressure asks for it, the least needed of the rest."""
    trouble = references.trouble or _empty(items, references)
    if trouble:
        return Plan(refused=trouble, missing_bytes=pressure.bytes, missing_inodes=pressure.inodes)
    shield = Shield(items, references, now)
    free = [item for item in items if not shield.holds(item)]
    going = {id(item): Going(item=item, why=f"expired on {item.expires_at:%Y-%m-%d}") for item in free if is_expired(item, now)}
    going = {id(one.item): one for one in _beyond_counts(free, items, references, config)} | going
    bytes_left = pressure.bytes - sum(one.item.bytes for one in going.values())
    inodes_left = pressure.inodes - sum(one.item.inodes for one in going.values())
    order = {part: number for number, part in enumerate(Part)}
    for item in sorted(free, key=lambda item: (order[item.part], item.at, item.owner, item.step)):
        if bytes_left <= 0 and inodes_left <= 0:
            break
        if id(item) not in going:
            going[id(item)] = Going(item=item, why="room is needed")
            bytes_left, inodes_left = bytes_left - item.bytes, inodes_left - item.inodes
    return Plan(going=tuple(_in_order(going.values())), missing_bytes=max(0, bytes_left), missing_inodes=max(0, inodes_left))


def pressure_of(config: RetentionConfig, free: tuple[int, int | None], home_bytes: int) -> Pressure:
    """What must go so that the disk's floor and home's budget are kept. `free`: bytes and inodes, None where they are not counted."""
    floor, inodes_floor = room_again(config)
    over = home_bytes - round(config.budget_gb * 1e9) if config.budget_gb else 0
    inodes = inodes_floor - free[1] if free[1] is not None else 0
    return Pressure(bytes=max(0, floor - free[0], over), inodes=max(0, inodes))


def room_again(config: RetentionConfig) -> tuple[int, int]:
    """Free (bytes, inodes) above which training goes on: the floor and a little, so that it does not stop and go by the minute."""
    floor = config.min_free_mb << 20
    return floor + max(32 << 20, floor // 16), config.min_free_inodes + config.min_free_inodes // 10


class Shield:
    """Says of a thing why it must stay."""

    def __init__(self, items: Iterable[Item], references: References, now: datetime) -> None:
        self._references = references
        self._now = now
        everything = list(items)
        releases = [item for item in everything if item.part is Part.RELEASE]
        self._newest_version = _highest((item.adapter, item.version) for item in releases)
        checkpoints = [item for item in everything if item.part is Part.CHECKPOINT]
        self._newest_step = _highest((item.adapter, (item.owner, item.step)) for item in checkpoints)
        self._best_step = _highest((item.adapter, (item.owner, item.step)) for item in checkpoints if item.best)
        snapshots = [item for item in everything if item.part is Part.SNAPSHOT]
        self._newest_snapshot = max((item.owner for item in snapshots), default="")
        self._shielded_jobs = {item.owner for item in checkpoints if self._of_checkpoint(item)}

    def holds(self, item: Item) -> str:
        """Why `item` stays whatever is asked for; empty: it may go."""
        if self._references.trouble:
            return self._references.trouble
        if item.part in OF_JOBS and item.owner not in self._references.ended:
            return "its job is on its way"
        match item.part:
            case Part.CHECKPOINT:
                return self._of_checkpoint(item)
            case Part.RUNS:
                return "its checkpoint stays" if item.owner in self._shielded_jobs else ""
            case Part.RELEASE:
                newest = self._newest_version.get(item.adapter) == item.version and not is_expired(item, self._now)
                return self._references.releases.get(item.owner, "newest" if newest else "")
            case Part.SNAPSHOT:
                return "newest" if item.owner == self._newest_snapshot else ""
            case Part.REJECTED:
                return "of this week" if self._now - item.at < REJECTED_STAYS else ""
        return ""

    def _of_checkpoint(self, item: Item) -> str:
        name = (item.owner, item.step)
        if self._newest_step.get(item.adapter) == name:
            return "newest"
        return "best" if self._best_step.get(item.adapter) == name else ""


def is_expired(item: Item, now: datetime) -> bool:
    """Whether a person said that this release is not wanted any more by now."""
    return item.expires_at is not None and item.expires_at <= now


def _highest(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key not in found or value > found[key]:  # type: ignore[operator]
            found[key] = value
    return found


def _empty(items: Iterable[Item], references: References) -> str:
    if not references.releases and any(item.part is Part.RELEASE for item in items):
        return "there are releases, and nothing says which of them are needed"
    return ""


def _beyond_counts(free: Sequence[Item], items: Sequence[Item], references: References, config: RetentionConfig) -> Iterator[Going]:
    """What is older than the counts keep."""
    rank = _rank_of_jobs(references)
    whole = config.keep_jobs * WHOLE_AFTER
    for item in free:
        place = rank.get(item.owner, 0)
        if item.part in OF_JOBS and place >= config.keep_jobs and (item.part is not Part.RUNS or place >= max(whole, WHOLE_AFTER)):
            yield Going(item=item, why=f"not of the {config.keep_jobs} newest jobs of {item.adapter}")
    beyond = _beyond([item for item in free if item.part is Part.RELEASE], config.keep_releases)
    yield from (Going(item=item, why=f"not of the {config.keep_releases} newest releases of {item.adapter} beside those in use") for item in beyond)
    snapshots = sorted((item for item in items if item.part is Part.SNAPSHOT), key=lambda item: item.owner, reverse=True)
    may_go = {id(item) for item in free}
    for item in snapshots[config.keep_snapshots :]:
        if id(item) in may_go:
            yield Going(item=item, why=f"not of the {config.keep_snapshots} newest snapshots")


def _rank_of_jobs(references: References) -> dict[str, int]:
    """Job -> how many ended jobs of its adapter ended after it."""
    of_adapter: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for job, ended in references.ended.items():
        of_adapter[ended.adapter].append((ended.at, job))
    return {job: place for ended_jobs in of_adapter.values() for place, (_, job) in enumerate(sorted(ended_jobs, reverse=True))}


def _beyond(releases: Iterable[Item], keep: int) -> Iterator[Item]:
    of_adapter: dict[str, list[Item]] = defaultdict(list)
    for item in releases:
        of_adapter[item.adapter].append(item)
    for found in of_adapter.values():
        yield from sorted(found, key=lambda item: item.version, reverse=True)[keep:]


def _in_order(going: Iterable[Going]) -> list[Going]:
    """Oldest first; of one job what lies in its folders before the folders themselves."""
    order = {part: number for number, part in enumerate(Part)}
    return sorted(going, key=lambda one: (one.item.part is Part.RUNS, one.item.at, order[one.item.part], one.item.owner, one.item.step))
