"""A line that moves on a terminal while a long file is read; nothing where nobody watches."""

import sys
import threading
import time

from validation.findings import printable

PATIENCE_S = 0.5  # a short check shows nothing
BETWEEN_S = 0.1


class Meter:
    """Told (stage, bytes done, bytes in all); shows share and time left on standard error. Safe in threads."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self._shows = sys.stderr.isatty()
        self._stage = ""
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()
        self._drawn = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._shows:
            return
        with self._lock:
            now = time.monotonic()
            if stage != self._stage:
                self._stage, self._began = stage, now
            if now - self._told < (BETWEEN_S if self._drawn else PATIENCE_S):
                return
            self._told, self._drawn = now, True
            share = min(1.0, done / total) if total else 0.0
            left = f", about {(now - self._began) * (1 - share) / share:.0f} s left" if share > 0.01 else ""
            what = "reading" if stage == "read" else stage
            sys.stderr.write(f"\r\x1b[K{self._name}: {what} {share:.0%}{left}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
