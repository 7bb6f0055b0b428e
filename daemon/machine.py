"""The one port to the operating system: who a process is, what ends with whom, and what the kernel has killed.

Linux answers exactly. Elsewhere each function has a weaker fall-back, named in its docstring:

    identity        start time in ticks since boot, boot id    | psutil's start time, the time of boot
    dies with us    PR_SET_PDEATHSIG, from the kernel          | a pipe that `store.child` watches: only children that call it
    memory kill     oom_kill of the machine and the cgroup     | no evidence: a kill -9 that nobody here sent counts as one
    who holds a lock  /proc/locks                              | nobody can be named
    members of a session  /proc/<pid>/stat                     | psutil and getsid

Nothing here changes state of lorad, and nothing but `end_group` ends another process.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import psutil

from store.child import TETHER

LINUX = sys.platform == "linux"
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
PR_SET_PDEATHSIG = 1
START_TICKS = 19  # place of the start time in /proc/<pid>/stat, counted behind the name
SESSION = 3
ENDED_STATES = frozenset("ZX")
SAME_START_S = 1.0  # psutil reckons start times from the clock; on Linux ticks are compared exactly

_prctl = ctypes.CDLL(None, use_errno=True).prctl if LINUX else None


# ---------------------------------------------------------------- who a process is


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process of one boot; a later process with the same number has another start time or boot."""

    pid: int
    started: float  # Linux: ticks since boot, which no change of the clock moves; elsewhere: seconds since the epoch
    boot: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Identity | None":
        """The identity that a lock file names; None where it is not whole."""
        try:
            return cls(pid=int(record["pid"]), started=float(record["started"]), boot=str(record["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def lives(self) -> bool:
        """Whether this very process runs; one that nobody has reaped yet does not."""
        found = identify(self.pid)
        return found is not None and found.boot == self.boot and abs(found.started - self.started) < (SAME_START_S if not LINUX else 0.5)


@cache
def boot_id() -> str:
    """Names this boot of the machine. Elsewhere: the minute of boot, as psutil reckons it."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{int(psutil.boot_time() // 60)}"


def identify(pid: int) -> Identity | None:
    """Who runs under this number now; None where nobody does, or one that has ended and was not reaped."""
    if LINUX:
        fields = _stat(pid)
        if fields is None or fields[0] in ENDED_STATES:
            return None
        return Identity(pid=pid, started=float(fields[START_TICKS]), boot=boot_id())
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid=pid, started=process.create_time(), boot=boot_id())
    except psutil.Error:
        return None


def is_stopped(pid: int) -> bool:
    """Whether somebody holds the process still (SIGSTOP, or a debugger)."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def name_of(pid: int) -> str:
    """What the process is called; empty where it cannot be told."""
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, ValueError):
        return ""


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat behind the name, which may hold anything: state, parent, group, session, …"""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def session_members(session: int) -> list[int]:
    """The processes of a session. The number of a session is not given away while one of them lives."""
    if LINUX:
        found = [(int(entry.name), _stat(int(entry.name))) for entry in PROC.iterdir() if entry.name.isdigit()]
        return [pid for pid, fields in found if fields and int(fields[SESSION]) == session and fields[0] not in ENDED_STATES]
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                members.append(pid)
    return members


def has_open(pid: int, path: Path) -> bool:
    """Whether the process has this file open. False where that cannot be told."""
    wanted = os.path.realpath(path)
    try:
        if LINUX:
            return any(os.path.realpath(entry) == wanted for entry in (PROC / str(pid) / "fd").iterdir())
        return any(os.path.realpath(file.path) == wanted for file in psutil.Process(pid).open_files())
    except (OSError, psutil.Error):
        return False


def lock_holder(path: Path) -> int | None:
    """The process that took the flock of `path`, as the kernel tells it; None where it does not."""
    try:
        found = path.stat()
        lines = (PROC / "locks").read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
            return int(words[4])
    return None


# ---------------------------------------------------------------- dying together


@dataclass(frozen=True, slots=True, kw_only=True)
class Tether:
    """What makes a child end with this process: to be given to Popen."""

    begin: Callable[[], None]  # runs in the child between fork and exec: system calls only
    environment: dict[str, str]
    pass_fds: tuple[int, ...]


def tether() -> Tether:
    """A session of its own for the child, and its death with ours."""
    if _prctl is not None:
        return Tether(begin=partial(_begin, os.getpid()), environment={}, pass_fds=())
    pipe = _pipe()
    return Tether(begin=os.setsid, environment={TETHER: str(pipe)}, pass_fds=(pipe,))


def _begin(parent: int) -> None:
    os.setsid()
    assert _prctl is not None
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above: no signal will come
        os._exit(1)


@cache
def _pipe() -> int:
    """The end to read from of a pipe whose other end this process alone holds, for as long as it lives."""
    reading, _writing = os.pipe()
    return reading


class Process(Protocol):
    """A child to be watched and ended: a `subprocess.Popen`, or one that the warm trainer forked."""

    pid: int
    returncode: Any  # int once it has ended, None before

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it lives."""

    def send_signal(self, sig: int) -> None:
        """Send it, unless the child has ended."""

    def terminate(self) -> None:
        """Ask it to stop."""


def end_group(process: Process) -> int | None:
    """The exit status once the child has ended, None before; whatever is left of its session is killed first.

    The child is looked at before it is reaped: until then its number, and so that of its group, belongs to nobody else.
    """
    if process.returncode is None and hasattr(os, "waitid"):
        try:
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            ended = None
        if ended is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.poll()


def read_stack(pid: int, into: Path) -> "subprocess.Popen[bytes] | None":
    """Start py-spy, where it is there, to write the Python stack of a process: also of one that can no longer answer, or is
    held still. None where it is missing; it ends with another status than 0 where it may not look."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        return None
    tie = tether()
    with open(into, "wb") as file:
        words = [program, "dump", "--nonblocking", "--pid", str(pid)]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL, preexec_fn=tie.begin, pass_fds=tie.pass_fds)


# ---------------------------------------------------------------- memory


def memory_kills() -> int | None:
    """How many processes the kernel has killed for want of memory, here and in our cgroup; None where it does not count."""
    counts = [count for path, key in _counters() if (count := _count(path, key)) is not None]
    return sum(counts) if counts else None


@cache
def _counters() -> tuple[tuple[Path, str], ...]:
    """Files that count memory kills: of the machine, and of the cgroup (version 2, version 1) that this process is in."""
    found = [(PROC / "vmstat", "oom_kill")]
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [(root / path.lstrip("/") / "memory.events", "oom_kill") for root in (CGROUPS, CGROUPS / "unified")]
        elif "memory" in controllers.split(","):
            found.append((CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control", "oom_kill"))
    return tuple(found)


def _count(path: Path, key: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
