"""What the daemon sees of the world in one tick: plain values, made by `daemon.observe`, read by `core.reconcile`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from core.commands import Command
from core.config import Config
from core.gate import GateResult
from core.records import Drop, Ended, Job
from core.tasks import ChildSeen
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
    drop: str | None = None  # what it works on
    result: GateResult | None = None
    died: bool = False  # it ended while it worked on `drop`
    end: str = ""  # how it died, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """What later decisions need of an ended job."""

    id: str
    adapter: str
    drop: str
    identity: str
    state: str
    facts: Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSeen:
    """One target in the order in which targets are asked (canary first)."""

    name: str
    desired: Desired | None
    observed: Observed | None
    live: Mapping[str, str | None] = field(default_factory=dict)  # alias -> release, by the box's ledger
    was_live: frozenset[str] = frozenset()  # releases that the ledger has seen live


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """The disk that holds home."""

    free_bytes: int = 1 << 40
    free_inodes: int | None = None  # None: this file system does not count them
    home_bytes: int = 0  # what lorad holds, by the last count
    low: str = ""  # why no training may run now, in words; empty: there is room


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A schedule entry whose time has come; several missed times are one."""

    entry: str  # its name in config
    does: str  # train, gc, snapshot, backup
    adapter: str = ""
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
    paused: str = ""  # why the whole queue waits (a person said so), in words
    closed: str = ""  # why the calendar lets nothing train now, in words with the time when it opens
    due: tuple[Due, ...] = ()
    entries: tuple[Entry, ...] = ()
    drops: Mapping[str, DropSeen] = field(default_factory=dict)  # settling, gating, accepted without a job or with a check open
    set_aside: frozenset[str] = frozenset()  # accepted drops already set aside
    unproven: frozenset[str] = frozenset()  # accepted drops with a check open: no job that names one is started
    gate: GateSeen = GateSeen(alive=False)
    deep_gate: GateSeen = GateSeen(alive=False)  # the child that checks accepted drops in the background
    trained_specs: tuple[str, ...] = ()  # ids of the schemas whose rows a backend trains
    jobs: Mapping[str, Job] = field(default_factory=dict)  # not ended
    ended: Mapping[str, EndedJob] = field(default_factory=dict)
    children: Mapping[str, ChildSeen] = field(default_factory=dict)  # by job id: the child named in its facts
    free_slots: tuple[int, ...] = ()
    targets: tuple[TargetSeen, ...] = ()
    commands: tuple[Command, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)  # adapter -> highest version taken
    releases: Mapping[str, int] = field(default_factory=dict)  # release id -> version, of the releases on this box
