"""The long-lived link process of each target, restarted when it ends."""

import subprocess
from pathlib import Path

from daemon.children import spawn
from daemon.clock import monotonic_s
from store.paths import Home

RESTART_AFTER_S = 2.0


class Links:
    """Keeps `python -m deploy link CONFIG TARGET` running for every target."""

    def __init__(self, home: Home, config: Path, targets: list[str]) -> None:
        self._home = home
        self._config = config
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = dict.fromkeys(targets, float("-inf"))

    def ensure(self) -> None:
        """Start the links that are not running; one that ends at once is started again after a pause."""
        for target, started in self._started.items():
            process = self._processes.get(target)
            if (process is None or process.poll() is not None) and monotonic_s() - started > RESTART_AFTER_S:
                folder = self._home.target(target)
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / "link.log", "wb") as logfile:
                    self._processes[target] = spawn(["deploy", "link", str(self._config), target], stdout=logfile, stdin=subprocess.PIPE)
                self._started[target] = monotonic_s()

    def close(self) -> None:
        """End every link."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
