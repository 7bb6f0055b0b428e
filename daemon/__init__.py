"""The shell: observes, asks core, applies; starts children.

Names that the outside knows are imported when they are asked for: `daemon.main` stays light.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "BackgroundWorker": "daemon.worker",
    "FileWatcher": "daemon.watcher",
    "PIDManager": "daemon.pids",
    "SnapshotService": "daemon.snapshots",
}

__all__ = ["BackgroundWorker", "FileWatcher", "PIDManager", "SnapshotService"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
