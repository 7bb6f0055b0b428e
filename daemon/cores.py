"""How many cores a training may take: all, or one fewer while serving answers on the same machine."""

import os
from pathlib import Path

import psutil

from core.config import Config
from daemon import machine
from store.locks import is_locked
from store.paths import Box


def cores_here() -> int:
    """Cores that this process may run on, without their second threads: so many torch takes by itself."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def serving_is_here(config: Config) -> bool:
    """Whether the server of a local target runs on this machine now. Linux reads who holds its lock, and takes it nowhere."""
    locks = [Box(Path(target.path)).lock for target in config.deploy.targets if target.kind == "local" and target.path]
    return any(machine.lock_holder(lock) is not None if machine.LINUX else is_locked(lock) for lock in locks)


def threads_for(config: Config) -> int:
    """Compute threads of a training that has this machine to itself but for serving; 0 leaves it to torch, which takes every core."""
    if config.training.threads or not serving_is_here(config):
        return config.training.threads
    return max(1, cores_here() - 1)
