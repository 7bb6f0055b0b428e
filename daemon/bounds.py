"""Keeps the logs of living children small: one that says too much has the beginning of its log cut off.

A child writes to a file that the daemon opened for it to append, so that it goes on after the cut.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from daemon.clock import monotonic_s
from daemon.index import Index
from store.runs import LOG
from store.trash import cut_to_tail

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
MOST_BYTES = 8 << 20  # above this the beginning is cut off
TAIL_BYTES = 1 << 20  # so much of the end stays
NOTE = b"(the beginning was cut: this child says too much)\n"


class LogBounds:
    """Looks at the logs of living children every few seconds."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._looked_s = monotonic_s()

    def look(self) -> None:
        """Cut what has grown too long. Raises OSError."""
        if monotonic_s() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = monotonic_s()
        for path in self._logs():
            if cut_to_tail(path, TAIL_BYTES, NOTE, above=MOST_BYTES):
                log.warning("%s was cut to its end", path, extra={"action": "log_cut"})

    def _logs(self) -> Iterator[Path]:
        home = self._index.home
        yield from home.root.glob("*.log")
        yield from home.root.glob("targets/*/link.log")
        for job in self._index.views.active.values():
            child = getattr(job.facts, "child", None)
            if child is not None:
                yield home.runs(job.id) / child.run / LOG
