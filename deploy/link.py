"""The link: the long-lived process of one target. `python -m deploy link <config path> <target name>`.

It ends on SIGTERM, and when its stdin ends: the daemon holds the other end, so a link never outlives its daemon. One
link per target: a second finds the lock held.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from core.deployment import TargetConfig
from core.errors import StateError, UsageError
from deploy.delivery import Delivery, note_obstacle
from deploy.rsync import Road, road_to
from deploy.ssh import hang_up
from store.child import Stopped, clock
from store.config import ConfigLoader
from store.locks import take_lock
from store.paths import Home
from store.targets import DESIRED

log = logging.getLogger(__name__)

LOCK = "link.lock"
LOOK_S = 0.1  # how often a waiting link looks for a new wish
SETUP_S = 5.0  # how often it looks for keys that are not there yet


def run_link(config_path: Path, name: str) -> NoReturn:
    """Deliver to target `name` until told to stop. Raises Stopped, ConfigError, LockHeldError."""
    config = ConfigLoader(config_path).load().config
    home = Home(Path(config.home))
    target = target_named(config.deploy.targets, name)
    folder = home.target(name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder / LOCK, f"pid {os.getpid()}", f"target {name!r}", hint="the daemon runs one link for each target; `lorad status` shows it")
    try:
        delivery = Delivery(home, _road(home, target), clock)
        told = ""
        while True:
            told = _turn(delivery, name, told)
            _wait(delivery.pause_s, lambda: _mark(folder / DESIRED))
    finally:
        if target.kind == "ssh":
            hang_up(target, home)
        os.close(lock)


def _road(home: Home, target: TargetConfig) -> Road:
    """The road, once the target has been set up: until then observed.json says what is missing."""
    while True:
        try:
            return road_to(target, home)
        except StateError as error:
            log.info("target %s: %s: %s", target.name, error.code, error.what, extra={"action": "link_trouble"})
            note_obstacle(home, target.name, error, clock())
            time.sleep(SETUP_S)


def _turn(delivery: Delivery, name: str, told: str) -> str:
    """One turn. Logs what stands in the way where that is new; returns it."""
    try:
        observed = delivery.turn()
        code, reason = observed.code, observed.reason
    except OSError as error:  # this box's own disk, for example full: say so and go on
        code, reason = "LINK_DISK", str(error)
    if code != told:
        log.info("target %s: %s", name, f"{code}: {reason}" if code else "reachable, nothing stands in the way", extra={"action": "link_trouble"})
    return code


def target_named(targets: tuple[TargetConfig, ...], name: str) -> TargetConfig:
    """The target of this name. Raises UsageError TARGET_UNKNOWN."""
    for target in targets:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in targets)
    raise UsageError(f"no target {name!r} in the config", hint=f"it names {known}", code="TARGET_UNKNOWN")


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes when the file is replaced."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns


def _wait(pause_s: float, mark: Callable[[], object]) -> None:
    """Sleep for `pause_s`, shorter where the wish is replaced meanwhile."""
    before, until = mark(), time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0 and mark() == before:
        time.sleep(min(LOOK_S, left))


def stop_with_parent() -> None:
    """Arrange that SIGTERM and the end of stdin raise Stopped in the main thread."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the way out
        raise Stopped

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch_stdin, name="stdin", daemon=True).start()
