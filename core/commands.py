"""Wishes of people: one file each in `commands/`, absolute and short-lived, so that a late or repeated one does no harm."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

EXPIRES_S = 60.0


class CommandKind(StrEnum):
    """What a person may ask of the daemon."""

    CANCEL = "cancel"
    RETRY = "retry"
    APPROVE = "approve"
    REFUSE = "refuse"
    ROLLBACK = "rollback"
    PAUSE = "pause"  # one job, or without a job the whole queue
    RESUME = "resume"
    PIN = "pin"  # a release that retention must keep
    UNPIN = "unpin"
    RELOAD = "reload"
    GC = "gc"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    MARK = "mark"  # tags, note, label or expiry of a release
    IMPORT = "import"  # an adapter folder or package of others becomes a release
    FORGET = "forget"  # rows, drops or sources
    REHEARSE = "rehearse"  # a release, on every target or one
    RATE = "rate"  # a person's blind rating of a held or ranked job
    FEEDBACK = "feedback"  # details.what: add, import, accept, edit, reject, flush
    TRIGGER = "trigger"  # details.what: fire
    CONTINUOUS = "continuous"  # details.what: start, stop
    ITERATION = "iteration"  # details.what: continue, stop
    CURRICULUM = "curriculum"  # details.what: set


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One wish. `id` becomes part of the id of what it makes. `seen` is the state the person saw."""

    id: str
    kind: CommandKind
    job: str = ""
    adapter: str = ""
    from_release: str | None = None
    to_release: str | None = None
    seen: str = ""
    reason: str = ""
    actor: str = ""
    details: Mapping[str, str] = field(default_factory=dict)  # more words of the wish, by kind
    made_at: datetime
    expires_at: datetime

    @property
    def job_made(self) -> str:
        """The id of the job that it makes, the same at every repeat."""
        return f"job-{self.id.removeprefix('command-')}"

    @property
    def forget_made(self) -> str:
        """The id of the order to forget that it makes, the same at every repeat."""
        return f"forget-{self.id.removeprefix('command-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`<id>.answer.json`, written beside the consumed command."""

    command: str
    ok: bool
    message: str
    hint: str = ""
    code: str = ""
    made: str = ""  # id of what was made
