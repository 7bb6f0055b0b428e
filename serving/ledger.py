"""What this box remembers: its own ledger (`out/activations.jsonl`), and `out/active.json`, which is computed from it.

A line of the ledger is durable before anything else happens, so that the ledger decides after a crash: a line without
its `active.json` is carried out at the next start. What a line's `release` means depends on its event:

- live: what the alias serves from now on (None: the base). Never written twice for one alias and fence.
- restored: what it serves after a start. With a code, something else was wanted and could not be had.
- moved: what it serves from now on, as an admin of this box has decided (`actor`); no wish is behind it.
- refused, deferred: the release that was wished for; what is served did not change.

A line about a whole wish (a foreign signature, an old fence) has the alias `*`.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from core.wire import Activation, Active, AliasState, Outcome, TrialResult, WatchState
from store import codec
from store.durable import create_file
from store.paths import Box
from store.wire import append_activation, read_activations, read_active

Event = Literal["live", "restored", "refused", "deferred", "rolled_back", "moved"]

WHOLE_WISH = "*"
BOX = "box.json"

# Refusals that speak about the release itself: the same hash comes back only when a person allows it. Bytes damaged on
# the way are not among them, because what arrived is then not the release of that hash.
REMEMBERED = frozenset(
    {
        "ADAPTER_LOAD",
        "ADAPTER_MISMATCH",
        "ADAPTER_NAN",
        "ADAPTER_UNSERVED",
        "BACKEND_MISMATCH",
        "BASE_MISMATCH",
        "PROBE_DAMAGED",
        "PROBE_FAILED",
        "SHADOW_FAILED",
        "TEMPLATE_MISMATCH",
        "TOKENIZER_MISMATCH",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxCard:
    """`box.json`: the name that this box gave itself."""

    box: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What happened to one alias; becomes a line of the ledger."""

    alias: str
    event: Event
    release: str | None
    fence: int
    version: int | None = None
    previous: str | None = None
    code: str = ""
    reason: str = ""
    actor: str = ""


def fold(state: AliasState, line: Activation) -> AliasState:
    """The alias after this line."""
    if line.event == "live":
        return AliasState(release=line.release, previous=line.previous, version=line.version, fence=line.fence, wanted=line.release)
    if line.event == "moved":  # the wish is overruled, so that the training box wishes for what is live
        after = AliasState(release=line.release, previous=line.previous, version=line.version, fence=line.fence, outcome=Outcome.REFUSED)
        return replace(after, code=line.code, reason=line.reason, wanted=state.wanted)
    if line.event == "rolled_back":  # what was live is what the outcome speaks of; nothing lies beside the release that is back
        after = AliasState(release=line.release, version=line.version, fence=line.fence, outcome=Outcome.REFUSED)
        return replace(after, code=line.code, reason=line.reason, wanted=line.previous)
    if line.event == "restored":
        after = replace(state, release=line.release, version=line.version, previous=line.previous)
        if line.code and state.outcome is Outcome.LIVE:
            return replace(after, outcome=Outcome.REFUSED, code=line.code, reason=line.reason)
        if not line.code and state.wanted == line.release:
            return replace(after, outcome=Outcome.LIVE, code="", reason="")
        return after
    return replace(state, fence=line.fence, outcome=Outcome(line.event), code=line.code, reason=line.reason, wanted=line.release)


class Ledger:
    """The ledger and what follows from it. One writing thread; others may read the attributes.

    After an OSError the state is read anew from disk, so that a line that did get there counts.
    """

    def __init__(self, box: Box, now: Callable[[], datetime]) -> None:
        self._box = box
        self._now = now
        self.box_id = self._identify()
        self.dirty = True  # active.json does not say yet what is true
        self.purged: tuple[str, ...] = ()  # releases that the wish wants gone, and that are
        self.trials: dict[str, TrialResult] = {}  # of the rehearsals that the wish asks for
        self.watches: dict[str, WatchState] = {}
        self.aliases: dict[str, AliasState] = {}
        self.sequence = 0
        self.fence_seen = 0
        self._lines: list[Activation] = []
        self._read()

    def record(self, entry: Entry) -> None:
        """Add a durable line; nothing where the ledger says just that already. Raises OSError."""
        if self._says(entry):
            return
        values = {name: getattr(entry, name) for name in Entry.__slots__}
        line = Activation(box=self.box_id, sequence=self.sequence + 1, at=self._now(), **values)
        try:
            append_activation(self._box.activations, line)
        except OSError:
            self._read()
            raise
        self._take(line)
        self.dirty = True

    def see(self, fence: int) -> None:
        """Remember that the whole wish of this fence was acted on."""
        if fence > self.fence_seen:
            self.fence_seen = fence
            self.dirty = True

    def publish(self, releases: tuple[str, ...]) -> None:
        """Write active.json, durably. Raises OSError."""
        active = Active(
            box=self.box_id,
            sequence=self.sequence,
            fence_seen=self.fence_seen,
            at=self._now(),
            aliases=dict(self.aliases),
            releases=releases,
            purged=self.purged,
            trials=self.trials,
            watches=self.watches,
        )
        codec.write(self._box.active, active)
        self.dirty = False

    def intended(self, alias: str) -> list[str]:
        """What to restore, best first: the last release that went live, then the one before it. Empty: the base."""
        lines = self._switches(alias)
        state = self.aliases[alias]
        wanted = (lines[-1].release, self.previous_of(alias)) if lines else (state.release, state.previous)
        if wanted[0] is None:
            return []
        return [release for release in wanted if release]

    def previous_of(self, alias: str) -> str | None:
        """What the last line that switched the alias replaced; nothing after the guard rolled a release back, as that is not to return."""
        lines = self._switches(alias)
        if not lines:
            return self.aliases[alias].previous
        return None if lines[-1].event == "rolled_back" else lines[-1].previous

    def _switches(self, alias: str) -> list[Activation]:
        return [line for line in self._lines if line.alias == alias and line.event in ("live", "rolled_back", "moved")]

    def line_of(self, mark: str) -> Activation | None:
        """The newest line about a release whose id begins so, however long it is gone; None for none, and for no mark."""
        return next((line for line in reversed(self._lines) if mark and line.alias != WHOLE_WISH and (line.release or "").startswith(mark)), None)

    def is_refused(self, release: str) -> bool:
        """Whether this box refused the release itself or rolled it back, and nobody brought it back since."""
        about = [line.event for line in self._lines if _speaks_of(line, release)]
        return bool(about) and about[-1] in ("refused", "rolled_back")

    def is_new(self, alias: str, fence: int) -> bool:
        """Whether a wish of this fence still asks for something."""
        state = self.aliases.get(alias)
        return state is None or fence > state.fence or (fence == state.fence and state.outcome is Outcome.DEFERRED)

    def _says(self, entry: Entry) -> bool:
        if entry.event in ("restored", "moved"):
            return False
        same = [line for line in self._lines if (line.alias, line.fence, line.event) == (entry.alias, entry.fence, entry.event)]
        if entry.event in ("live", "rolled_back"):
            return bool(same)
        return bool(same) and (same[-1].code, same[-1].reason) == (entry.code, entry.reason)

    def _take(self, line: Activation) -> None:
        self._lines.append(line)
        self.sequence = max(self.sequence, line.sequence)
        if line.alias != WHOLE_WISH:
            self.aliases = self.aliases | {line.alias: fold(self.aliases.get(line.alias, AliasState(release=None)), line)}

    def _read(self) -> None:
        active = read_active(self._box.active)
        self.aliases = dict(active.aliases) if active else {}
        self.sequence = active.sequence if active else 0
        self.trials = dict(active.trials) if active else {}
        self.watches = dict(active.watches) if active else {}
        told = self.sequence
        lines = read_activations(self._box.activations)
        self._lines = [line for line in lines if line.sequence <= told]
        for line in lines[len(self._lines) :]:
            self._take(line)
        self.fence_seen = max([active.fence_seen if active else 0, *(state.fence for state in self.aliases.values())])
        self.dirty = True

    def _identify(self) -> str:
        path = self._box.root / BOX
        create_file(path, (codec.dump(BoxCard(box=secrets.token_hex(8))) + "\n").encode())
        return codec.read(BoxCard, path).box


def _speaks_of(line: Activation, release: str) -> bool:
    if line.event == "rolled_back":
        return line.previous == release
    return line.release == release and (line.event == "live" or line.code in REMEMBERED)


def releases_of(states: Iterable[AliasState]) -> set[str]:
    """Every release that the aliases serve or keep beside."""
    return {release for state in states for release in (state.release, state.previous) if release}
