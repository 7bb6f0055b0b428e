"""The records that lorad remembers. A fact that belongs to one state lives in that state's own type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal


class JobState(StrEnum):
    """Where a job is; also the name of the folder that holds it."""

    QUEUED = "queued"
    TRAINING = "training"
    RANKING = "ranking"
    HELD = "held"
    RELEASING = "releasing"
    RELEASED = "released"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.RELEASED, JobState.REFUSED, JobState.FAILED, JobState.CANCELLED})


class DropState(StrEnum):
    """Where a drop is. Rejected drops lie in `inbox/rejected/`, the others in `drops/<state>/`."""

    SETTLING = "settling"
    GATING = "gating"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Kind(StrEnum):
    """What a child of a job does; the second half of its run folder's name."""

    TRAIN = "train"
    SCORE = "score"
    RANK = "rank"
    PACK = "pack"


class VerdictWord(StrEnum):
    """The three verdicts; missing or weak proof is a hold, never a promotion."""

    PROMOTE = "promote"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRef:
    """A child that was started for a job: its run folder and the daemon instance that started it."""

    run: str
    kind: Kind
    purpose: str = ""
    instance: str
    slot: int | None = None
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A kept checkpoint. `path` is relative to `runs/<job>/`; `sha256` is that of its SEALED file."""

    step: int
    path: str
    sha256: str
    dev_loss: float | None = None

    @property
    def id(self) -> str:
        """The name of its score files: the step and the first 12 hex digits of the seal."""
        return f"step_{self.step:06d}-{self.sha256[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """`queued.json`: the job waits for a slot. `attempts` and `micro_batch` carry on from the run before, if there was one."""

    since: datetime
    reason: str = ""
    attempts: int = 0
    checkpoint: str | None = None  # path of the newest sealed resume point, relative to runs/<job>/
    micro_batch: int | None = None  # set by the memory ladder
    not_before: datetime | None = None  # of the sidecar, or of a pause between attempts
    paused: str = ""  # who paused it and why; empty: it may run
    kind: Literal["queued"] = "queued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """`training.json`: a trainer child has the job. `attempts` counts the crashes since the last new resume point."""

    since: datetime
    child: ChildRef
    attempts: int = 0
    checkpoint: str | None = None
    micro_batch: int | None = None
    cancel: bool = False
    pause: str = ""  # set: the trainer is asked for a checkpoint, then the job is queued and paused
    kind: Literal["training"] = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """`scores` maps `<split>/<model>` to a score file relative to `runs/<job>/`. `incumbent` is a release id or None (the base)."""

    since: datetime
    candidates: tuple[Candidate, ...]
    incumbent: str | None = None
    scores: Mapping[str, str] = field(default_factory=dict)
    order: str | None = None  # run that ordered the candidates
    best: str | None = None  # Candidate.id
    verdict: str | None = None  # run that gave the verdict
    word: VerdictWord | None = None
    looks: int = 0  # at the gate split, counted before each
    child: ChildRef | None = None
    attempts: int = 0
    micro_batch: int | None = None  # of scoring; set by the memory ladder
    reason: str = ""
    cancel: bool = False
    approved_by: str | None = None  # set when a person approved and the incumbent had changed
    kind: Literal["ranking"] = "ranking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A person must look. Carries the ranking so that an approval can go on from it."""

    since: datetime
    reason: str
    ranking: Ranking
    kind: Literal["held"] = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing:
    """`releasing.json`: the job is packed, placed and wished for, step by step; each fact is durable before the step it names."""

    since: datetime
    ranking: Ranking
    version: int | None = None
    child: ChildRef | None = None
    release: str | None = None  # manifest hash, once packed and renamed in
    fences: Mapping[str, int] = field(default_factory=dict)  # target -> fence of the wish
    attempts: int = 0
    reason: str = ""
    cancel: bool = False
    kind: Literal["releasing"] = "releasing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended. `by` is the person or part that ended it; `release` is set when it was live."""

    at: datetime
    reason: str = ""
    hint: str = ""
    code: str = ""
    by: str = "lorad"
    release: str | None = None
    version: int | None = None
    attempts: int = 0
    verdict: str | None = None  # run
    started_at: datetime | None = None
    kind: Literal["ended"] = "ended"


StateFacts = Queued | Training | Ranking | Held | Releasing | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRef:
    """A drop that a job trains on, named by the hash of its bytes."""

    id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropList:
    """What a job trains on, in a short and exact form: the adapter's accepted drops up to `upto`, but for `without`.

    Drop ids only grow, so that nothing accepted later can stand before `upto` unless `without` names it. A list that
    named each drop would cost a burst of N drops N * N / 2 entries on disk.
    """

    upto: str  # the job's own drop
    without: tuple[str, ...] = ()  # set aside, or not accepted yet, when the job was made
    count: int
    sha256: str  # of the list: SHA-256 over the digest before, drop id and SHA-256 of its bytes, one drop after another


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCard:
    """What a job is, fixed when it is made (`job.json`)."""

    id: str
    adapter: str
    drop: str
    file: str
    sha256: str
    identity: str
    priority: int = 0  # higher runs first
    created_at: datetime
    drops: tuple[DropRef, ...] = ()  # of a card that names each drop, as an earlier lorad wrote them
    rows_of: DropList | None = None  # of a card that names them together
    base_sha256: str
    backend: str
    retry_of: str | None = None

    @property
    def num_drops(self) -> int:
        """How many drops the job trains on."""
        return self.rows_of.count if self.rows_of else len(self.drops)

    def trains_on(self, drop: str, adapter: str) -> bool:
        """Whether the job trains on this accepted drop of `adapter`."""
        if self.rows_of is None:
            return any(ref.id == drop for ref in self.drops)
        return adapter == self.adapter and drop <= self.rows_of.upto and drop not in self.rows_of.without


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands: what it is, its state, and the facts of that state."""

    card: JobCard
    state: JobState
    facts: StateFacts

    @property
    def id(self) -> str:
        """The id on the card."""
        return self.card.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`claim.json`: which inbox entry a drop took. Durable before the first rename."""

    drop: str
    adapter: str
    source: str  # path under inbox/
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    total_bytes: int = 0  # of a folder: of all that lay in it
    file: str  # name of the file, as the person gave it
    sidecar: str | None = None
    problem: str = ""  # why the entry can never be a drop: it is taken only to be refused with a report
    claimed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Gating:
    """`gating.json`: the gate has the drop. `crashes` counts gate children that died on it."""

    since: datetime
    crashes: int = 0
    kind: Literal["gating"] = "gating"


class DeepState(StrEnum):
    """How far the check at level deep of a drop is that was accepted before it."""

    WAITING = "waiting"  # to begin, or at work
    PASSED = "passed"
    REFUSED = "refused"  # its jobs end, then it moves to the rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Deep:
    """The check at level deep in the background. `crashes` counts gate children that died on it."""

    state: DeepState = DeepState.WAITING
    crashes: int = 0
    not_before: datetime | None = None  # set where the machine, not the file, was wrong
    code: str = ""  # of the finding that refused it


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`accepted.json`: the job's id is named here before the job exists. `rows` are those that may be trained on."""

    at: datetime
    job: str
    sha256: str
    identity: str
    rows: int
    quarantined: int = 0
    schema_id: str
    level: str = ""  # the deepest that it has passed
    again: bool = False
    job_made: bool = False
    deep: Deep | None = None  # None: nothing was to follow
    set_aside: str | None = None  # why later jobs do not train on it
    kind: Literal["accepted"] = "accepted"

    @property
    def is_proven(self) -> bool:
        """Whether no check of it is open."""
        return self.deep is None or self.deep.state is DeepState.PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """`settling.json`: claimed. `quiet_until` is set when the file changed while it was read."""

    since: datetime
    quiet_until: datetime | None = None
    kind: Literal["settling"] = "settling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A drop on its way or accepted."""

    claim: Claim
    state: DropState
    facts: Settling | Gating | Accepted

    @property
    def id(self) -> str:
        """The id in the claim."""
        return self.claim.drop
