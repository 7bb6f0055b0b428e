"""The border of a child process: whatever happens becomes `exit.json` and an exit status of the protocol."""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import ExitNote
from store.codec import write
from store.durable import FULL
from store.runs import EXIT

log = logging.getLogger(__name__)

CRASHED = 1
DISK_FULL = "DISK_FULL"
HOLD = "LORAD_HOLD"  # names the file that is there exactly while this child is to pause between two steps
TETHER = "LORAD_TETHER"  # the descriptor of a pipe that ends with the daemon, where the kernel does not end us with it
MEMORY_WORDS = ("can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "HIP out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Stopped(BaseException):
    """The daemon asked this child to stop. Not an Exception: no library's `except Exception` may swallow it."""


def clock() -> datetime:
    """Now. A child has its own clock for what it writes; everything below the border takes it as an argument."""
    return datetime.now(UTC)  # noqa: TID251 - the border of a child process


def log_to_stderr() -> None:
    """The daemon redirects a child's stderr to its log.txt."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def stop_at_once(signum: int, frame: FrameType | None) -> None:
    """Signal handler of SIGTERM for a child that has nothing to save."""
    raise Stopped


def note_of(error: BaseException, unfit: ChildExit) -> ExitNote:
    """What a failure means to the daemon; `unfit` is the code of a LoradError that names none."""
    match error:
        case Stopped():
            return ExitNote(code=ChildExit.STOPPED, ended_at=clock(), reason="stopped on request")
        case LoradError():
            code = error.exit_code if isinstance(error, ChildError) else ChildExit.STOPPED if error.code == DISK_FULL else unfit
            return ExitNote(code=code, ended_at=clock(), reason=error.what, hint=error.hint, error=error.code)
        case OSError() if error.errno in FULL:
            hint = "free some space: lorad goes on by itself"
            return ExitNote(code=ChildExit.STOPPED, ended_at=clock(), reason=f"no space left for {error.filename or 'a file'}", hint=hint, error=DISK_FULL)
        case _ if is_out_of_memory(error):
            hint = "it is tried again smaller; lower max_length or use a smaller base if that does not help"
            return ExitNote(code=ChildExit.OUT_OF_MEMORY, ended_at=clock(), reason=f"out of memory: {error}", hint=hint, error="OUT_OF_MEMORY")
    hint = "the traceback is in log.txt"
    return ExitNote(code=CRASHED, ended_at=clock(), reason=f"{type(error).__name__}: {error}", hint=hint, error="CHILD_CRASHED")


def is_out_of_memory(error: BaseException) -> bool:
    """By name: asking for torch's class would import torch. Its CPU allocator and its libraries raise a plain RuntimeError."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in MEMORY_WORDS)


def answer_for_oneself() -> None:
    """Let SIGUSR1, and a crash in C, write the stacks of all threads to stderr, which is log.txt; end where the daemon ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stderr without a descriptor, as in tests; a system without the signal
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    pipe = os.environ.get(TETHER)
    if pipe is not None:
        threading.Thread(target=_end_with, args=(int(pipe),), name="tether", daemon=True).start()


def _end_with(pipe: int) -> None:
    """Wait for the pipe's end: nobody writes into it, and the daemon alone holds its other end."""
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGKILL)  # a session of our own: everything that we have started


def _as_it_is(note: ExitNote) -> ExitNote:
    return note


def run_child(folder: Path, work: Callable[[Path], ExitNote], *, unfit: ChildExit, results: Callable[[ExitNote], ExitNote] = _as_it_is) -> int:
    """Do `work(folder)` and write exit.json last. Returns the exit status, which says the same in a word.

    `results` adds to any note, that of a failure too, what whole results lie in the folder.
    """
    answer_for_oneself()
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        note = work(folder)
    except (Stopped, Exception) as error:  # the border
        note = note_of(error, unfit)
        log.log(logging.INFO if note.code == ChildExit.STOPPED else logging.ERROR, "%s", note.reason, exc_info=error if note.code == CRASHED else None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the answer is known: let it reach the disk
    return _leave(folder, results(note))


def _leave(folder: Path, note: ExitNote) -> int:
    """Write exit.json; where not even that fits on the disk, the exit status alone speaks."""
    try:
        write(folder / EXIT, note)
    except OSError as error:
        log.error("%s: %s", EXIT, error)
    return note.code
