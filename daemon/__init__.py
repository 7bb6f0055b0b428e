"""The shell: observes, asks core, applies; starts children. One thread, one writer of the state.

What a reader wants to know first:

- **kill -9.** A transition is on disk before its effect runs. A *queued* or *held* job just lies there. The child of a job in
  *training*, *ranking* or *releasing* dies with the daemon (`machine`); the next daemon ends what is left (`pids.end_orphans`), reads
  the folders (`index`), sees that the child named in the job's facts was started by another instance, counts no attempt, and starts
  it again from the newest sealed point. A drop on its way is claimed, gated or accepted once more from its folder (`intake`).
- **Who may write.** The daemon writes all of home, but: a child its own run folder, a link process the mirror of its target, the CLI
  `commands/` alone, people the inbox. `docs/formats.md` names the writer of each file.
- **A child that hangs.** `vigil` adds up its silence; `core.endings` says when it is too long; its stack is saved, then TERM, after 10 s
  KILL of its session, and that is an attempt.
- **A reload** (`reload`) changes later jobs and the daemon's own keys: windows, retention, alerts, attempts. A job keeps the config that
  was frozen with it, its time for a step too. Keys marked with `restart` in `core.sections` wait.
- **A new alert** is one decorated function in `core.alerts`; a new metric is one line in `metrics`; a new chore one line in `chores`.

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
