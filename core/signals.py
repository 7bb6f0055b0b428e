"""What people and programs say about answers: the one record of feedback, and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


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
    rows: Mapping[str, int]  # signal id -> line of its row in the data file
    drop: str = ""  # once it was accepted or refused
