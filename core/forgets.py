"""Orders to forget: what is to be forgotten, how far that is, what was found. Plain records; decided about in `core.forgetting`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Stage(StrEnum):
    """How far an order is; each stage is durable before what follows from it begins."""

    ASKED = "asked"  # the order stands; nothing was looked for yet
    FOUND = "found"  # which drops, jobs and releases hold the rows is known; no job that trains on them starts any more
    REPLACED = "replaced"  # the drops are gone; drops without the rows stand in their place
    QUEUED = "queued"  # the retraining without them is queued
    LIVE = "live"  # nothing that learnt from them is live on any target
    PURGED = "purged"  # the bytes on this box are removed, and every target is asked to remove its own
    DONE = "done"  # every target has confirmed, and a last search found nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An accepted drop that holds rows to forget. `at`: when the drop without them took its place; None: it has not yet."""

    drop: str
    adapter: str
    sha256: str
    forgotten: int  # rows
    left: int
    replaced_by: str = ""  # drop id; empty: nothing was left of it
    new_sha256: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A thing under home that holds the rows, or what was made from them. `cut`: only the rows go, else all of it."""

    what: str
    path: str  # relative to home
    cut: bool = False
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed, and when."""

    what: str
    name: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What a search found. `coming`: inbox entries and drops on their way that hold the rows; they become parts once accepted."""

    parts: tuple[Part, ...] = ()
    jobs: tuple[str, ...] = ()  # that trained or would train on them
    releases: tuple[str, ...] = ()  # that learnt from them, wherever they lie
    here: tuple[str, ...] = ()  # those of them whose bytes lie on this box
    coming: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing under home holds the rows any more."""
        return not (self.parts or self.here or self.coming or self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A drop without the rows, as the chore made it under tmp/. No rows: nothing was left."""

    sha256: str = ""
    rows: int = 0  # that may be trained on
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """`forgets/<id>/order.json`. `rows` are fingerprints (`store.traces`), taken out once it is done."""

    id: str
    at: datetime
    actor: str = ""
    reason: str = ""
    at_once: bool = False  # the old releases go before a new one is live
    rows: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()  # whole ones
    stage: Stage = Stage.ASKED
    parts: tuple[Part, ...] = ()
    jobs: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    retraining: Mapping[str, str] = field(default_factory=dict)  # adapter -> job; none where nothing is left to train on
    removed: tuple[Removed, ...] = ()
    waits: str = ""  # what it waits for, in words
    ended_at: datetime | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters whose rows they were."""
        return tuple(dict.fromkeys(part.adapter for part in self.parts))

    @property
    def open_parts(self) -> tuple[Part, ...]:
        """The drops that still hold rows."""
        return tuple(part for part in self.parts if part.at is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSeen:
    """An order that is not done, with what the daemon knows of it. Results of chores are gone after a restart, and made again."""

    order: Forget
    busy: bool = False  # a chore of it waits or runs
    rest_until: datetime | None = None  # no chore before
    trouble: str = ""  # why the last chore failed
    traces: Traces | None = None
    made: Mapping[str, Rebuilt] | None = None  # drop -> what is left of it
    swept: tuple[Removed, ...] | None = None
    touched: frozenset[str] = frozenset()  # releases that learnt from the rows
    here: frozenset[str] = frozenset()  # those of them that lie on this box
    fallback: Mapping[str, str | None] = field(default_factory=dict)  # adapter -> newest release that did not; None: the base


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """`drops/forgotten/<drop>.json`: the bytes of this hash were forgotten."""

    drop: str
    adapter: str
    sha256: str
    order: str
    at: datetime
    replaced_by: str = ""
