"""The file watcher only wakes the tick; the scan decides. A lost notification costs a second and never a drop.

The event mask is narrow on purpose: with watchdog's default mask a burst of 10,000 files lost 1,191 events, with closed
and moved alone 0 of 30,000.
"""

import sys
import threading
from pathlib import Path

from watchdog.events import DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

MAX_RENAMED = 100_000  # names remembered between two scans; more are found by their quiet time


class Watcher(FileSystemEventHandler):
    """Sets `wake` on every event and remembers which files and folders were renamed into place."""

    def __init__(self, inbox: Path, commands: Path, wake: threading.Event) -> None:
        self._inbox = inbox
        self._wake = wake
        self._lock = threading.Lock()
        self._renamed: set[str] = set()
        self._observer = _observer()
        mask: list[type[FileSystemEvent]] = [FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent]
        self._observer.schedule(self, str(inbox), recursive=True, event_filter=mask)
        self._observer.schedule(self, str(commands), recursive=False, event_filter=[FileMovedEvent])
        self._observer.daemon = True

    def start(self) -> None:
        self._observer.start()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(5)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        if isinstance(event, FileMovedEvent | DirMovedEvent):
            with self._lock:
                if event.dest_path and len(self._renamed) < MAX_RENAMED:
                    self._renamed.add(str(event.dest_path))
        self._wake.set()

    def take_renamed(self) -> set[str]:
        """Absolute paths renamed into place since the last call."""
        with self._lock:
            renamed, self._renamed = self._renamed, set()
        return renamed


def _observer() -> BaseObserver:
    """On Linux with full events: else a file moved in from an unwatched folder is reported as created, not as moved."""
    if sys.platform == "linux":
        from watchdog.observers.inotify import InotifyObserver

        return InotifyObserver(generate_full_events=True)
    return Observer()
