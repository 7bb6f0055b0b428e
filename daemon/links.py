"""The long-lived link process of each target, restarted when it ends."""

import contextlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from core.deployment import TargetConfig
from daemon.children import spawn
from daemon.clock import monotonic_s
from store.paths import Home

RESTART_AFTER_S = 2.0
CLOSE_PATIENCE_S = 10.0  # for all of them together


class Links:
    """Keeps `python -m deploy link CONFIG TARGET` running for every target.

    CONFIG is the config in force, not the file that a person may be editing: a link that starts again must not meet
    what the daemon has refused.
    """

    def __init__(self, home: Home, config: Path) -> None:
        self._home = home
        self._config = config
        self._targets: dict[str, TargetConfig] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._ending: list[subprocess.Popen[bytes]] = []

    def follow(self, targets: Iterable[TargetConfig]) -> None:
        """Link these targets. A link whose target went or changed is ended; `ensure` starts the others. Never waits."""
        wanted = {target.name: target for target in targets}
        for name, target in self._targets.items():
            process = self._processes.get(name)
            if process is not None and wanted.get(name) != target:
                process.terminate()
            if process is not None and name not in wanted:
                self._ending.append(self._processes.pop(name))
        self._started = {name: self._started.get(name, float("-inf")) for name in wanted}
        self._targets = wanted

    def ensure(self) -> None:
        """Start the links that are not running; one that ends at once is started again after a pause."""
        self._ending = [process for process in self._ending if process.poll() is None]
        for target, started in self._started.items():
            process = self._processes.get(target)
            if (process is None or process.poll() is not None) and monotonic_s() - started > RESTART_AFTER_S:
                folder = self._home.target(target)
                folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(folder / "link.log", folder / "link.log.1")  # why the one before ended
                with open(folder / "link.log", "ab") as logfile:  # to append: it may be cut while the link lives (daemon.bounds)
                    self._processes[target] = spawn(["deploy", "link", str(self._config), target], stdout=logfile, stdin=subprocess.PIPE)
                self._started[target] = monotonic_s()

    def close(self) -> None:
        """End every link."""
        processes = [*self._processes.values(), *self._ending]
        for process in processes:
            process.terminate()
        until_s = monotonic_s() + CLOSE_PATIENCE_S
        for process in processes:
            try:
                process.wait(max(0.0, until_s - monotonic_s()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
