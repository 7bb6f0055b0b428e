"""The agent that makes this box serve what `in/desired.json` asks for.

One thread. For each alias whose wish is new: check what it replaces, take the release in and verify it (`library`),
load it beside the others, probe it, write the ledger line, then active.json, then put another routing table in force by
one assignment. Every step can be repeated, and the ledger line decides: killed before it, the whole wish is carried out
again; killed after it, the start restores what the line says. One alias that fails leaves the others alone.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.answering import NO_RULES
from core.errors import IntegrityError, LoradError, StateError, UsageError
from core.names import DEFAULT_ADAPTER, parse_adapter
from core.wire import AliasState, Desired, Manifest, Outcome, Wish
from serving.engines.port import Engine
from serving.ledger import WHOLE_WISH, Entry, Event, Ledger, releases_of
from serving.library import Deferred, Library
from serving.probe import probe
from serving.routing import Routes, Served, Table
from store.paths import Box
from store.wire import read_desired

log = logging.getLogger(__name__)

POLL_S = 0.2
RETRY_S = 5.0  # before a wish is tried again that this box lacks memory or disk for
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


class Agent:
    """Carries out wishes. `start` once, then `tick` again and again, all on one thread."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._engine = ground.engine
        self.ledger = Ledger(ground.box, ground.now)
        self.library = Library(ground.box, ground.keys, ground.engine.base, ground.engine.backend)
        self._manifests: dict[str, Manifest] = {}  # releases on the engine
        self._base = Served(model=ground.engine.base.name, created=int(ground.now().timestamp()))
        self.routes = Routes(self._table())
        self._raw: bytes | None = None  # the wish that was acted on
        self._unwanted: frozenset[str] = frozenset()  # releases that are to be deleted
        self._suspect: bytes | None = None  # bytes that did not verify; reported when they are still there a tick later
        self._fresh = True  # nothing was swept since the start
        self._retry_at = 0.0
        self._trouble = ""

    def start(self) -> None:
        """Load the base, restore what was live. Afterwards `routes` answers."""
        self._engine.open()
        self.library.open()
        for alias in sorted(self.ledger.aliases):
            self._restore(alias)
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

    def tick(self) -> bool:
        """Act on the wish if it is new or something is deferred. Returns whether anything was written. Raises OSError."""
        sequence = self.ledger.sequence
        found = self._read()
        if found is not None:
            raw, desired = found
            self._act(raw, desired)
            self._raw = raw  # only now: what an error cut off is done again
        if found is not None or self._fresh:
            self._fresh = False
            self.library.sweep(state.wanted for state in self.ledger.aliases.values() if state.outcome is Outcome.DEFERRED and state.wanted)
        self.settle()
        purged = self._purge()
        return purged or self.ledger.sequence > sequence

    def _purge(self) -> bool:
        """Delete what the wish wants gone, but for what is still live or asked by a request. Returns whether that changed anything."""
        live = {state.release for state in self.ledger.aliases.values()}
        gone = [release for release in self._unwanted if release not in live and release not in self._manifests]
        self.library.purge(gone)
        confirmed = tuple(sorted(release for release in gone if not self.library.remains(release)))
        if confirmed == self.ledger.purged:
            return False
        self.ledger.purged = confirmed
        self.ledger.publish(self.library.ids())
        log.info("%d releases are purged", len(confirmed), extra={"action": "purged"})
        return True

    def settle(self) -> None:
        """Make active.json, the routing table and the engine follow the ledger. Repeats what an error cut off."""
        if self.ledger.dirty:
            self.ledger.publish(self.library.ids())
        table = self._table()
        if table != self.routes.table:
            self.routes.flip(table)
        for release in self.routes.idle(tuple(self._manifests)):
            self._engine.unload(release)
            del self._manifests[release]

    # The wish

    def _read(self) -> tuple[bytes, Desired] | None:
        """The wish, if there is something to do about it."""
        try:
            raw = self._ground.box.desired.read_bytes()
        except FileNotFoundError:
            return None
        if raw == self._raw and not self._retry_due():
            return None
        try:
            desired = read_desired(self._ground.box.desired, self._ground.keys)
        except StateError as error:
            self._tell(error)
            return None
        except IntegrityError as error:
            self._distrust(raw, error)
            return None
        self._suspect, self._trouble = None, ""
        return (raw, desired) if desired is not None else None

    def _retry_due(self) -> bool:
        deferred = [state for state in self.ledger.aliases.values() if state.outcome is Outcome.DEFERRED]
        return any(state.code == "RELEASE_MISSING" for state in deferred) or bool(deferred and self._ground.monotonic() >= self._retry_at)

    def _distrust(self, raw: bytes, error: IntegrityError) -> None:
        """Bytes that are still being written must not be called foreign: only what lies still for a tick is reported."""
        if raw != self._suspect:
            self._suspect = raw
            return
        self._refuse_wish(raw, 0, error.code, error.what)
        self._raw, self._suspect = raw, None

    def _tell(self, error: LoradError) -> None:
        if error.what != self._trouble:
            self._trouble = error.what
            log.error("wishes cannot be checked: %s; %s", error.what, error.hint, extra={"action": "wish_unreadable"})

    def _refuse_wish(self, raw: bytes, fence: int, code: str, why: str) -> None:
        log.error("wish refused (%s): %s", code, why, extra={"action": "wish_refused"})
        reason = f"{why} (wish {hashlib.sha256(raw).hexdigest()[:12]})"
        self.ledger.record(Entry(alias=WHOLE_WISH, event="refused", release=None, fence=fence, code=code, reason=reason))

    def _act(self, raw: bytes, desired: Desired) -> None:
        if desired.fence < self.ledger.fence_seen:
            why = f"fence {desired.fence} is older than {self.ledger.fence_seen}, which this box has seen"
            self._refuse_wish(raw, desired.fence, "STALE_FENCE", why)
            return
        self._unwanted = frozenset(release for release in desired.purge if RELEASE.fullmatch(release))
        for alias, wish in sorted(desired.aliases.items()):
            fence = desired.fences.get(alias, desired.fence)
            if self.ledger.is_new(alias, fence):
                self._fulfil(alias, wish, fence)
        self.ledger.see(desired.fence)

    # One alias

    def _fulfil(self, alias: str, wish: Wish, fence: int) -> None:
        """Carry out one wish and write its outcome."""
        state = self.ledger.aliases.get(alias, AliasState(release=None))
        try:
            manifest = self._bring(alias, wish, state)
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
            self.ledger.record(Entry(alias=alias, event="live", release=wish.release, fence=fence, version=version, previous=previous))
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
        if wish.release in self._unwanted:
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
        return self._take_in(wish.release, alias)

    def _take_in(self, release: str, alias: str) -> Manifest:
        try:
            manifest = self.library.admit(release, alias)
            self._engine.load(release, self.library.folder(release))
        except MemoryError:
            raise Deferred(f"no memory for release {release[:12]}", hint="free memory on this box", code="OUT_OF_MEMORY") from None
        except OSError as error:
            raise Deferred(f"release {release[:12]}: {error.strerror}", hint="free disk space on this box", code="BOX_DISK") from None
        try:
            probe(self._engine, release, self.library.folder(release))
        except BaseException:
            self._engine.unload(release)
            raise
        self._manifests[release] = manifest
        return manifest

    # After a start

    def _restore(self, alias: str) -> None:
        """Serve again what was live; where its bytes are no longer whole, what was live before, else the base."""
        trouble: LoradError | None = None
        wanted = self.ledger.intended(alias)
        fence = self.ledger.aliases[alias].fence
        entry = Entry(alias=alias, event="restored", release=None, fence=fence)
        for release in wanted:
            try:
                manifest = self._recall(release, alias)
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

    def _recall(self, release: str, alias: str) -> Manifest:
        try:
            manifest = self.library.recall(release, alias)
            self._engine.load(release, self.library.folder(release))
        except (OSError, MemoryError) as error:
            raise Deferred(f"release {release[:12]}: {error}", hint="free memory or disk on this box and restart", code="RESTORE") from None
        self._manifests[release] = manifest
        return manifest

    def _keep_beside(self, release: str, alias: str) -> None:
        try:
            self._recall(release, alias)
        except LoradError as error:
            log.warning("%s: the release before the live one is not at hand: %s", alias, error.what)

    # What follows from the ledger

    def _table(self) -> Table:
        states = self.ledger.aliases
        aliases = {DEFAULT_ADAPTER: self._base} | {alias: self._served(alias, state.release) for alias, state in states.items()}
        beside = [self._served(alias, release) for alias, state in states.items() for release in releases_of([state]) if self._is_beside(release, state)]
        return Table(base=self._base, aliases=aliases, releases={served.model: served for served in beside})

    def _is_beside(self, release: str, state: AliasState) -> bool:
        """Whether a release answers by its own name: not one that is to be deleted, unless it is live."""
        return release in self._manifests and (release == state.release or release not in self._unwanted)

    def _served(self, alias: str, release: str | None) -> Served:
        if release is None or release not in self._manifests:
            return self._base
        manifest = self._manifests[release]
        rules = manifest.profile.rules if manifest.profile else NO_RULES
        return Served(model=f"{alias}@v{manifest.version}", created=int(manifest.created_at.timestamp()), release=release, alias=alias, rules=rules)


def _named(release: str | None, version: int | None) -> str:
    return "the base" if release is None else f"release {release[:12]}" + (f" (v{version})" if version else "")
