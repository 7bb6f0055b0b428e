"""What the daemon sees of the world in one tick: plain values, made by `daemon.observe`, read by `core.reconcile`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from core.commands import Command
from core.config import Config
from core.forgets import ForgetSeen
from core.gate import GateResult
from core.iterations import IterationSeen
from core.jobviews import EndedJob, JobViews
from core.records import Drop, Job
from core.tasks import ChildSeen
from core.trends import Regression
from core.wire import Desired, Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the inbox that may be a drop. `problem` says why it can never be one (not a regular file, a bad folder name)."""

    source: str  # path under inbox/
    adapter: str
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    sidecar: str | None
    renamed: bool  # seen to be renamed into place
    quiet_s: float  # seconds since size, mtime or inode last changed
    parses: bool  # the last line is whole JSON
    written: bool = False  # some process has it open for writing
    problem: str = ""
    total_bytes: int = 0  # of a folder: of all that lies in it

    @property
    def persona(self) -> str:
        """The first half of the adapter's name."""
        return self.adapter.split("/")[0]

    @property
    def held_bytes(self) -> int:
        """What it holds: of a folder all that lies in it."""
        return max(self.size_bytes, self.total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSeen:
    """How new files are noticed: by the system's events, or by looking every second, and why."""

    how: Literal["events", "poll"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSeen:
    """A drop on its way, with what its folder says. `config` is None where the sidecar is wrong."""

    drop: Drop
    config: Config | None = None
    level: str = "standard"  # by sidecar, source, adapter and config
    again: bool = False
    priority: int = 0
    problem: str = ""
    hint: str = ""
    code: str = ""
    at_source: bool = False  # the claimed file still lies in the inbox
    in_folder: bool = False  # the claimed file lies in the drop's folder
    unchanged: bool = True  # size, mtime and inode are still those of the claim


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSeen:
    """The long-lived gate child."""

    alive: bool
    drop: str | None = None  # what it works on, or has answered: the first of `drops`
    result: GateResult | None = None
    died: bool = False  # it ended while it worked on `drop`
    end: str = ""  # how it died, in words
    behind: tuple[str, ...] = ()  # drops that were handed over after `drop`, in order
    results: Mapping[str, GateResult] = field(default_factory=dict)  # of those behind it
    room: int = 1  # how many more small drops it takes while only small ones are at work


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSeen:
    """One target in the order in which targets are asked (canary first)."""

    name: str
    desired: Desired | None
    observed: Observed | None
    live: Mapping[str, str | None] = field(default_factory=dict)  # alias -> release, by the box's ledger
    was_live: frozenset[str] = frozenset()  # releases that the ledger has seen live
    refused: frozenset[str] = frozenset()  # releases that the box has refused for themselves, or rolled back


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """The disk that holds home."""

    free_bytes: int = 1 << 40
    free_inodes: int | None = None  # None: this file system does not count them
    home_bytes: int = 0  # what lorad holds, by the last count
    low: str = ""  # why no training may run now, in words; empty: there is room
    short: str = ""  # why none may start, though one under way goes on: what it needs does not fit above the floor

    def has_room(self, needs_bytes: int = 16 << 20, needs_inodes: int = 200) -> bool:
        """Whether a child of any kind may write that much: one that finds the disk full would only be started again and again."""
        return self.free_bytes >= needs_bytes and (self.free_inodes is None or self.free_inodes >= needs_inodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSeen:
    """The device of one slot: a GPU, or the CPU."""

    slot: int
    name: str  # cpu, cuda:0
    free_bytes: int | None = None  # memory; None: unknown
    total_bytes: int | None = None
    celsius: float | None = None
    foreign: str = ""  # who else holds its memory, in words with the pid; empty: nobody that matters
    hot: str = ""  # why training pauses on it, in words
    held: str = ""  # what its child was told of that; empty: to go on


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A schedule entry whose time has come; several missed times are one."""

    entry: str  # its name in config
    does: str  # train, gc, snapshot, backup
    adapter: str = ""
    drop: str = ""  # train: the adapter's newest accepted drop that is not set aside; empty: there is none
    at: datetime  # the newest time that was due


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that `decide` looks at."""

    instance: str
    config: Config
    backend: str
    base_sha256: str | None  # None: the base is missing
    stopping: bool = False
    disk: DiskSeen = DiskSeen()
    devices: tuple[DeviceSeen, ...] = ()  # by slot; empty: nothing is known of them
    need_bytes: int | None = None  # memory that one training takes, by estimate; None: unknown
    paused: str = ""  # why the whole queue waits (a person said so), in words
    closed: str = ""  # why the calendar lets nothing train now, in words with the time when it opens
    due: tuple[Due, ...] = ()
    watch: WatchSeen = WatchSeen(how="events")
    entries: tuple[Entry, ...] = ()  # the oldest of each adapter; a burst is looked at by and by
    num_entries: int = 0  # all that the last scan found
    taken_bytes: Mapping[str, int] = field(default_factory=dict)  # persona -> bytes of its drops of the last 24 hours; only where there is a quota
    drops: Mapping[str, DropSeen] = field(default_factory=dict)  # settling, gating, accepted without a job or with a check open
    set_aside: frozenset[str] = frozenset()  # accepted drops already set aside
    unproven: frozenset[str] = frozenset()  # accepted drops with a check open: no job that names one is started
    unproven_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same by adapter, oldest first
    gate: GateSeen = GateSeen(alive=False)
    deep_gate: GateSeen = GateSeen(alive=False)  # the child that checks accepted drops in the background
    trained_specs: tuple[str, ...] = ()  # ids of the schemas whose rows a backend trains
    jobs: Mapping[str, Job] = field(default_factory=dict)  # not ended
    ended: Mapping[str, EndedJob] = field(default_factory=dict)
    children: Mapping[str, ChildSeen] = field(default_factory=dict)  # by job id: the child named in its facts
    free_slots: tuple[int, ...] = ()
    refused: bool = False  # the machine refused to start a child a moment ago: none is tried now, as each try leaves a run folder
    targets: tuple[TargetSeen, ...] = ()
    commands: tuple[Command, ...] = ()
    forgets: tuple[ForgetSeen, ...] = ()  # orders to forget that are not done
    iterations: tuple[IterationSeen, ...] = ()  # those that have not ended
    forgotten: frozenset[str] = frozenset()  # SHA-256 of drops that were forgotten
    versions: Mapping[str, int] = field(default_factory=dict)  # adapter -> highest version taken
    releases: Mapping[str, int] = field(default_factory=dict)  # release id -> version, of the releases on this box
    regressions: tuple[Regression, ...] = ()  # what is proven to have become worse about the releases that are live
    views: JobViews = field(default_factory=JobViews)  # the same jobs by what decisions ask of them

    def __post_init__(self) -> None:
        if not self.views.counts and (self.jobs or self.ended):  # whoever keeps no views, as tests do, has them made
            object.__setattr__(self, "views", JobViews.of(self.jobs.values(), self.ended.values()))


def live_release(adapter: str, facts: Facts) -> str | None:
    """What the first target's ledger says is live; None is the base."""
    return facts.targets[0].live.get(adapter) if facts.targets else None


def incumbent_of(adapter: str, facts: Facts) -> str | None:
    """What a candidate has to beat: what is live; where that learnt from rows that are being forgotten, the newest release that did not.

    A release that has to go is no measure: it has seen rows that its successor must not see.
    """
    live = live_release(adapter, facts)
    for seen in facts.forgets:
        if live in seen.touched:
            return seen.fallback.get(adapter)
    return live
