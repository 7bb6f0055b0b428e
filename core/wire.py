"""What passes between the training box and an inference box: the wish, the outcomes, the release manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from core.answering import ProfileRecord


class Outcome(StrEnum):
    """What an inference box did with one alias of a wish."""

    LIVE = "live"
    REFUSED = "refused"  # will not be tried again under this fence
    DEFERRED = "deferred"  # memory, disk, base missing, or the release has not arrived: stays and retries


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The release that one alias should serve; None is the base model. `replaces` is what must be live now."""

    release: str | None
    replaces: str | None
    allow: bool = False  # a person allows a release that the box had refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`in/desired.json`: the whole wish. The fence only grows; `signature` is Ed25519 over the rest."""

    fence: int
    aliases: Mapping[str, Wish]
    fences: Mapping[str, int]  # alias -> the fence at which its wish last changed
    made_at: datetime
    purge: tuple[str, ...] = ()  # releases to delete as soon as none of them is live; never served again
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasState:
    """What one alias serves, and the outcome of the newest wish for it."""

    release: str | None
    previous: str | None = None
    version: int | None = None
    fence: int = 0
    outcome: Outcome = Outcome.LIVE
    code: str = ""
    reason: str = ""
    wanted: str | None = None  # the release of the wish that `outcome` is about


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """`out/active.json`: what this box serves."""

    box: str
    sequence: int
    fence_seen: int
    at: datetime
    aliases: Mapping[str, AliasState] = field(default_factory=dict)
    releases: tuple[str, ...] = ()  # verified releases on the box
    purged: tuple[str, ...] = ()  # releases that it was asked to delete, and of which nothing lies here any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One line of `out/activations.jsonl`, the box's own ledger."""

    box: str
    sequence: int
    at: datetime
    alias: str
    release: str | None
    version: int | None
    previous: str | None
    fence: int
    event: str  # live, restored, refused, deferred
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`out/capacity.json`: rewritten every ten seconds; older than thirty means unreachable."""

    box: str
    at: datetime
    free_bytes: int
    free_inodes: int
    base_sha256: str
    engine: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """`targets/<name>/observed.json`: what the link last read of a target, and what stood in the way."""

    target: str
    at: datetime
    reachable: bool
    fence_pushed: int = 0
    active: Active | None = None
    capacity: Capacity | None = None
    ledger_lines: int = 0
    code: str = ""
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`manifest.json` of a release. The release id is the SHA-256 of this file's bytes; `manifest.sig` signs them."""

    format: int
    adapter: str
    version: int
    job: str
    backend: str
    base_sha256: str
    tokenizer_sha256: str
    template_sha256: str
    parent: str | None
    checkpoint_sha256: str
    verdict_sha256: str
    drops: tuple[str, ...]
    created_at: datetime
    files: Mapping[str, str]  # relative path -> SHA-256
    profile: ProfileRecord | None = None  # what changed its rows, and the rules of its answers; None: packed before there were profiles
    origin: str = ""  # imported: of others, without a verdict; empty: trained and judged here
    encryption: str = ""  # id of the key that the weights are encrypted with; empty: they lie in plain


def release_name(manifest_adapter: str, version: int, release: str) -> str:
    """The folder of a release under `releases/`: `<persona>/<domain>/v<N>-<12 hex>`."""
    return f"{manifest_adapter}/v{version}-{release[:12]}"
