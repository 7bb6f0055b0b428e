"""What guards a flip: the shadow and the rehearsal before it, the watch after it. The agent asks; `core.guarding` decides."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from core.errors import LoradError
from core.guarding import Phase, Ruling, first_phase
from core.wire import Desired, Trial, Watch, WatchState
from serving.engines.port import AdapterError, only
from serving.ledger import Ledger
from serving.library import Deferred
from serving.probe import read_probe
from serving.rehearsal import Play, Rehearsals, Side, Stage, could_not
from serving.routing import Canary, Routes, Served
from serving.watch import Subject, Watches, open_states
from serving.witness import Witness

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an alias goes over to, and from what. `old.release` None is the base."""

    alias: str
    new: Served
    old: Served
    folder: Path

    @property
    def release(self) -> str:
        """The new one."""
        assert self.new.release is not None, "the base is not guarded"
        return self.new.release


@dataclass(slots=True)
class Warden:
    """The guard of one box. One thread, but for what `Watches` says of requests."""

    stage: Stage
    witness: Witness
    ledger: Ledger
    routes: Routes
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    watch: Watch | None = None  # the criteria in force; None: no guard
    rehearsals: Rehearsals = field(init=False)
    watches: Watches = field(init=False)
    _shadowed: dict[str, str] = field(default_factory=dict)  # release -> why it failed in the shadow, until the wish is answered
    _trials: dict[str, Trial] = field(default_factory=dict)  # release -> the rehearsal that is asked for and has not begun

    def __post_init__(self) -> None:
        self.rehearsals = Rehearsals(self.stage, self.now)
        self.watches = Watches(self.witness, self.stage, self.routes.hold, self.now, self.monotonic)

    def adopt(self, desired: Desired) -> None:
        """Take the criteria and the rehearsals that a wish asks for; results that it asks for no more are told no more."""
        self.watch = desired.watch if desired.watch is not None and desired.watch.window_s > 0 else None
        asked = {trial.id for trial in desired.trials.values()}
        known = {release: result for release, result in self.ledger.trials.items() if result.id in asked}
        if known != self.ledger.trials:
            self.ledger.trials, self.ledger.dirty = known, True
        self._trials = {release: trial for release, trial in desired.trials.items() if not self._has_begun(release, trial)}

    def close(self) -> None:
        """Ask nothing more."""
        self.rehearsals.close()
        self.watches.close()

    # Rehearsals

    def waiting(self) -> list[tuple[str, Trial]]:
        """(release, trial) of the rehearsals that could begin once the release is here."""
        return sorted(self._trials.items())

    def rehearse(self, change: Change, trial: Trial) -> None:
        """Begin a rehearsal. Raises LoradError for a release without a probe."""
        lines = read_probe(change.folder)
        play = Play(trial=trial, release=change.release, live=change.old.release, probe=lines, rules=change.new.rules, live_rules=change.old.rules)
        self.rehearsals.begin(play, self.routes.hold([release for release in (change.release, change.old.release) if release]))
        del self._trials[change.release]

    def fail(self, release: str, trial: Trial, error: LoradError) -> None:
        """A rehearsal of a release that cannot be served here at all."""
        log.warning("rehearsal of %s failed (%s): %s", release[:12], error.code, error.what, extra={"action": "rehearsed"})
        self.ledger.trials = self.ledger.trials | {release: could_not(trial, release, self.now(), error)}
        self.ledger.dirty = True
        del self._trials[release]

    def _has_begun(self, release: str, trial: Trial) -> bool:
        done = self.ledger.trials.get(release)
        return self.rehearsals.is_running(trial.id) or (done is not None and done.id == trial.id)

    # The shadow and the watch

    def require_shadow(self, change: Change) -> None:
        """Returns once the release has passed its shadow, or where none is asked for. Raises Deferred while it lasts, AdapterError SHADOW_FAILED."""
        if self.watch is None or not self.watch.shadow_share:
            return
        phase = self.watches.phase_of(change.alias, change.release)
        if phase is Phase.PASSED:
            return
        if (why := self._shadowed.pop(change.release, None)) is not None:
            raise AdapterError(f"release {change.release[:12]} failed in the shadow: {why}", hint="the release before it stays", code="SHADOW_FAILED")
        if phase is None:
            self.watches.begin(self._subject(change, Phase.SHADOW), self.watch)
        raise Deferred(
            f"release {change.release[:12]} answers in the shadow for {self.watch.window_s:g} s, shown to nobody",
            hint="it goes live by itself when it holds",
            code="IN_SHADOW",
        )

    def fail_shadow(self, subject: Subject, reason: str) -> None:
        """The release has failed where nobody saw it: the wish for it is to be refused."""
        self.watches.forget(subject.alias)
        self._shadowed[subject.release] = reason

    def withdraw(self, alias: str, release: str | None) -> None:
        """Another release is wished for: what stands in the shadow leaves it."""
        subject = self.watches.subject(alias)
        if subject is not None and subject.phase is Phase.SHADOW and subject.release != release:
            self.watches.forget(alias)

    def flipped(self, change: Change) -> None:
        """Watch what has just gone live."""
        if self.watch is not None:
            self.watches.begin(self._subject(change, first_phase(self.watch)), self.watch)

    def resume(self, alias: str, state: WatchState, change: Change | None) -> None:
        """Go on with a watch of the process before; `change` None: what it watched is not live any more."""
        now = self.ledger.aliases[alias]
        if now.code == "ROLLED_BACK" and now.wanted == state.release:  # the process may have ended before it told so
            self.watches.remember(alias, replace(state, phase=Phase.ROLLED_BACK.value, reason=now.reason))
        elif state.phase == Phase.ROLLED_BACK and now.release == state.before:
            self.watches.remember(alias, state)
        if change is None or now.release != change.release:
            return
        if alias not in open_states({alias: state}) or self.watch is None:
            self.watches.remember(alias, state)
            return
        spent_s = min(max(0.0, (self.now() - state.since).total_seconds()), self.watch.window_s)
        self.watches.begin(self._subject(change, Phase(state.phase)), self.watch, spent_s)

    def look(self) -> list[tuple[Subject, Ruling]]:
        """Take what has ended in the background. Returns the watches that are ruled over now, to be ended by `pass_on` or a rollback."""
        for result in self.rehearsals.take():
            self.ledger.trials = self.ledger.trials | {result.release: result}
            self.ledger.dirty = True
        return self.watches.look(self.watch)

    def pass_on(self, subject: Subject, ruling: Ruling) -> None:
        """The release has held."""
        self.watches.end(subject.alias, Phase.PASSED, ruling.reason)
        log.info("%s: release %s has passed its watch", subject.alias, subject.release[:12], extra={"action": "watch_passed"})

    def tell(self) -> None:
        """Let the ledger know how the watches stand."""
        if self.watches.dirty:
            self.ledger.watches, self.ledger.dirty = self.watches.states(), True

    def canaries(self, before: Callable[[str, str | None], Served]) -> dict[str, Canary]:
        """Aliases that a new release answers for a share of the users. `before`: (alias, release) as it is served."""
        if self.watch is None or not 0 < self.watch.canary_share < 1:
            return {}
        found: dict[str, Canary] = {}
        for alias in self.ledger.aliases:
            subject = self.watches.subject(alias)
            if subject is not None and subject.phase is Phase.CANARY:
                found[alias] = Canary(before=before(alias, subject.before), share=self.watch.canary_share)
        return found

    def _subject(self, change: Change, phase: Phase) -> Subject:
        sides: Sequence[Side] = [Side(blend=only(one.release), rules=one.rules) for one in (change.new, change.old)]
        return Subject(alias=change.alias, release=change.release, before=change.old.release, folder=change.folder, new=sides[0], old=sides[1], phase=phase)
