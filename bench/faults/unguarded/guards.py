"""What a process does without: a guard's name -> the modules that hold it, each with what takes it away there.

Each replaces one named function by one that behaves as a program without that guard would.
"""

import itertools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

Taker = Callable[[ModuleType], None]


def with_(**names: Any) -> Taker:
    """Replace names of the module."""

    def take(module: ModuleType) -> None:
        for name, value in names.items():
            assert hasattr(module, name), f"{module.__name__} has no {name}: the guard has moved"
            setattr(module, name, value)

    return take


def _open_lock(path: Any, holder: str, what: str, *, hint: str) -> int:
    """A lock file that nobody locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _no_home_lock(module: ModuleType) -> None:
    def acquire(self: Any) -> None:
        self._fds = [os.open(self._home.root, os.O_RDONLY), _open_lock(self._home.lock, "", "", hint="")]

    module.PIDManager.acquire = acquire  # type: ignore[attr-defined]


def _pid_file(module: ModuleType) -> None:
    """What programs do that trust the number in the file."""
    acquire = module.PIDManager.acquire  # type: ignore[attr-defined]

    def trusting(self: Any) -> None:
        import json

        try:
            os.kill(json.loads(self._home.lock.read_text())["pid"], 0)
        except (OSError, ValueError, KeyError):
            acquire(self)
        else:
            raise module.LockHeldError("the pid file names a living process", hint="", code="DAEMON_RUNS")  # type: ignore[attr-defined]

    module.PIDManager.acquire = trusting  # type: ignore[attr-defined]


def _no_tether(module: ModuleType) -> None:
    """Children do not die with the daemon."""
    tether = module.tether  # type: ignore[attr-defined]

    def loose() -> Any:
        import dataclasses

        return dataclasses.replace(tether(), begin=os.setsid)

    module.tether = loose  # type: ignore[attr-defined]


def _unique_identity(module: ModuleType) -> None:
    count = itertools.count()
    real = module.drop_identity  # type: ignore[attr-defined]
    module.drop_identity = lambda *args: f"{next(count):08x}{real(*args)[8:]}"  # type: ignore[attr-defined]


GUARDS: dict[str, dict[str, Taker]] = {
    "whole_files": {"core.intake": with_(is_whole=lambda entry, facts: True)},
    "identity": {"core.intake": _unique_identity},
    "home_lock": {"daemon.pids": _no_home_lock},
    "process_identity": {"daemon.pids": _pid_file},
    "tether": {"daemon.machine": _no_tether},
    "orphans": {
        "daemon.pids": with_(end_orphans=lambda home: None),
        "daemon.children": with_(is_locked=lambda path: False, take_lock=_open_lock),
    },
    "broken_disk": {
        "daemon.disk": with_(raise_if_broken=lambda error: None),
    },
}
