"""Most requests of one client by route, counted in a moving window by the library limits, in this process's memory."""

import math
import time
from collections.abc import Mapping

from core.access import EVERY_ROUTE

FAILED_KEYS = "60/minute"  # of one address: who guesses keys is slowed down; who has one is not asked here


class Rates:
    """Counts each request once. Safe in threads."""

    def __init__(self, rates: Mapping[str, str]) -> None:
        """Args: rates: `serving.rates`, checked by the config, over the defaults."""
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._items = {name: parse(rate) for name, rate in rates.items()}
        self._failed = parse(FAILED_KEYS)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def retry_after_s(self, client: str, door: str) -> int:
        """0: counted, and it may pass; else whole seconds until it might.

        Args: client: id of a key, or an address.
        """
        for name in (door, EVERY_ROUTE):
            item = self._items.get(name)
            if item is not None and not self._limiter.hit(item, client, name):
                return _seconds_until(self._limiter.get_window_stats(item, client, name).reset_time)
        return 0

    def fail(self, address: str) -> int:
        """A request of that address without a right key: 0, or whole seconds until it should try again."""
        if self._limiter.hit(self._failed, address, "failed keys"):
            return 0
        return _seconds_until(self._limiter.get_window_stats(self._failed, address, "failed keys").reset_time)


def _seconds_until(reset_time: float) -> int:
    return max(1, math.ceil(reset_time - time.time()))
