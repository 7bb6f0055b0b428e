"""The box's sign of life: `out/capacity.json`, every ten seconds, by a thread of its own (a long load must not hide it)."""

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime

from core.wire import Capacity
from serving.engines.port import Engine
from serving.machineuse import MachineUse
from store import codec
from store.paths import Box

log = logging.getLogger(__name__)

EVERY_S = 10.0


class Pulse:
    """Writes capacity.json at the start, every ten seconds, and when told to."""

    def __init__(self, box: Box, box_id: str, engine: Engine, now: Callable[[], datetime], chore: Callable[[], object] = lambda: None) -> None:
        """Args: chore: called with each beat; raises nothing."""
        self._box = box
        self._box_id = box_id
        self._engine = engine
        self._now = now
        self._chore = chore
        self.spooled: Callable[[], int] = lambda: 0  # number of the newest signal that can be fetched
        self._use = MachineUse()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Write once, then go on in the background."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def soon(self) -> None:
        """Write now rather than in ten seconds; returns at once."""
        self._wake.set()

    def beat(self) -> None:
        """Write capacity.json. A full disk is logged, not raised: the file's age says it to the other side."""
        space = os.statvfs(self._box.root)
        capacity = Capacity(
            box=self._box_id,
            at=self._now(),
            free_bytes=space.f_bavail * space.f_frsize,
            free_inodes=space.f_favail,
            base_sha256=self._engine.base.base_sha256,
            engine=self._engine.name,
            pid=os.getpid(),
            spooled=self.spooled(),
            use=self._use.shares(),
        )
        try:
            codec.write(self._box.capacity, capacity, durable=False)
        except OSError as error:
            log.error("%s: %s", self._box.capacity, error, extra={"action": "capacity_unwritten"})

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            if not self._stopped:
                self.beat()
                self._chore()
