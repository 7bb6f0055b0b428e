"""Crash points: each system call that changes the disk is counted, and the n-th can fail or be the last of this process.

    with CrashPoints(at=7):                     # the 7th does not happen: nothing changes the disk from then on
        daemon.tick()                           # raises Crash
    with CrashPoints(at=7, fail=True):          # the 7th raises OSError (EIO for a sync, else ENOSPC), the 8th works again

A process that is killed leaves the disk exactly as it is: after the crash no clean-up can change it either. Writes of
a file are cut in the middle. fsync does nothing unless `syncs` says so: what a power cut takes away is for real disks to
show (test_power_cut.py), and thousands of crashes are walked in a minute.
"""

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any

CALLS = ("rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "mkdir", "truncate", "ftruncate")
SYNCS = ("fsync", "fdatasync")
FREEING = frozenset({"unlink", "remove", "rmdir"})  # a full disk refuses none of these
CHANGING = os.O_CREAT | os.O_TRUNC


class Syncs(Enum):
    """What fsync does."""

    NOTHING = "nothing"
    FILES = "files"  # a guard taken away: names do not survive a power cut
    ALL = "all"


class Crash(BaseException):
    """The process was killed here. Not an Exception: no border of the daemon may catch it."""


class CrashPoints:
    """A context in which changes of the disk are counted; the `at`-th (from 1) is the crash point, 0 is none."""

    def __init__(self, at: int = 0, *, fail: bool = False, syncs: Syncs = Syncs.NOTHING, cut: Callable[[], None] | None = None) -> None:
        self.at = at
        self.fail = fail
        self.syncs = syncs
        self.cut = cut  # what happens at the crash point instead of nothing: a power cut
        self.count = 0
        self.dead = False
        self.met = ""  # the call at which it happened
        self._outside = 0
        self._real: dict[str, Any] = {}

    def __enter__(self) -> "CrashPoints":
        for name in (*CALLS, *SYNCS, "open"):
            self._real[name] = getattr(os, name)
        for name in CALLS:
            setattr(os, name, self._counted(name))
        for name in SYNCS:
            setattr(os, name, self._synced(name))
        self._real_open = io.open
        os.open = self._open_descriptor  # type: ignore[assignment]
        io.open = builtins.open = self._open  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = builtins.open = self._real_open

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What somebody else does meanwhile (a person, a child, the box) is no crash point of ours."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def point(self, call: str, what: object) -> None:
        """One change of the disk is about to happen. Raises Crash at the crash point and ever after; OSError with `fail`."""
        if self._outside:
            return
        if self.dead:
            raise Crash(f"killed before: {self.met}")
        if self.fail and call in FREEING:
            return
        self.count += 1
        if self.count != self.at:
            return
        self.met = f"{call} {what}"
        if self.fail:
            code = errno.EIO if call in SYNCS else errno.ENOSPC
            raise OSError(code, os.strerror(code), str(what))
        self.dead = True
        if self.cut is not None:
            self.cut()
        raise Crash(self.met)

    def _counted(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.point(name, args[-1] if name in ("rename", "replace", "link", "symlink") else args[0])
            return self._real[name](*args, **kwargs)

        return call

    def _synced(self, name: str) -> Callable[[Any], None]:
        def call(fd: Any) -> None:
            path = self._name_of(fd)
            self.point(name, path)
            if self.syncs is Syncs.ALL or (self.syncs is Syncs.FILES and (self._outside or not os.path.isdir(path))):
                self._real[name](fd)

        return call

    @staticmethod
    def _name_of(fd: Any) -> str:
        return os.readlink(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}")

    def _open_descriptor(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & CHANGING:
            self.point("open", path)
        fd: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        return fd

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if self._outside or not set(mode) & set("wax+"):
            return self._real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int) and set(mode) & set("wxa"):
            self.point("open", file)
        raw = _Cut(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Cut(io.FileIO):
    """A file whose writes are crash points: of the write in which it happens, the first half reaches the disk."""

    def __init__(self, points: CrashPoints, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._points = points
        self._owed: OSError | None = None

    def write(self, content: Any) -> int:
        points = self._points
        if points.dead and not points._outside:
            return len(content)  # killed: a buffer that is thrown away reaches no disk
        if self._owed is not None:
            owed, self._owed = self._owed, None
            raise owed
        half = bytes(content)[: len(content) // 2]
        try:
            points.point("write", self.name)
        except Crash:
            with contextlib.suppress(OSError):  # after a power cut nothing is written
                super().write(half)
            raise
        except OSError as error:  # a full disk takes what still fits, and refuses the rest
            self._owed = error
            return super().write(half)
        return super().write(content)
