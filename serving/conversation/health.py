"""Which releases have just failed to answer. A conversation asks the base instead, and says so. Pure but for the clock that is handed in."""

from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 3  # in a row, after which a release is not asked for a while
REST_S = 30.0


@dataclass(frozen=True, slots=True)
class _Trouble:
    failures: int
    at_s: float
    why: str


class Health:
    """Failures in a row by release. For one event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._troubles: dict[str, _Trouble] = {}

    def trouble(self, release: str) -> str:
        """Why the release is not asked now; empty: ask it. After REST_S the next request tries it again."""
        found = self._troubles.get(release)
        if found is None or found.failures < FAILURES or self._monotonic() - found.at_s >= REST_S:
            return ""
        return found.why

    def failed(self, release: str, why: str) -> None:
        """It gave no answer."""
        before = self._troubles.get(release)
        self._troubles[release] = _Trouble(1 + (before.failures if before else 0), self._monotonic(), why)

    def answered(self, release: str) -> None:
        """It gave a whole answer: earlier failures are forgotten."""
        self._troubles.pop(release, None)
