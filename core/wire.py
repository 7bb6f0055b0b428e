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


SWITCHES = ("live", "restored", "rolled_back", "moved")
"""Events of a box's ledger after which the alias serves the line's release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The release that one alias should serve; None is the base model. `replaces` is what must be live now."""

    release: str | None
    replaces: str | None
    allow: bool = False  # a person allows a release that the box had refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a release is tried by, before the flip: the criteria of `deploy.rehearsal`. `id` tells two trials of one release apart."""

    id: str
    alias: str
    requests: int = 32
    clients: int = 4
    max_error_share: float = 0.01
    max_latency_ms: float = 0  # to the first token, 95th percentile; 0: no bound
    min_requests_s: float = 0
    max_latency_ratio: float = 2.0  # against the live release at the same prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How the box guards an alias after its flip: the criteria of `deploy.watch`."""

    window_s: float = 600
    every_s: float = 60
    min_requests: int = 20
    max_error_share: float = 0.05
    max_latency_ratio: float = 2.0
    max_negative_share: float = 0.2
    canary_share: float = 0  # of the users, while the window lasts; 0: all of them
    shadow_share: float = 0  # of the requests, answered by the new one too and never shown, before it is shown; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for every alias of a target, by config."""

    watch: Watch | None = None
    sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`in/desired.json`: the whole wish. The fence only grows; `signature` is Ed25519 over the rest."""

    fence: int
    aliases: Mapping[str, Wish]
    fences: Mapping[str, int]  # alias -> the fence at which its wish last changed
    made_at: datetime
    purge: tuple[str, ...] = ()  # releases to delete as soon as none of them is live; never served again
    pins: tuple[str, ...] = ()  # releases that the box keeps whatever its disk budget says
    sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # persona -> {shared/name: scale}, beside its own adapters
    trials: Mapping[str, Trial] = field(default_factory=dict)  # release -> how it is to be rehearsed, answered in Active.trials
    watch: Watch | None = None  # None: no guard after a flip
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
class TrialResult:
    """What a rehearsal measured, and whether it met its criteria. `reasons` names each that it missed, with the numbers."""

    id: str
    release: str
    at: datetime
    passed: bool
    reasons: tuple[str, ...] = ()
    requests: int = 0
    errors: int = 0
    latency_ms: float = 0  # to the first token, 95th percentile
    live_latency_ms: float = 0  # of the live release at the same prompts; 0: not measured
    requests_s: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """How the watch over a new release stands: `phase` is shadow, canary, all, passed or rolled_back."""

    release: str
    before: str | None
    phase: str
    since: datetime
    until: datetime
    answers: int = 0
    errors: int = 0
    latency_ms: float = 0  # to the first token, median
    before_answers: int = 0
    before_errors: int = 0
    before_latency_ms: float = 0
    reason: str = ""


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
    trials: Mapping[str, TrialResult] = field(default_factory=dict)  # release -> its newest rehearsal
    watches: Mapping[str, WatchState] = field(default_factory=dict)  # alias -> the watch over its newest release


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
    event: str  # live, restored, refused, deferred, rolled_back (by the box's own guard, from `previous`), moved (by `actor`, from `previous`)
    code: str = ""
    reason: str = ""
    actor: str = ""  # who moved it at the box itself


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
    use: Mapping[str, float] = field(default_factory=dict)  # cpu, memory and, where the box has one, gpu -> share in use
    spooled: int = 0  # number of the newest signal that can be fetched; 0: none waits for that


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
