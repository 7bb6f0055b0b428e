"""Which releases stay loaded: the live ones, those before them, what was asked for by name, and the latest used in a byte budget.

A release that nothing names any more leaves the engine when its last request has ended; answers that still run after the
deadline are cancelled, so that one reader who never reads cannot keep an adapter in memory.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from core.wire import AliasState, Manifest
from serving.library import Deferred, Library
from serving.probe import probe
from serving.routing import Routes
from serving.witness import Witness

log = logging.getLogger(__name__)

WEIGHTS = (".safetensors", ".gguf", ".enc")


@dataclass(slots=True)
class Residence:
    """The loaded releases of one box. One thread."""

    engine: Witness
    library: Library
    budget_bytes: int  # of what is loaded beside the live releases; 0: what was asked for, and the one before each
    deadline_s: float
    manifests: dict[str, Manifest] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # loaded because somebody asked for them by name
    _bytes: dict[str, int] = field(default_factory=dict)
    _leaving: dict[str, float] = field(default_factory=dict)  # since when nothing names it, by the caller's clock

    def take_in(self, release: str, alias: str) -> Manifest:
        """The release verified, loaded and probed beside the others. Raises LoradError: Deferred or refused."""
        try:
            manifest = self.library.admit(release, alias)
            self.engine.load(release, self.library.folder(release))
        except MemoryError:
            raise Deferred(f"no memory for release {release[:12]}", hint="free memory on this box", code="OUT_OF_MEMORY") from None
        except OSError as error:
            raise Deferred(f"release {release[:12]}: {error.strerror}", hint="free disk space on this box", code="BOX_DISK") from None
        try:
            probe(self.engine, release, self.library.folder(release))
        except BaseException:
            self.engine.unload(release)
            raise
        self._enter(release, manifest)
        return manifest

    def recall(self, release: str, alias: str) -> Manifest:
        """A release that is already on the box, verified again and loaded. Raises LoradError."""
        try:
            manifest = self.library.recall(release, alias)
            self.engine.load(release, self.library.folder(release))
        except (OSError, MemoryError) as error:
            raise Deferred(f"release {release[:12]}: {error}", hint="free memory or disk on this box and restart", code="RESTORE") from None
        self._enter(release, manifest)
        return manifest

    def settle(self, routes: Routes, now_s: float) -> None:
        """Unload what no name and no request needs; cancel the answers that hold a release beyond the deadline."""
        for release in routes.idle(tuple(self.manifests)):
            self.engine.unload(release)
            del self.manifests[release], self._bytes[release]
        routed = routes.routed()
        self._leaving = {release: self._leaving.get(release, now_s) for release in self.manifests if release not in routed}
        for release, since_s in self._leaving.items():
            if now_s - since_s >= self.deadline_s:
                self._leaving[release] = now_s  # told once a deadline
                if cancelled := self.engine.cancel(release):
                    words = "release %s should have left: %d answers of it are cancelled"
                    log.warning(words, release[:12], cancelled, extra={"action": "answers_cancelled"})

    def _enter(self, release: str, manifest: Manifest) -> None:
        self.manifests[release] = manifest
        self._bytes[release] = sum(path.stat().st_size for path in self.library.folder(release).iterdir() if path.suffix in WEIGHTS)

    def staying(self, states: Mapping[str, AliasState], unwanted: Iterable[str], routes: Routes) -> set[str]:
        """Loaded releases that answer by their own name. `unwanted` ones only where they are live."""
        live = {state.release for state in states.values() if state.release in self.manifests}
        gone = set(unwanted)
        before = {state.previous for state in states.values() if state.previous in self.manifests} - live - gone
        found = {release for release in (*live, *before) if release}
        others = [release for release in routes.oldest_first(self.manifests) if release not in found and release not in gone]
        if not self.budget_bytes:
            return found | (self.kept & set(others))
        room = self.budget_bytes - sum(self._bytes[release] for release in before if release)
        for release in reversed(others):
            room -= self._bytes[release]
            if room < 0:
                break
            found.add(release)
        return found
