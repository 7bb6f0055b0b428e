"""What people have loaded beside the live releases, and what an admin moves by hand; asked for by other threads, done by the agent's.

A release answers by its own name alone, persona/domain@vN. With a scale it is an entry of its own, persona/domain@vN*0.5: no
name ever stands for other weights. Entries last as long as the process.
"""

import logging
import queue
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from core.errors import StateError, UsageError
from core.wire import AliasState
from serving.engines.port import Part
from serving.housekeeping import Housekeeping
from serving.ledger import Entry, Ledger
from serving.library import Deferred, Rotten
from serving.probe import read_probe
from serving.residence import Residence
from serving.routing import Served, mixed

log = logging.getLogger(__name__)


class Errands:
    """Work for one thread, from any."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Served], Future[Served]]] = queue.SimpleQueue()

    def put(self, does: Callable[[], Served]) -> "Future[Served]":
        """To be done by `run`; the future raises what it raises."""
        future: Future[Served] = Future()
        self._waiting.put((does, future))
        return future

    def run(self) -> None:
        """Do all that waits, but for what nobody waits for any more."""
        while not self._waiting.empty():
            does, future = self._waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(does())
            except Exception as error:  # the border of an errand: whoever asked is told
                future.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One entry that somebody asked for."""

    release: str
    scale: float = 1.0
    leaves_at: float | None = None  # by the monotonic clock; None: it stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """An admin's wish that an alias go over to a release of this box."""

    release: str
    replaces: str | None  # what must be live now; None: the base
    actor: str
    grace_s: float = 0.0  # that what is pushed out of its place stays loaded


@dataclass(slots=True)
class Beside:
    """The entries of one box. One thread; `entries` is replaced as a whole, and may be read by any."""

    base: Served
    ledger: Ledger
    residence: Residence
    housekeeping: Housekeeping
    served: Callable[[str, str], Served]  # (alias, loaded release) as it is served
    monotonic: Callable[[], float]
    entries: Mapping[str, Loaded] = field(default_factory=dict)  # model name ->

    def load(self, release: str, scale: float) -> Served:
        """The release verified, loaded and probed, under its own name. Raises LoradError."""
        self._bring(release)
        if scale != 1:
            self._check_scale(release, scale)
        served = self._scaled(release, scale)
        self._enter({**self.entries, served.model: Loaded(release=release, scale=scale)})
        return served

    def unload(self, model: str, grace_s: float) -> Served:
        """Let an entry go, after its grace. Raises StateError NOT_LOADED."""
        entry = self.entries.get(model)
        if entry is None or entry.release not in self.residence.manifests:
            raise StateError(f"{model!r} was not loaded by request", hint="`lorad adapters rollback` moves what is live", code="NOT_LOADED")
        served = self._scaled(entry.release, entry.scale)
        if entry.leaves_at is None:
            self._enter({**self.entries, model: replace(entry, leaves_at=self.monotonic() + grace_s)})
        return served

    def move(self, wish: Relocation) -> Served:
        """The release live under its alias, by a ledger line that names the actor; a repeat writes none. Raises LoradError."""
        alias = self.residence.library.alias_of(wish.release)
        state = self.ledger.aliases.get(alias, AliasState(release=None))
        if state.release != wish.release:
            if state.release != wish.replaces:
                live = f"release {state.release[:12]}" if state.release else "the base"
                raise StateError(f"{alias} serves {live}, which is not what was to be replaced", hint="look again and repeat", code="INCUMBENT_CHANGED")
            self._bring(wish.release)
            if state.previous != wish.release:
                self._linger(state.previous, wish.grace_s)
            version = self.residence.manifests[wish.release].version
            entry = Entry(alias=alias, event="moved", release=wish.release, fence=state.fence, version=version, previous=state.release, code="MOVED")
            self.ledger.record(replace(entry, reason=f"moved by {wish.actor}", actor=wish.actor))
            log.warning("%s: moved to release %s (v%d) by %s", alias, wish.release[:12], version, wish.actor, extra={"action": "moved"})
        return self.served(alias, wish.release)

    def expire(self) -> None:
        """Forget entries whose grace is over, and those of releases that are not on the engine any more."""
        now = self.monotonic()
        staying = {
            model: entry
            for model, entry in self.entries.items()
            if entry.release in self.residence.manifests and (entry.leaves_at is None or entry.leaves_at > now)
        }
        if len(staying) < len(self.entries):
            self._enter(staying)

    def table(self, staying: Iterable[str]) -> dict[str, Served]:
        """Model name -> what answers, of the entries with a scale whose release is among `staying`."""
        on = set(staying)
        return {model: self._scaled(entry.release, entry.scale) for model, entry in self.entries.items() if entry.scale != 1 and entry.release in on}

    def _enter(self, entries: Mapping[str, Loaded]) -> None:
        self.entries = entries
        self.residence.kept = {entry.release for entry in entries.values()}

    def _linger(self, release: str | None, grace_s: float) -> None:
        """Let what was the release before the live one stay for its grace."""
        if release is not None and release in self.residence.manifests:
            model = self._scaled(release, 1.0).model
            self._enter({model: Loaded(release=release, leaves_at=self.monotonic() + grace_s), **self.entries})

    def _bring(self, release: str) -> None:
        alias = self.residence.library.alias_of(release)
        if release in self.housekeeping.unwanted or self.ledger.is_refused(release):
            raise StateError(f"release {release[:12]} was refused, rolled back or deleted here", hint="ask for another one", code="REFUSED_BEFORE")
        if release in self.residence.manifests:
            return
        try:
            self.residence.take_in(release, alias)
        except Deferred as error:
            if error.code != "RELEASE_MISSING":
                raise
            what = f"the bytes of release {release[:12]} on this box had changed: it is dropped"
            raise Rotten(what, hint="wish for it anew, and look at the disk", code="RELEASE_MISSING") from None

    def _check_scale(self, release: str, scale: float) -> None:
        """Have a token computed with it: an engine that cannot says so now, and not to every request. Raises LoradError."""
        if not -4 <= scale <= 4 or float(f"{scale:g}") != scale:  # as in a request's adapters; the name says it in six digits
            raise UsageError(f"scale {scale!r} is not within -4 and 4 with six digits at most", hint="1 is as trained", code="SCALE_UNFIT")
        line = read_probe(self.residence.library.folder(release))[0]
        self.residence.engine.logprobs((Part(release=release, scale=scale),), line.prompt_ids, line.adapter.ids[:1])

    def _scaled(self, release: str, scale: float) -> Served:
        served = self.served(self.residence.manifests[release].adapter, release)
        return served if scale == 1 else mixed(self.base, [(served, scale)])
