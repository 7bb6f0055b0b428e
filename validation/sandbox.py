"""Bounds on what hostile bytes can cost: the gate reads them in a process that has these on.

`enter` is for the life of a process: no network, no new rights, no core files, few descriptors. `bounded` is for one
file: memory, CPU and the size of what is written. Processes that the gate starts inherit all of it. A bound that this
system does not know is told, and the gate works without it.
"""

import ctypes
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from core.errors import LoradError

log = logging.getLogger("lorad.gate")

OPEN_FILES = 512
MOST_THREADS = 4  # of a library
WRITTEN_MOST = 8  # times the size of the file that is checked, for each file that is written
WRITTEN_SLACK_BYTES = 64 << 20
CPU_GRACE_S = 10  # between the sentence that the gate says itself and the signal that ends it

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 2, 38  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one file may cost. 0 is no bound."""

    memory_mb: int = 0  # address space, validation.memory_mb
    cpu_s: int = 0  # validation.cpu_s
    file_bytes: int = 0  # of the file that is checked


class CpuSpentError(LoradError):
    """The file has used up its CPU seconds."""


def enter() -> None:
    """Give up for good what reading a file never needs. Call before the first thread: a namespace is for one thread alone."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        # On a large machine the stacks of idle threads would use up the address space.
        os.environ.setdefault(name, str(min(MOST_THREADS, os.cpu_count() or 1)))
    for name, limit in (("RLIMIT_CORE", 0), ("RLIMIT_NOFILE", OPEN_FILES)):
        _lower(name, limit)
    if sys.platform != "linux":
        log.info("no private network here action=sandbox platform=%s", sys.platform)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    reason = _leave_the_network(libc)
    log.info("gate is in its sandbox action=sandbox network=%s", f"still there: {reason}" if reason else "none")


def _leave_the_network(libc: ctypes.CDLL) -> str:
    """Enter a network namespace with nothing in it. Returns why that was not possible."""
    uid, gid, parent = os.geteuid(), os.getegid(), os.getppid()
    death = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
    # Root keeps its user namespace: in another it could not read the files of other users any more.
    flags = _CLONE_NEWNET if uid == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    if libc.unshare(flags):
        return os.strerror(ctypes.get_errno())
    if death.value:  # the kernel forgets it where credentials change
        libc.prctl(_PR_SET_PDEATHSIG, death.value, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    if flags & _CLONE_NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            try:
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            except OSError as error:  # the names of users are wrong in messages then, and nothing else
                log.info("no map of users action=sandbox file=%s reason=%s", name, error.strerror)
    return ""


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Hold this process to the bounds while it checks one file; what follows, such as the report, is free of them.

    Raises CpuSpentError inside, MemoryError where a library asks for more. A library that never comes back is ended by
    SIGXCPU ten CPU seconds later.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        "RLIMIT_AS": bounds.memory_mb << 20,
        # The largest is the index of a file of very short rows: 110 bytes for a row of 31.
        "RLIMIT_FSIZE": WRITTEN_MOST * bounds.file_bytes + WRITTEN_SLACK_BYTES if bounds.file_bytes else 0,
        "RLIMIT_CPU": int(usage.ru_utime + usage.ru_stime) + bounds.cpu_s + CPU_GRACE_S if bounds.cpu_s else 0,
    }
    before = {name: _set_soft(name, limit) for name, limit in wanted.items() if limit}
    try:
        with _timed(bounds.cpu_s):
            yield
    finally:
        for name, limit in before.items():
            _set_soft(name, limit)


@contextmanager
def _timed(cpu_s: int) -> Iterator[None]:
    """Raise CpuSpentError inside, once this process has worked for so long."""
    if not cpu_s:
        yield
        return

    def spent(signum: int, frame: FrameType | None) -> NoReturn:
        raise CpuSpentError(f"the file takes more than {cpu_s} CPU seconds to check", hint="raise validation.cpu_s, or split the file", code="CPU_LIMIT")

    before = signal.signal(signal.SIGPROF, spent)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _lower(name: str, limit: int) -> None:
    """Lower soft and hard limit, as far as they are above."""
    kind = getattr(resource, name, None)
    if kind is None:
        log.info("no such limit here action=sandbox limit=%s", name)
        return
    _, hard = resource.getrlimit(kind)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (most, most))


def _set_soft(name: str, limit: int) -> int:
    """Set the soft limit; the hard one stays, or it could never be raised again. Returns the soft limit before."""
    kind = getattr(resource, name, None)
    if kind is None:
        log.info("no such limit here action=sandbox limit=%s", name)
        return resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = hard if limit == resource.RLIM_INFINITY else min(limit, hard)
    try:
        resource.setrlimit(kind, (limit, hard))
    except (OSError, ValueError) as error:  # macOS knows RLIMIT_AS and refuses it
        log.info("a limit was not taken action=sandbox limit=%s reason=%s", name, error)
    return soft
