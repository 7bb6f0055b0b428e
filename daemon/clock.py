"""The only reader of the clock in the daemon."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present time, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - this is the one place


def monotonic_s() -> float:
    """Seconds that never jump."""
    return time.monotonic()


def wall_s() -> float:
    """Seconds since the epoch, for comparison with file times."""
    return time.time()


def elapsed_s() -> float:
    """Seconds that never jump and count the machine's sleep too, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
