"""Tells that something may lie in the inbox. It only wakes the tick; the scan decides: a lost notification costs seconds and never a drop.

Events come from the system where it has any (inotify, FSEvents). The mask is narrow on purpose: with watchdog's default
mask a burst of 10,000 files lost 1,191 events, with closed and moved alone 0 of 30,000. Where events were lost all the
same, watchdog says so in its log alone: that record asks for a scan at once. Each folder is watched by itself, never
`rejected`, which may hold any number of folders.

Where there are no events the inbox is looked at every second: on a network file system, whose far writers cause none; where
the system's watches are used up; where the config says so. Nothing else is different then, but that a rename into place
cannot be told from a write, so that every file waits for its quiet time.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.facts import WatchSeen
from daemon import clock

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver, ObservedWatch

log = logging.getLogger(__name__)

MAX_RENAMED = 100_000  # names remembered between two scans; more are found by their quiet time
MAX_FOLDERS = 64  # watched at once, a thread each; what lies in more of them is found by the scan
SCAN_S = 2.0  # between two scans for which no event asked
POLL_S = 1.0  # the same without events
RETRY_S = 60.0  # after which events are tried again where they were used up
MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gfs2", "ocfs2", "virtiofs", "vboxsf", "davfs")
_REMOTE_FUSE = ("sshfs", "rclone", "s3fs", "glusterfs", "ceph", "vmhgfs-fuse", "davfs")
REMOTE = frozenset((*_REMOTE, *(f"fuse.{kind}" for kind in _REMOTE_FUSE)))

Mode = Literal["auto", "poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """What was noticed since the last time: whether a scan is due, and what was renamed into place."""

    is_due: bool
    renamed: set[str]


class FileWatcher:
    """Watches the inbox and the commands of a home. Sets `wake` when something comes; `take` says what it was.

    >>> watcher = FileWatcher(home.inbox, home.commands, threading.Event())
    >>> watcher.start()
    >>> noticed = watcher.take()  # once a tick
    >>> watcher.stop()

    Args: inbox, commands: the folders, which exist. wake: set from a thread of its own. mode: events where they work, or looks alone.
    Returns: of `take`, what was renamed into place since the last call, and whether a scan is due.
    Raises: nothing for want of events: it looks every few seconds instead, and `seen` says why.
    Side effects: a thread and inotify watches from `start` to `stop`; reads the list of mounts; writes nothing.
    """

    def __init__(self, inbox: Path, commands: Path, wake: threading.Event, mode: Mode = "auto") -> None:
        self._inbox, self._commands, self._wake, self._mode = inbox, commands, wake, mode
        self._lock = threading.Lock()
        self._renamed: set[str] = set()
        self._due = True  # at the start
        self._scanned_at_s = float("-inf")
        self._tried_at_s = float("-inf")
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, ObservedWatch] = {}
        self._overflow = _Overflow(self._on_overflow)
        self.num_overflows = 0
        self.seen = WatchSeen(how="poll", reason="not started")

    def start(self) -> None:
        """Begin to watch, by events where that works. Never raises for want of them."""
        self._tried_at_s = clock.monotonic_s()
        if self._mode == "poll":
            return self._say("poll", "inbox.watch says so")
        if found := remote_type(self._inbox):
            return self._say("poll", f"{self._inbox} is on a network file system ({found}), which tells of no far writer")
        try:
            self._start_observer()
        except (OSError, RuntimeError) as error:
            self._stop_observer()
            self._say("poll", f"the system gives no more watches: {error} (fs.inotify.max_user_instances, max_user_watches)")
        else:
            self._say("events", "")

    def stop(self) -> None:
        """End the watching."""
        self._stop_observer()

    def take(self, mode: Mode | None = None) -> Noticed:
        """What was noticed since the last call, and whether a scan is due. `mode`: what the config says now."""
        now_s = clock.monotonic_s()
        self._keep_to(mode or self._mode, now_s)
        every_s = SCAN_S if self.seen.how == "events" else POLL_S
        with self._lock:
            is_due = self._due or now_s - self._scanned_at_s >= every_s
            renamed, self._renamed = self._renamed, set()
            self._due = False
        if is_due:
            self._scanned_at_s = now_s
        return Noticed(is_due=is_due, renamed=renamed)

    def follow(self, folders: Iterable[Path]) -> None:
        """Watch these folders of personas and domains, as a scan found them; no others any more."""
        if self._observer is None:
            return
        wanted = dict.fromkeys((self._inbox, *sorted(folders)[: MAX_FOLDERS - 1]))
        for folder in self._watches.keys() - wanted.keys() - {self._commands}:
            self._observer.unschedule(self._watches.pop(folder))
        for folder in wanted:
            if folder in self._watches:
                continue
            try:
                self._watch(folder)
            except FileNotFoundError:
                continue  # it has gone again
            except OSError as error:
                self._stop_observer()
                return self._say("poll", f"the system gives no more watches: {error} (fs.inotify.max_user_watches)")
            self._ask()  # what came into it before the watch stood

    # ---------------------------------------------------------------- events

    def _keep_to(self, mode: Mode, now_s: float) -> None:
        """Follow a change of the config; where watches were used up, try again after a while."""
        if mode != self._mode:
            self._mode = mode
            self._stop_observer()
            self.start()
        elif self.seen.how == "poll" and mode == "auto" and now_s - self._tried_at_s >= RETRY_S:
            self.start()

    def _start_observer(self) -> None:
        logging.getLogger("watchdog").addHandler(self._overflow)
        self._observer = _observer()
        self._observer.daemon = True
        self._observer.start()
        self._watch(self._inbox)
        self._watch(self._commands)

    def _stop_observer(self) -> None:
        logging.getLogger("watchdog").removeHandler(self._overflow)
        observer, self._observer = self._observer, None
        self._watches.clear()
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(5)

    def _watch(self, folder: Path) -> None:
        from watchdog.events import DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileMovedEvent

        assert self._observer is not None
        mask: list[type[FileSystemEvent]] = [FileMovedEvent]
        if folder != self._commands:
            mask += [FileClosedEvent, DirCreatedEvent, DirMovedEvent]
        self._watches[folder] = self._observer.schedule(_handler(self._on_event), str(folder), recursive=False, event_filter=mask)

    def _on_event(self, event: "FileSystemEvent") -> None:
        """Called in watchdog's thread."""
        renamed = str(event.dest_path or "") if event.event_type == "moved" else ""
        if event.event_type == "moved" and not renamed:
            return  # it has left: a claim, mostly
        name = Path(renamed or str(event.src_path)).name
        if name.startswith(".") or name.endswith(".part"):
            return  # a writer's own business
        with self._lock:
            if renamed and len(self._renamed) < MAX_RENAMED:
                self._renamed.add(renamed)
        self._ask()

    def _on_overflow(self) -> None:
        self.num_overflows += 1
        log.warning("events were lost: the inbox is scanned", extra={"action": "watch_overflow"})
        self._ask()

    def _ask(self) -> None:
        with self._lock:
            self._due = True
        self._wake.set()

    def _say(self, how: Literal["events", "poll"], reason: str) -> None:
        if self.seen != (seen := WatchSeen(how=how, reason=reason)):
            self.seen = seen
            level = logging.WARNING if how == "poll" and self._mode != "poll" else logging.INFO
            log.log(level, "the inbox is watched by %s%s", how, f": {reason}" if reason else "", extra={"action": "watch"})


class _Overflow(logging.Handler):
    """watchdog 7.1 logs that the kernel has dropped events, and tells no handler."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in str(record.msg).lower():
            self._tell()


def _handler(on_event: "Callable[[FileSystemEvent], None]") -> "FileSystemEventHandler":
    from watchdog.events import FileSystemEventHandler

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: "FileSystemEvent") -> None:
            on_event(event)

    return Handler()


def _observer() -> "BaseObserver":
    """On Linux with full events: else a file moved in from an unwatched folder is reported as created, not as moved."""
    if sys.platform == "linux":
        from watchdog.observers.inotify import InotifyObserver

        return InotifyObserver(generate_full_events=True)
    from watchdog.observers import Observer

    return Observer()


def remote_type(folder: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system where it is a network one; empty for others, and where the system does not say."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in lines:
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        point = Path(fields[4].encode().decode("unicode_escape")) if len(fields) > 4 else Path("/nowhere")
        if rest and place.is_relative_to(point) and len(point.parts) >= best:  # a later mount hides an earlier one
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind if kind in REMOTE else ""
