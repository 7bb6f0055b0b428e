"""The agent that makes this box serve what `in/desired.json` asks for.

One thread. For each alias whose wish is new: check what it replaces, take the release in and verify it (`library`),
load it beside the others, probe it, write the ledger line, then active.json, then put another routing table in force by
one assignment. Every step can be repeated, and the ledger line decides: killed before it, the whole wish is carried out
again; killed after it, the start restores what the line says. One alias that fails leaves the others alone.

What the guard rules (`warden`) is carried out by the same thread, so that a wish and a rollback never meet half way.
"""

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.answering import NO_RULES
from core.errors import LoradError, StateError, UsageError
from core.guarding import Phase
from core.names import DEFAULT_ADAPTER, parse_adapter
from core.wire import AliasState, Desired, Manifest, Outcome, Wish
from serving.beside import Beside, Errands, Relocation
from serving.engines.port import Engine
from serving.housekeeping import Housekeeping
from serving.ledger import WHOLE_WISH, Entry, Event, Ledger
from serving.library import Deferred, Library
from serving.line import Line
from serving.rehearsal import Stage
from serving.residence import Residence
from serving.routing import Routes, Served, Table, sets_of
from serving.warden import Change, Warden
from serving.watch import Subject
from serving.wishes import Foreign, WishFile, mark_of
from serving.witness import Witness
from store.paths import Box

log = logging.getLogger(__name__)

POLL_S = 0.2
RETRY_S = 5.0  # before a wish is tried again that this box lacks memory or disk for
REHEARSE_S = 1.0  # before a rehearsal is looked at again whose release has not arrived
TROUBLE_S = 5.0  # before the next tick, after one that failed
RELEASE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the agent stands on."""

    box: Box
    keys: Path
    engine: Engine
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    line: Line | None = None  # that canary prompts and rehearsals wait in behind everybody
    adapters_bytes: int = 0  # see Residence
    releases_bytes: int = 0  # that releases may hold on this disk; 0: no bound
    deadline_s: float = 300.0  # of one answer, and of a release that nothing names any more


class Agent:
    """Carries out wishes. `start` once, then `tick` again and again, all on one thread; `engine`, `load` and `unload` are for any."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.engine = Witness(ground.engine)
        self._engine = self.engine
        self.ledger = Ledger(ground.box, ground.now)
        self.library = Library(ground.box, ground.keys, ground.engine.base, ground.engine.backend)
        self._residence = Residence(self.engine, self.library, ground.adapters_bytes, ground.deadline_s)
        self._manifests = self._residence.manifests  # releases on the engine
        self._wishes = WishFile(ground.box.desired, ground.keys)
        self._errands = Errands()
        self._sets: dict[str, dict[str, float]] = {}  # see Desired.sets
        self._base = Served(model=ground.engine.base.name, created=int(ground.now().timestamp()))
        self.routes = Routes(Table(base=self._base, aliases={DEFAULT_ADAPTER: self._base}))
        self._housekeeping = Housekeeping(self.library, self.ledger, ground.releases_bytes, ground.monotonic)
        self.beside = Beside(self._base, self.ledger, self._residence, self._housekeeping, self._served, ground.monotonic)
        self._retry_at = 0.0
        self._rehearse_at = 0.0
        stage = Stage(engine=ground.engine, line=ground.line, timeout_s=ground.deadline_s)
        self.warden = Warden(stage, self.engine, self.ledger, self.routes, ground.now, ground.monotonic)

    def start(self) -> None:
        """Load the base, restore what was live. Afterwards `routes` answers."""
        self._engine.open()
        self.library.open()
        if (wished := self._wishes.last()) is not None:
            self._sets = {persona: dict(scales) for persona, scales in wished.sets.items()}
            self._housekeeping.adopt(wished)
            self.warden.adopt(wished)
        for alias in sorted(self.ledger.aliases):
            self._restore(alias)
        for alias, state in tuple(self.ledger.watches.items()):
            self.warden.resume(alias, state, self._change(alias, state.release, state.before))
        self.settle()

    def run(self, stop: threading.Event, told: Callable[[], None]) -> None:
        """Tick until `stop`; `told` is called after each tick that wrote. A failing tick is logged and repeated: what is live stays live."""
        while not stop.is_set():
            try:
                if self.tick():
                    told()
                stop.wait(POLL_S)
            except Exception:
                log.exception("activation failed; what is live stays live", extra={"action": "activation_failed"})
                stop.wait(TROUBLE_S)
        self.warden.close()

    def load(self, release: str, scale: float = 1.0) -> "Future[Served]":
        """Load a verified release of this box beside the live ones, to answer by its own name; it moves no alias. From any thread.

        The future raises LoradError; it is done within a tick or two, where the engine is not at a long load.
        """
        return self._errand(lambda: self.beside.load(release, scale))

    def unload(self, model: str, grace_s: float = 0.0) -> "Future[Served]":
        """Let what `load` loaded leave (by the name it answers to). From any thread; the future raises LoradError."""
        return self._errand(lambda: self.beside.unload(model, grace_s))

    def move(self, wish: Relocation) -> "Future[Served]":
        """Move an alias to a verified release of this box, as a person asks. From any thread; the future raises LoradError."""
        return self._errand(lambda: self._move(wish))

    def _errand(self, does: Callable[[], Served]) -> "Future[Served]":
        def done() -> Served:
            served = does()
            self.settle()
            return served

        return self._errands.put(done)

    def _move(self, wish: Relocation) -> Served:
        served = self.beside.move(wish)
        subject = self.warden.watches.subject(served.alias or "")
        if subject is not None and (subject.release != wish.release or subject.phase is Phase.SHADOW):
            self.warden.watches.forget(subject.alias)  # a person has decided
        return served

    def tick(self) -> bool:
        """Act on the wish if it is new or something is deferred. Returns whether anything was written. Raises OSError."""
        sequence = self.ledger.sequence
        found = self._read()
        if found is not None:
            raw, desired = found
            self._act(raw, desired)
            self._wishes.done(raw)
        self._guard()
        self._errands.run()
        self.settle()
        is_tidied = self._housekeeping.tidy(self._manifests)
        return is_tidied or self.ledger.sequence > sequence

    def settle(self) -> None:
        """Make active.json, the routing table and the engine follow the ledger. Repeats what an error cut off."""
        self.warden.tell()
        self.beside.expire()
        if self.ledger.dirty:
            self.ledger.publish(self.library.ids())
        table = self._table()
        if table != self.routes.table:
            self.routes.flip(table)
        self._residence.settle(self.routes, self._ground.monotonic())

    def missing(self) -> list[str]:
        """Names whose live release is not on the engine, so that the base answers for them. For any thread."""
        return [alias for alias, state in tuple(self.ledger.aliases.items()) if state.release and state.release not in self._manifests]

    # The guard

    def _guard(self) -> None:
        """Carry out what the guard rules; begin the rehearsals that can begin."""
        self.warden.watches.let_go(self._housekeeping.unwanted)
        for subject, ruling in self.warden.look():
            if ruling.passes:
                self.warden.pass_on(subject, ruling)
                self._retry_at = 0.0  # what waited in the shadow may be shown
            elif subject.phase is Phase.SHADOW:
                self.warden.fail_shadow(subject, ruling.reason)
                self._retry_at = 0.0
            else:
                self._roll_back(subject, ruling.reason)
        if self._ground.monotonic() >= self._rehearse_at:
            self._rehearse()

    def _rehearse(self) -> None:
        for release, trial in self.warden.waiting():
            state = self.ledger.aliases.get(trial.alias, AliasState(release=None))
            try:
                if release not in self._manifests:
                    self._residence.take_in(release, trial.alias)
                change = self._change(trial.alias, release, state.release)
                assert change is not None, "it was loaded"
                self.warden.rehearse(change, trial)
            except Deferred:
                self._rehearse_at = self._ground.monotonic() + REHEARSE_S
            except LoradError as error:
                self.warden.fail(release, trial, error)
                self.library.drop(release)

    def _roll_back(self, subject: Subject, reason: str) -> None:
        """Serve again what was live before, or the base where that is not at hand. Raises OSError."""
        alias, back = subject.alias, subject.before
        state = self.ledger.aliases[alias]
        if state.release != subject.release:  # a wish came first
            self.warden.watches.forget(alias)
            return
        try:
            if back is not None and back not in self._manifests:
                self._residence.recall(back, alias)
        except LoradError as error:
            reason, back = f"{reason}; the release before is not at hand ({error.code}), the base serves", None
        version = self._manifests[back].version if back else None
        entry = Entry(
            alias=alias, event="rolled_back", release=back, fence=state.fence, version=version, previous=subject.release, code="ROLLED_BACK", reason=reason
        )
        self.ledger.record(entry)
        self.warden.watches.end(alias, Phase.ROLLED_BACK, reason)
        self.settle()
        log.error("%s: rolled back from %s to %s: %s", alias, subject.release[:12], _named(back, version), reason, extra={"action": "rolled_back"})

    def _change(self, alias: str, release: str | None, before: str | None) -> Change | None:
        """What an alias goes over to; None where that is the base, or not loaded."""
        if release is None or release not in self._manifests:
            return None
        return Change(alias=alias, new=self._served(alias, release), old=self._served(alias, before), folder=self.library.folder(release))

    # The wish

    def _read(self) -> tuple[bytes, Desired] | None:
        """The wish, if there is something to do about it."""
        found = self._wishes.read(again=self._retry_due())
        if isinstance(found, Foreign):
            self._refuse_wish(found.raw, 0, found.code, found.why)
            self._wishes.done(found.raw)
            return None
        return found

    def _retry_due(self) -> bool:
        deferred = [state for state in self.ledger.aliases.values() if state.outcome is Outcome.DEFERRED]
        return any(state.code == "RELEASE_MISSING" for state in deferred) or bool(deferred and self._ground.monotonic() >= self._retry_at)

    def _refuse_wish(self, raw: bytes, fence: int, code: str, why: str) -> None:
        log.error("wish refused (%s): %s", code, why, extra={"action": "wish_refused"})
        reason = f"{why} ({mark_of(raw)})"
        self.ledger.record(Entry(alias=WHOLE_WISH, event="refused", release=None, fence=fence, code=code, reason=reason))

    def _act(self, raw: bytes, desired: Desired) -> None:
        if desired.fence < self.ledger.fence_seen:
            why = f"fence {desired.fence} is older than {self.ledger.fence_seen}, which this box has seen"
            self._refuse_wish(raw, desired.fence, "STALE_FENCE", why)
            return
        self._housekeeping.adopt(desired)
        self._sets = {persona: dict(scales) for persona, scales in desired.sets.items()}
        self.warden.adopt(desired)
        self._rehearse_at = 0.0
        for alias, wish in sorted(desired.aliases.items()):
            fence = desired.fences.get(alias, desired.fence)
            if self.ledger.is_new(alias, fence):
                self._fulfil(alias, wish, fence)
        self.ledger.see(desired.fence)

    # One alias

    def _fulfil(self, alias: str, wish: Wish, fence: int) -> None:
        """Carry out one wish and write its outcome."""
        state = self.ledger.aliases.get(alias, AliasState(release=None))
        self.warden.withdraw(alias, wish.release)
        try:
            manifest = self._bring(alias, wish, state)
            change = self._change(alias, wish.release, state.release) if wish.release != state.release and not wish.allow else None
            if change is not None:
                self.warden.require_shadow(change)
        except Deferred as error:
            self._retry_at = self._ground.monotonic() + RETRY_S
            self._record_no(alias, wish, fence, error)
        except LoradError as error:
            self._record_no(alias, wish, fence, error)
            if wish.release:
                self.library.drop(wish.release)
        else:
            previous = state.previous if wish.release == state.release else state.release
            version = manifest.version if manifest else None
            if wish.release != state.release:
                self.warden.watches.forget(alias)
            self.ledger.record(Entry(alias=alias, event="live", release=wish.release, fence=fence, version=version, previous=previous))
            self.settle()
            if change is not None:  # a person who allows a release has decided
                self.warden.flipped(change)
                self.settle()
            log.info("%s serves %s", alias, _named(wish.release, version), extra={"action": "live"})

    def _record_no(self, alias: str, wish: Wish, fence: int, error: LoradError) -> None:
        event: Event = "deferred" if isinstance(error, Deferred) else "refused"
        if self.ledger.aliases.get(alias, AliasState(release=None)).code != error.code:
            log.warning("%s: %s %s (%s): %s", alias, _named(wish.release, None), event, error.code, error.what, extra={"action": event})
        self.ledger.record(Entry(alias=alias, event=event, release=wish.release, fence=fence, code=error.code, reason=error.what))
        self.settle()

    def _bring(self, alias: str, wish: Wish, state: AliasState) -> Manifest | None:
        """The wished release loaded and probed beside the others; None for the base. Raises LoradError: Deferred or refused."""
        if parse_adapter(alias, shared=True) != alias:
            raise UsageError(f"alias {alias!r} is not persona/domain", hint=f"wish for {parse_adapter(alias, shared=True)!r}", code="ADAPTER_NAME")
        if wish.release is not None and not RELEASE.fullmatch(wish.release):
            raise UsageError(f"{wish.release!r} is no release id", hint="a release id is the SHA-256 of its manifest", code="RELEASE_ID")
        if wish.release in self._housekeeping.unwanted:
            raise StateError(f"release {wish.release[:12]} is to be deleted by the same wish", hint="wish for another release", code="RELEASE_PURGED")
        if wish.release == state.release:
            return self._manifests.get(wish.release) if wish.release else None
        if wish.replaces != state.release:
            raise StateError(
                f"{alias} serves {_named(state.release, None)}, not {_named(wish.replaces, None)} that was to be replaced",
                hint="rank against what is live and ask again",
                code="INCUMBENT_CHANGED",
            )
        if wish.release is None:
            return None
        if self.ledger.is_refused(wish.release) and not wish.allow:
            raise StateError(f"this box refused release {wish.release[:12]} before", hint="a person may allow it", code="REFUSED_BEFORE")
        if wish.release in self._manifests:
            return self._manifests[wish.release]
        return self._residence.take_in(wish.release, alias)

    # After a start

    def _restore(self, alias: str) -> None:
        """Serve again what was live; where its bytes are no longer whole, what was live before, else the base."""
        trouble: LoradError | None = None
        wanted = self.ledger.intended(alias)
        fence = self.ledger.aliases[alias].fence
        entry = Entry(alias=alias, event="restored", release=None, fence=fence)
        for release in wanted:
            try:
                manifest = self._residence.recall(release, alias)
            except LoradError as error:
                trouble = trouble or error
                continue
            previous = self.ledger.previous_of(alias) if release == wanted[0] else None
            entry = Entry(alias=alias, event="restored", release=release, fence=fence, version=manifest.version, previous=previous)
            break
        if trouble is not None:
            why = f"{trouble.what}; {_named(entry.release, entry.version)} serves instead"
            log.error("%s not restored: %s", alias, why, extra={"action": "restore_failed"})
            entry = Entry(alias=alias, event="restored", release=entry.release, fence=fence, version=entry.version, code=trouble.code, reason=why)
        self.ledger.record(entry)
        if entry.previous:
            self._keep_beside(entry.previous, alias)

    def _keep_beside(self, release: str, alias: str) -> None:
        try:
            self._residence.recall(release, alias)
        except LoradError as error:
            log.warning("%s: the release before the live one is not at hand: %s", alias, error.what)

    # What follows from the ledger

    def _table(self) -> Table:
        aliases = {alias: self._served(alias, state.release) for alias, state in self.ledger.aliases.items()}
        staying = self._residence.staying(self.ledger.aliases, self._housekeeping.unwanted, self.routes)
        beside = [self._served(self._manifests[release].adapter, release) for release in staying]
        return Table(
            base=self._base,
            aliases={DEFAULT_ADAPTER: self._base} | aliases,
            releases={served.model: served for served in beside} | self.beside.table(staying),
            sets=sets_of(self._base, aliases, self._sets),
            canaries=self.warden.canaries(self._served),
        )

    def _served(self, alias: str, release: str | None) -> Served:
        if release is None or release not in self._manifests:
            return self._base
        manifest = self._manifests[release]
        rules = manifest.profile.rules if manifest.profile else NO_RULES
        return Served(model=f"{alias}@v{manifest.version}", created=int(manifest.created_at.timestamp()), release=release, alias=alias, rules=rules)


def _named(release: str | None, version: int | None) -> str:
    return "the base" if release is None else f"release {release[:12]}" + (f" (v{version})" if version else "")
