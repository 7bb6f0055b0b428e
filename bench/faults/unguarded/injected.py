"""More of what a process does without, and what is done to it: name -> the modules, each with what is changed there.

The first part takes guards away, as `guards` does. The second puts faults into a process of lorad; a recipe names these in
`trial.circle(without=…)`, so that they are there with the guard and without.
"""

import logging
import os
import resource
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

Taker = Callable[[ModuleType], None]
FOLDER = "LORAD_BENCH_FOLDER"  # of the recipe: a fault that comes once leaves its mark there


def put(name: str, make: Callable[[Any], Any]) -> Taker:
    """Replace `name` of the module, or of a class in it, by what `make` makes of the old one."""

    def take(module: ModuleType) -> None:
        owner: Any = module
        *classes, last = name.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, last, make(getattr(owner, last)))

    return take


def _once(mark: str) -> bool:
    """True the first time that any process of the recipe asks."""
    try:
        os.close(os.open(os.path.join(os.environ[FOLDER], mark), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


# ---------------------------------------------------------------- guards taken away


def _events_alone(scan: Any) -> Any:
    """An entry counts only if an event told of it."""

    def trusting(self: Any, renamed: set[str], settle_s: float, *, is_due: bool = True) -> Any:
        return tuple(entry for entry in scan(self, renamed, settle_s, is_due=is_due) if entry.renamed)

    return trusting


def _pinging_thread(init: Any) -> Any:
    """The sign of life comes from a thread of its own, whatever the main loop does."""

    def begin(self: Any, address: str = "", watchdog_s: float = 0.0) -> None:
        init(self, address, watchdog_s)

        def ping() -> None:
            while True:
                time.sleep(watchdog_s / 4)
                self._send("WATCHDOG=1")

        if watchdog_s:
            threading.Thread(target=ping, daemon=True).start()

    return begin


def _forgiving(read_layer: Any) -> Any:
    """A file that cannot be read counts as an empty one."""

    def read(path: Path) -> Any:
        try:
            return read_layer(path)
        except Exception:
            return {}

    return read


def _in_place(replace_file: Any) -> Any:
    """The file is written over where it lies."""

    def write(path: Path, content: str, **how: Any) -> None:
        with open(path, "w") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(content[len(content) // 2 :])

    return write


def _plain_log(log_without_blocking: Any) -> Any:
    def log_to_stderr() -> Any:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    return log_to_stderr


def _each_missed_time(module: ModuleType) -> None:
    """A schedule that makes up every time that was missed, one by one."""
    schedules: Any = module.Schedules
    module.Times.newest = lambda self, since, now: since

    def fired(self: Any, due: Any) -> None:
        plan = self._planned(due.entry, self._plans[due.entry].since, due.at, due.at)
        self._plans = {**self._plans, due.entry: plan}
        module.write_plans(self._home, self._plans)

    schedules.fired = fired


def _without_resume_point(save: Any) -> Any:
    return lambda run, config: None


TAKEN: dict[str, dict[str, Taker]] = {
    "scan": {"daemon.inbox": put("Inbox.scan", _events_alone)},
    "kill_means_memory": {"core.endings": put("was_killed", lambda old: lambda child: False)},
    "memory_is_told": {"store.child": put("is_out_of_memory", lambda old: lambda error: False)},
    "foreign": {"daemon.devices": put("_foreign", lambda old: lambda device, own: "")},
    "heartbeat": {"core.endings": put("hang", lambda old: lambda child, config: "")},
    "heat": {"daemon.devices": put("heat", lambda old: lambda *args: "")},
    "coalescing": {"daemon.schedules": _each_missed_time},
    "ids_in_order": {"daemon.intake": put("stamp_after", lambda old: lambda newest, now, suffix: _stamp(now, suffix))},
    "checkpoint_at_stop": {"trainer.backends.stub": put("_save_resume", _without_resume_point)},
    "old_config": {"store.config": put("read_layer", _forgiving)},
    "main_loop_pings": {"daemon.notify": put("Notifier.__init__", _pinging_thread)},
    "rename": {"daemon.status": put("replace_file", _in_place)},
    "log_without_blocking": {"daemon.logs": put("log_without_blocking", _plain_log)},
}


def _stamp(now: Any, suffix: str) -> str:
    from core.names import stamp

    return stamp(now, suffix)


# ---------------------------------------------------------------- faults put in

FITTING_ROWS = 4  # of a forward pass; more do not fit
LIMITED_ROWS = 8  # the same under a limit of the system; besides them there is room for the program
ROW_BYTES = 96 << 20
STUCK_STEP = 100  # two seconds of stub training: its median step is known


class OutOfMemoryError(RuntimeError):
    """Looks like torch's own by its name."""


def _out_of_memory(module: ModuleType) -> None:
    """As on a GPU: a step of more rows than fit raises."""
    report = module._report

    def step(run: Any, plan: Any, loss: float) -> None:
        report(run, plan, loss)
        if run.micro_batch > FITTING_ROWS:
            raise OutOfMemoryError(f"CUDA out of memory. Tried to allocate {run.micro_batch * ROW_BYTES >> 20} MiB")

    module._report = step  # type: ignore[attr-defined]


def _memory_limit(module: ModuleType) -> None:
    """As on a CPU: a step takes memory by its rows, and the system gives no more than a few of them need."""
    report = module._report
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + (LIMITED_ROWS + 2) * ROW_BYTES, resource.RLIM_INFINITY))

    def step(run: Any, plan: Any, loss: float) -> None:
        report(run, plan, loss)
        if run.steps == 1:
            bytearray(run.micro_batch * ROW_BYTES)

    module._report = step  # type: ignore[attr-defined]


def _stuck_step(module: ModuleType) -> None:
    """One step of the first run does not end."""
    report = module._report

    def stand_still() -> None:
        time.sleep(3600)

    def step(run: Any, plan: Any, loss: float) -> None:
        report(run, plan, loss)
        if run.steps == STUCK_STEP and _once("stuck"):
            stand_still()

    module._report = step  # type: ignore[attr-defined]


def _hang_on_signal(module: ModuleType) -> None:
    """SIGUSR2 holds the main thread, and it alone."""

    def hang(*_: Any) -> None:
        while True:
            time.sleep(3600)

    with suppress(ValueError):
        signal.signal(signal.SIGUSR2, hang)


def _sleep_by_select(module: ModuleType) -> None:
    """libfaketime 0.9.10 refuses the absolute clock_nanosleep of Python's own sleep where it leaves the monotonic clock alone."""
    sleep: Any = lambda seconds: select.select([], [], [], seconds) and None  # noqa: E731
    time.sleep = sleep


HEAVY_BYTES = 2 << 20


def _heavy_adapter(module: ModuleType) -> None:
    """A stub adapter of two megabytes that do not compress: long enough on a slow road to be cut in the middle."""
    write = module.write_stub_adapter

    def heavy(folder: Path, config: Any, steps: int) -> None:
        write(folder, config, steps)
        head = f'{{"made_up.steps":{{"dtype":"F32","shape":[{HEAVY_BYTES // 4}],"data_offsets":[0,{HEAVY_BYTES}]}}}}'.encode()
        numbers = bytearray(os.urandom(HEAVY_BYTES))
        numbers[3::4] = b"\x3f" * (HEAVY_BYTES // 4)  # of about 1: finite
        numbers[:4] = struct.pack("<f", steps)
        (folder / "adapter_model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + numbers)

    module.write_stub_adapter = heavy  # type: ignore[attr-defined]


def _hasty_ssh(module: ModuleType) -> None:
    """A silent connection is given up after seconds, so that a recipe need not wait."""
    module.ALIVE_S, module.ALIVE_COUNT, module.CONNECT_S = 1, 2, 2  # type: ignore[attr-defined]


def _hasty_rsync(module: ModuleType) -> None:
    module.ALWAYS = ("--archive", "--fsync", "--timeout=3")  # type: ignore[attr-defined]


PUT_IN: dict[str, dict[str, Taker]] = {
    "-out-of-memory": {"trainer.backends.stub": _out_of_memory},
    "-memory-limit": {"trainer.backends.stub": _memory_limit},
    "-heavy-adapter": {"trainer.backends.stub": _heavy_adapter},
    "-hasty-road": {"deploy.ssh": _hasty_ssh, "deploy.rsync": _hasty_rsync},
    "-stuck-step": {"trainer.backends.stub": _stuck_step},
    "-hang-on-signal": {"daemon.main": _hang_on_signal},
    "-sleep-by-select": {"core.errors": _sleep_by_select},  # which every process imports
}
INJECTED = TAKEN | PUT_IN
