"""`python -m trainer.warm SOCKET BACKEND BASE`: a trainer that has loaded its libraries and waits for orders (a zygote).

Theory of operation. The daemon keeps one. It imports what a training imports, at one thread, reads the base's files once
so that they lie in the page cache, and waits. For each order it forks, and the child does what `python -m trainer RUN`
does, in a process and a session of its own: what it takes of memory, the GPU's too, is given back with its end. A fork
is only sound before there are threads, so nothing here computes: no tensor, no OpenMP region, no CUDA; `require_unspoilt`
looks before the daemon is told that all is ready. The files that come with an order (log, lock of the slot) are closed
here as soon as the child has them. It says how each child ended and writes nothing; a child without an `exit.json`
crashed, and the daemon is told by which status or signal.

It dies with the daemon, and its children die with it (PR_SET_PDEATHSIG). Linux only; elsewhere trainers start cold.
"""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from core.errors import LoradError
from store.child import log_to_stderr
from store.orders import NO_PROCESS, Gone, Order, Ready, Release, Started, receive, send
from trainer.__main__ import main as train

PR_SET_PDEATHSIG = 1
PIECE = 8 << 20  # bytes of a file at a time
MOST_OF_FREE = 0.5  # a base larger than this share of the free memory is not read: the page cache could not keep it
FORBIDDEN = "/dev/nvidia-uvm"  # open once CUDA was begun
NEEDS = {
    "peft": (
        "trainer.backends.peft",
        "trainer.backends.training",
        "trainer.backends.scoring",
        "trainer.backends.generating",
        "trainer.boards",
        "trainer.runreport",
    ),
    "stub": ("trainer.backends.stub",),
}
"""What a training imports, by backend; those that are not here start cold."""
QUIET = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # a stop concerns the children, who seal what they have

log = logging.getLogger("trainer.warm")


# ---------------------------------------------------------------- before the fork


def prepare(backend: str, base: Path | None) -> None:
    """Import what a training with this backend imports, and read the base's files once. Computes nothing."""
    if backend != "stub":
        from trainer.silence import hush

        hush()
    for name in NEEDS[backend]:
        import_module(name)
    if base is not None:
        _import_model(base)
        read_once(base)
    gc.collect()
    gc.freeze()  # else the first collection of each child writes to, and so copies, every page


def _import_model(base: Path) -> None:
    """The code of the base's model class, where transformers knows it."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from store.bases import weights_folder

    with contextlib.suppress(OSError, ValueError, KeyError, LoradError):  # the training itself will say what is wrong with it
        config = AutoConfig.from_pretrained(weights_folder(base), local_files_only=True)
        MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def read_once(base: Path) -> int:
    """Read the weights so that they lie in the page cache; the number of bytes, 0 where they would not fit. Never raises OSError."""
    import psutil

    from store.bases import weights_folder

    try:
        files = sorted(weights_folder(base).glob("*.safetensors"))
        total = sum(path.stat().st_size for path in files)
        if total > MOST_OF_FREE * psutil.virtual_memory().available:
            log.info("the base's %d MiB are not read ahead: they would not stay in memory", total >> 20)
            return 0
        room = bytearray(PIECE)
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(room):
                    pass
    except (OSError, LoradError) as error:
        log.info("the base is not read ahead: %s", error)
        return 0
    return total


def require_unspoilt() -> None:
    """Raises RuntimeError where a fork would not be sound: there are threads (of Python, of OpenMP), or CUDA has begun."""
    tasks = os.listdir("/proc/self/task")
    if threading.active_count() != 1 or len(tasks) != 1:
        raise RuntimeError(f"{len(tasks)} threads exist, {threading.active_count()} of them Python's: a fork could hang")
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{entry}").startswith(FORBIDDEN):
                raise RuntimeError("a library has begun CUDA while it was imported: a fork could not use the GPU")


# ---------------------------------------------------------------- orders


class Zygote:
    """Waits for orders and forks. `serve` returns an order in the child that is to carry it out, None at the end of the daemon."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._children: set[int] = set()  # those whose end was not told
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakes = (self._wake, wake)
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        for number in QUIET:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to be woken
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> Order | None:
        """Take orders until there is a child to be or the daemon is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake in ready:
                os.read(self._wake, 4096)
            try:
                self._tell_ends()
                if self._channel.fileno() not in ready:
                    continue
                message, files = receive(self._channel)
                if message is None:
                    return None
                if isinstance(message, Release):
                    os.waitpid(message.pid, 0)
                elif isinstance(message, Order) and self._fork(message, files):
                    return message
            except BrokenPipeError:
                return None

    def _tell_ends(self) -> None:
        """Say how children ended. They stay unreaped; whatever is left of their sessions is ended first."""
        for pid in tuple(self._children):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._children.remove(pid)
            send(self._channel, Gone(pid=pid, status=ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status))

    def _fork(self, order: Order, files: list[int]) -> bool:
        """Whether this is the child. The parent keeps none of the files, and has told the child's number."""
        parent = os.getpid()
        begun, tell_begun = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)  # a TERM to the child must wait until it is no longer ignored
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(parent, files)
                os.close(begun)
                os.close(tell_begun)
                return True
        except OSError as error:
            log.warning("no process to be had: %s", error)
            pid = NO_PROCESS
        finally:
            if os.getpid() == parent:
                for file in (*files, tell_begun):
                    os.close(file)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, QUIET)
        if pid != NO_PROCESS:
            self._children.add(pid)
            os.read(begun, 1)  # it ends when the child has a session of its own, or is dead
        os.close(begun)
        send(self._channel, Started(pid=pid))
        return False

    def _become_child(self, parent: int, files: list[int]) -> None:
        """A session of its own that ends with the parent; the log at 1 and 2, as a cold child has it; nothing of the daemon's socket."""
        os.setsid()
        self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (*QUIET, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output, *_lock = files  # the lock stays open until this process ends
        os.dup2(output, 1)
        os.dup2(output, 2)
        for fd in (output, *self._wakes):
            os.close(fd)
        self._channel.close()


# ---------------------------------------------------------------- after the fork


def carry_out(order: Order) -> int:
    """In the child: what `python -m trainer RUN` does, with the environment and the threads of the order. Returns the exit status."""
    for name in ("MKL_NUM_THREADS", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        os.environ.pop(name, None)
    os.environ.update(order.environment)
    os.environ["OMP_NUM_THREADS"] = str(order.threads)
    sys.argv = [sys.argv[0], order.run]
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(order.threads)
    return train([order.run], in_own_process=True)


def main(arguments: list[str]) -> int:
    """Returns the exit status: of the warm trainer, or in each child that of its task."""
    began = time.monotonic()
    log_to_stderr()
    channel = socket.socket(fileno=int(arguments[0]))
    backend, base = arguments[1], Path(arguments[2]) if len(arguments) > 2 else None
    zygote = Zygote(channel)
    prepare(backend, base)
    require_unspoilt()
    ready = Ready(memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, seconds=round(time.monotonic() - began, 1))
    with contextlib.suppress(BrokenPipeError):  # the daemon is gone: `serve` sees it
        send(channel, ready)
    log.info("ready for %s after %.1f s, at %d MiB", backend, ready.seconds, ready.memory_mb)
    order = zygote.serve()
    return 0 if order is None else carry_out(order)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
