"""What the daemon may do about what it sees: the steps of a decision, plain values that `daemon.apply` carries out."""

from dataclasses import dataclass
from datetime import datetime

from core.commands import Answer, Command
from core.facts import Due, Entry
from core.forgets import Forget
from core.jobviews import EndedJob
from core.lifecycle import Event
from core.loopsteps import LoopStep
from core.ratings import Rating
from core.records import Kind, StateFacts
from core.wire import Terms, Trial, Wish


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
class KeepRating:
    """Make a person's rating of a job durable."""

    job: str
    rating: Rating


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Make a transition of a job durable: the event, and the facts of the state it leads to."""

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
    incumbent: str | None = None  # train: the release that is live; None is the base


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChild:
    """Ask the job's child to stop (TERM); asked again and again, it is killed after a minute.

    `hung` says, in words, for which silence: then its stack is saved first, and it is killed 10 s after the TERM.
    """

    job: str
    hung: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSlot:
    """Let the child in this slot pause between two steps; an empty `why` lets it go on."""

    slot: int
    why: str


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
    reason: str = ""  # why, where no job or person stands behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTerms:
    """Write the terms of config into desired.json of a target, with the next fence."""

    target: str
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTrial:
    """Ask a target in desired.json to rehearse a release."""

    target: str
    release: str
    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryJob:
    """Make a new job on the drop of an ended one."""

    command: Command
    of: EndedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseQueue:
    """Let nothing train until it is resumed."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeQueue:
    """Take the pause of the whole queue away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FireDue:
    """Remember that the time of a schedule entry has come; where it asks for a training, make the job first, unless `skip` says why not."""

    due: Due
    skip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer a command and consume it."""

    answer: Answer
    log: str = ""  # for the journal: what was asked, who asked, and why
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginChore:
    """Start gc, a snapshot or a backup in the background; a command is answered once it has ended."""

    does: str  # gc, snapshot, backup
    of: str = ""  # snapshot: the job whose checkpoint is meant; empty: the state of home
    entry: str = ""  # the schedule entry that asks
    command: Command | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRelease:
    """Write or take back in pins.json that retention must keep a release."""

    release: str
    pinned: bool
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRelease:
    """Write tags, note, label or expiry of a version into marks.json, then answer."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportAdapter:
    """Start to pack an adapter of others as this version; the command is answered once it lies in adapters/."""

    command: Command
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginForget:
    """Make an order to forget durable; its id is that of the command."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordForget:
    """Replace an order to forget by how it stands now, and its signed record."""

    order: Forget


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkForget:
    """Do one piece of an order's work: search, rebuild, sweep (chores), replace, retrain, bury (by the daemon itself)."""

    order: str
    does: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadConfig:
    """Read config.json again, and answer what changed."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotDecide:
    """The job's records make no sense; to be told, and looked at by a person. Its child, if one lives, is left alone."""

    job: str
    error: Exception


Step = (
    TakeDrop
    | CannotDecide
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
    | KeepRating
    | Move
    | Record
    | StartChild
    | StopChild
    | HoldSlot
    | PlaceRelease
    | SetWish
    | SetTerms
    | SetTrial
    | RetryJob
    | PauseQueue
    | ResumeQueue
    | FireDue
    | BeginChore
    | PinRelease
    | MarkRelease
    | ImportAdapter
    | LoopStep
    | BeginForget
    | RecordForget
    | WorkForget
    | Reply
    | ReloadConfig
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The steps of one tick, in order."""

    steps: tuple[Step, ...]
    now: datetime
