"""How OpenMP's threads wait for each other at the end of each parallel loop: awake while the cores are ours, asleep while others want them.

A thread that stays awake goes on at once, but burns the time slice that the thread it waits for would need, where both share
a core with somebody else. GNU's runtime has a count for each case, and takes the short one by itself while a process has
more OpenMP threads than there are cores (libgomp manual, GOMP_SPINCOUNT). So an idle thread that once computed, kept alive,
is the switch: with it the threads sleep, without it they stay awake. Other runtimes do not know it, and lose nothing.
"""

import threading
import time
from pathlib import Path

import torch

CROWDED, QUIET = 0.08, 0.02  # share of their time that our threads were ready and got no core
TASKS = Path("/proc/self/task")
ENOUGH = 1 << 18  # elements that torch spreads over all threads


def waited_s() -> float:
    """Seconds for which this process's threads were ready to run and had no core, all together; 0 where the system does not say."""
    total = 0
    for task in TASKS.glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except (OSError, IndexError, ValueError):  # it ended meanwhile
            continue
    return total / 1e9


class Patience:
    """The switch of one process. `look` once a step."""

    def __init__(self) -> None:
        self._seen = (time.monotonic(), waited_s())
        self._release: threading.Event | None = None

    @property
    def sleeps(self) -> bool:
        """Whether the threads sleep at once where they wait."""
        return self._release is not None

    def look(self) -> None:
        """Turn the switch by how long our threads waited for a core since the last look."""
        now, waited = time.monotonic(), waited_s()
        share = (waited - self._seen[1]) / max((now - self._seen[0]) * torch.get_num_threads(), 1e-3)
        self._seen = (now, waited)
        if share > CROWDED and not self.sleeps:
            self.sleep()
        elif share < QUIET and self.sleeps:
            self.wake()

    def sleep(self) -> None:
        """Let them sleep at once where they wait."""
        release, computed = threading.Event(), threading.Event()

        def hold() -> None:
            torch.ones(ENOUGH).add_(1)  # makes OpenMP threads of its own, which sleep from now on
            computed.set()
            release.wait()

        threading.Thread(target=hold, name="patience", daemon=True).start()
        computed.wait()
        self._release = release

    def wake(self) -> None:
        """Let the threads stay awake again."""
        if self._release is not None:
            self._release.set()
            self._release = None
