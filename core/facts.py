"""What the daemon sees (`Facts`) and what it may do about it (the steps). Both are plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from core.commands import Answer, Command
from core.config import Config
from core.gate import GateResult
from core.lifecycle import Event
from core.records import Drop, Ended, Job, Kind, StateFacts
from core.tasks import ChildSeen
from core.wire import Desired, Observed, Wish

# ---------------------------------------------------------------- what is seen


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
class Facts:
    """Everything that `decide` looks at."""

    instance: str
    config: Config
    backend: str
    base_sha256: str | None  # None: the base is missing
    stopping: bool = False
    disk_free_bytes: int = 1 << 40
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


# ---------------------------------------------------------------- what may be done


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeDrop:
    """Make the claim durable, then rename sidecar and file into the drop's folder."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishClaim:
    """Rename what a broken-off claim left in the inbox."""

    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetClaim:
    """The claimed file is gone: nothing was taken."""

    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDrop:
    """Hand the drop to the gate child; `crashes` counts gate children that died on it."""

    drop: str
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleAgain:
    """The file changed while it was read: wait until it is quiet again."""

    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectDrop:
    """Move the drop to inbox/rejected. With `code`, the report is made from it; else the gate's report is there."""

    drop: str
    code: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptDrop:
    """Place the rows and name the job. `deep`: the check at level deep is to follow."""

    drop: str
    sha256: str
    identity: str
    rows: int
    quarantined: int = 0
    schema_id: str
    level: str = "standard"
    deep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepenDrop:
    """Hand the accepted drop to the background gate; `crashes` counts gate children that died on it."""

    drop: str
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDeep:
    """End the background gate: no job waits for what it checks."""

    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassDeep:
    """The accepted drop has passed: take over what the gate wrote, and let its jobs start."""

    drop: str
    rows: int
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseDeep:
    """The accepted drop has not passed: keep the reports beside it. With `code`, they are made from it."""

    drop: str
    code: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostponeDeep:
    """The machine was wrong, not the rows: try again later."""

    drop: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOut:
    """Write the queued job's card without a drop that was refused after all."""

    job: str
    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeJob:
    """Make the job that the accepted drop names, unless it exists, then mark the drop."""

    drop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Later jobs do not train on this drop."""

    drop: str
    reason: str
    job: str  # its job, whose move waits where this fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    job: str
    event: Event
    facts: StateFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Replace the facts within the state."""

    job: str
    facts: StateFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StartChild:
    """Make the run folder, name the child in the job's facts, then start it."""

    job: str
    kind: Kind
    purpose: str = ""
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChild:
    """Ask the job's child to stop (TERM)."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRelease:
    """Rename the packed release into adapters/, then name it in the job's facts."""

    job: str
    run: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWish:
    """Write desired.json of a target with the next fence."""

    target: str
    alias: str
    wish: Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryJob:
    """Make a new job on the drop of an ended one."""

    command: Command
    of: EndedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    answer: Answer
    log: str = ""  # for the journal: what was asked, who asked, and why
    actor: str = ""
    reason: str = ""


Step = (
    TakeDrop
    | FinishClaim
    | ForgetClaim
    | GateDrop
    | SettleAgain
    | RejectDrop
    | AcceptDrop
    | DeepenDrop
    | StopDeep
    | PassDeep
    | RefuseDeep
    | PostponeDeep
    | TakeOut
    | MakeJob
    | SetAside
    | Move
    | Record
    | StartChild
    | StopChild
    | PlaceRelease
    | SetWish
    | RetryJob
    | Reply
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The steps of one tick, in order."""

    steps: tuple[Step, ...]
    now: datetime
