"""What leaves this box's disk: releases that the wish wants gone, those beyond `serving.releases_gb`, leftovers of the road."""

import logging
import re
from collections.abc import Callable, Collection, Iterable

from core.wire import Desired, Outcome
from serving.ledger import Ledger, releases_of
from serving.library import Library

log = logging.getLogger(__name__)

SWEEP_S = 60.0  # between two looks for leftovers, where no wish came
RELEASE = re.compile(r"[0-9a-f]{64}")


class Housekeeping:
    """Deletes what nothing needs. Live, previous, awaited, loaded and pinned releases stay, whatever the budget says."""

    def __init__(self, library: Library, ledger: Ledger, most_bytes: int, monotonic: Callable[[], float]) -> None:
        self._library = library
        self._ledger = ledger
        self._most_bytes = most_bytes
        self._monotonic = monotonic
        self._pins: frozenset[str] = frozenset()
        self._sweep_at = float("-inf")
        self.unwanted: frozenset[str] = frozenset()  # releases that are to be deleted, never to be served again

    def adopt(self, desired: Desired) -> None:
        """Go by the purge and the pins of this wish from now on."""
        self.unwanted = frozenset(_ids(desired.purge))
        self._pins = frozenset(_ids(desired.pins)) | frozenset(_ids(desired.trials))
        self._sweep_at = float("-inf")

    def tidy(self, loaded: Collection[str]) -> bool:
        """Delete what can go. `loaded`: on the engine. Returns whether active.json says something else now. Raises OSError."""
        if self._monotonic() >= self._sweep_at:
            self._sweep_at = self._monotonic() + SWEEP_S
            states = self._ledger.aliases.values()
            self._library.sweep({*self._pins, *(state.wanted for state in states if state.outcome is Outcome.DEFERRED and state.wanted)})
        purged, retired = self._purge(loaded), self._retire(loaded)
        if purged or retired:
            self._ledger.publish(self._library.ids())
        return purged or retired

    def _purge(self, loaded: Collection[str]) -> bool:
        """Delete what the wish wants gone, but for what is still live or asked by a request."""
        live = {state.release for state in self._ledger.aliases.values()}
        gone = [release for release in self.unwanted if release not in live and release not in loaded]
        self._library.purge(gone)
        confirmed = tuple(sorted(release for release in gone if not self._library.remains(release)))
        if confirmed == self._ledger.purged:
            return False
        self._library.purge_texts(confirmed)
        self._ledger.purged = confirmed
        log.info("%d releases are purged", len(confirmed), extra={"action": "purged"})
        return True

    def _retire(self, loaded: Collection[str]) -> bool:
        """Keep the releases within their budget; 0 is no budget."""
        if not self._most_bytes:
            return False
        states = self._ledger.aliases.values()
        keep = {*self._pins, *loaded, *releases_of(states), *(state.wanted for state in states if state.wanted)}
        retired = self._library.retain(keep, self._most_bytes)
        if retired:
            log.info("%d releases left the disk: serving.releases_gb", len(retired), extra={"action": "retired"})
        return bool(retired)


def _ids(names: Iterable[str]) -> list[str]:
    return [name for name in names if RELEASE.fullmatch(name)]
