"""What every opponent's process does alike: it takes one step when it is told to, and says what the step took.

It speaks JSON lines on what was its standard output; whatever its libraries print goes to standard error.
"""

import json
import os
import resource
import sys
import time
from typing import Any


class Pace:
    """A step begins with `wait` and ends with `done`."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._began = self._cpu = 0.0

    def ready(self, **more: Any) -> None:
        """Everything is loaded; the next thing would be the first step."""
        self._say(kind="ready", **more)

    def wait(self) -> None:
        """Until this process may take its next step. Ends the process where nobody wants one."""
        if not sys.stdin.readline().strip():
            self._out.flush()
            os._exit(0)
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def done(self, loss: float | None = None, **more: Any) -> None:
        """The step is over."""
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        seconds, cpu_s = time.perf_counter() - self._began, time.process_time() - self._cpu
        self._say(kind="step", seconds=seconds, cpu_s=cpu_s, loss=loss, peak_mb=peak_mb, **more)

    def _say(self, **line: Any) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()
