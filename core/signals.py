"""What people and programs say about answers: the one record of feedback, and what becomes of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

MOST_OF_A_BATCH = 20_000  # signals; the others make the next one. Their ids fit into a sidecar


class SignalKind(StrEnum):
    """What a signal says."""

    MISTAKE = "mistake"  # the answer was wrong; what is right may be unknown
    CORRECTION = "correction"  # the answer was wrong, and this is right
    POSITIVE = "positive"  # the answer was right
    IMPORT = "import"  # brought in from another system, whole


class Origin(StrEnum):
    """Who says it."""

    HUMAN = "human"
    AI = "ai"  # a peer model
    AUTOMATED = "automated"  # a failed tool call, a rule, a suite


class Standing(StrEnum):
    """Where a signal lies on the box that trains."""

    PENDING = "pending"  # counted by triggers
    REVIEW = "review"  # waits for a person: a proposal, or a mistake without its right answer
    REJECTED = "rejected"  # by a person
    QUARANTINED = "quarantined"  # its source fails the gate too often, or it holds a secret
    CAPPED = "capped"  # over the daily cap of its source or user; the next day makes it pending
    QUEUED = "queued"  # in a batch that became a drop
    FORGOTTEN = "forgotten"  # its text is gone; its id stays, so that the same click does not bring it back


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal. `id` is the same however often the same signal arrives: it is stored once.

    `input` is the conversation up to the answer, as messages {role, content, …}. `user` is a keyed hash, never a name.
    """

    id: str
    kind: SignalKind
    persona: str
    domain: str
    input: tuple[Mapping[str, Any], ...]
    wrong_output: str = ""
    correct_output: str = ""
    context: str = ""
    origin: Origin = Origin.HUMAN
    source: str = ""  # which door or program, for example api, chat, detected, langfuse: caps and quarantine are per source
    weight: float = 1.0  # becomes the row's loss weight
    at: datetime
    release: str = ""  # that gave the answer
    response: str = ""  # id of the answer
    user: str = ""
    consent: bool = False
    confidence: float = 1.0  # of a proposal
    is_proposal: bool = False  # a person decides before it counts
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def adapter(self) -> str:
        """persona/domain."""
        return f"{self.persona}/{self.domain}"

    @property
    def is_whole(self) -> bool:
        """Whether it makes a row by itself: what is right is known."""
        return self.kind is SignalKind.POSITIVE or bool(self.correct_output)


def signal_id(signal: Signal) -> str:
    """The id of a signal that brought none: 32 hex digits of the hash of what it says, so that the same click sent twice is one."""
    said = [signal.response, signal.kind.value, signal.persona, signal.domain, signal.user, signal.input, signal.wrong_output, signal.correct_output]
    text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """One line of a box's `out/spool/`: `number` counts up over the life of the box, without a gap."""

    number: int
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """`in/ack.json`: every line of that box's spool up to `number` is stored durably on the training box."""

    box: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`queued/<id>.json`: the signals that became one drop, and the row of each. `<id>.jsonl` beside it holds them."""

    id: str
    adapter: str
    trigger: str  # name of what fired
    made_at: datetime
    file: str  # name of the data file in the inbox
    rows: Mapping[str, int]  # signal id -> line of its row in the data file; two that say the same share one
    schema_id: str = ""  # of the rows
    left_out: Mapping[str, str] = field(default_factory=dict)  # signal id -> why it makes no row
    drop: str = ""  # once it was accepted or refused
    refused: str = ""  # with which code: its signals are pending again, or quarantined, and may be in another batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`queued/<id>.wanted.json`: batches that were asked for. It is there until the drops of all of them are made, whatever dies."""

    id: str  # ids of the batches begin with it; there is one for each schema
    adapter: str
    trigger: str  # name of what asks
    key: str  # the same at every repeat of the same wish
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The signals of one adapter, counted. `rows` is what triggers count: pending, whole, with consent where it is demanded."""

    rows: int = 0
    oldest_at: datetime | None = None  # when the oldest of these rows was stored
    arrived: int = 0  # signals ever made pending rows; only grows
    pending: int = 0  # also those without consent
    mistakes: int = 0  # pending or in review without a right answer, with consent where it is demanded: they make unpaired rows
    review: int = 0
    rejected: int = 0
    quarantined: int = 0
    faulty: int = 0  # of these, those whose own rows the gate named; the others are of sources that are held
    capped: int = 0
    queued: int = 0
    by_source: Mapping[str, int] = field(default_factory=dict)  # pending
    held_sources: Mapping[str, str] = field(default_factory=dict)  # sources that are quarantined as a whole -> why


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of signals that were to be stored."""

    standings: Mapping[str, Standing] = field(default_factory=dict)  # id -> where it lies now, of those that were new
    known: int = 0  # that were stored before
    refused: Mapping[str, str] = field(default_factory=dict)  # id -> why it can be stored nowhere
