"""How much time something may take of the daemon: at once where it is cheap, seldom where it is not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.clock import monotonic_s


@dataclass(slots=True)
class Allowance:
    """Time that is earned by waiting and spent by working. Nothing is to begin while none is left."""

    share: float  # of the time that passes is earned
    most_s: float  # that can be saved up: so much may be spent in a burst
    clock: Callable[[], float] = monotonic_s
    _left_s: float = 0.0
    _looked_s: float = float("-inf")

    def is_left(self) -> bool:
        """Whether it may be done now."""
        now_s = self.clock()
        self._left_s = min(self.most_s, self._left_s + self.share * (now_s - self._looked_s))
        self._looked_s = now_s
        return self._left_s > 0

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count what is done inside, however it ends."""
        began_s = self.clock()
        try:
            yield
        finally:
            self._left_s -= self.clock() - began_s
