"""A long-lived gate child: given one drop after another, restarted after a crash.

Drops are answered in the order in which they were handed over. Several small ones may wait at the child, so that it goes
on while the daemon makes the answers before them durable; one that died is started again and asked for all that it has
not answered. There are two children: one for new drops, and one, started when it is needed, for accepted drops that are checked at level deep
in the background. A small file never waits behind the minutes that this may take.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from core.facts import GateSeen
from core.gate import GATE_RESULT, GATE_SPEC, GateResult, GateSpec
from daemon.children import spawn
from daemon.machine import end_group
from store.codec import read_if_whole, write
from store.paths import Home

LOG_TAIL_LINES = 40
REAP_S = 1.0  # for a killed child to be gone
ROWS = "".join(
    f'{{"messages":[{{"role":"user","content":"What is {n}?"}},{{"role":"assistant","content":"A number, and {n} of them."}}]}}\n' for n in range(12)
)
ROOM = 32  # small drops at the child at once: enough that it never waits for a tick, few enough to ask for again
NEW = "gate"
BACKGROUND = "deep"
WHY = {
    signal.SIGXCPU: "which it gets for more CPU seconds than validation.cpu_s",
    signal.SIGABRT: "which libraries raise, among other things, where memory is short (validation.memory_mb)",
    signal.SIGKILL: "which the system sends where the machine is out of memory",
}


@dataclass(slots=True)
class _Asked:
    """A drop that was handed over, until its answer is taken."""

    drop: str
    folder: Path
    level: str
    result: GateResult | None = None


class Gatekeeper:
    """Owns a gate child and a folder `tmp/<name>-<drop>-<n>/` for each drop that it was handed. Its log is `<name>.log`."""

    def __init__(self, home: Home, name: str = NEW) -> None:
        self._home = home
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[str, _Asked] = {}  # in the order of the asking
        self._warming: Path | None = None  # the folder of a file that is only to make the child load what it needs
        self._count = 0

    def folder_of(self, drop: str) -> Path:
        """The folder in which this drop's answer lies."""
        return self._asked[drop].folder

    def level_of(self, drop: str) -> str:
        """The level at which it is checked; empty where it was not handed over."""
        return self._asked[drop].level if drop in self._asked else ""

    def ensure(self) -> None:
        """Start the child unless it lives. What an earlier one has not answered is forgotten, to be handed over again."""
        if self._is_alive():
            return
        self._withdraw(asked.drop for asked in list(self._asked.values()) if self._answer(asked) is None)
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._log, self._log.with_name(f"{self._log.name}.1"))
        with open(self._log, "ab") as logfile:  # to append: it may be cut while the child lives (daemon.bounds)
            self._process = spawn(["validation"], stdout=logfile, stdin=subprocess.PIPE)

    @property
    def _log(self) -> Path:
        return self._home.root / f"{self._name}.log"

    def log_tail(self) -> list[str]:
        """The last lines of the child's log."""
        try:
            return self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        except FileNotFoundError:
            return []

    def warm(self, spec: GateSpec) -> None:
        """Let the child check a few rows of our own, so that the first drop does not wait for libraries and tokenizer to load."""
        self.ensure()
        self._warming = self._home.tmp / f"warm-{self._name}"
        self._warming.mkdir(parents=True, exist_ok=True)
        (self._warming / "ours.jsonl").write_text(ROWS)
        write(self._warming / GATE_SPEC, replace(spec, file=str(self._warming / "ours.jsonl")), durable=False)
        self._ask(self._warming)

    def takes(self, drop: str) -> bool:
        """Whether the drop may be handed over: not while the child lies dead over another, which is to be told first."""
        return self._is_alive() or not self._asked.keys() - {drop}

    def submit(self, spec: GateSpec) -> None:
        """Hand over a drop, or hand it over again: what the child said of it before is forgotten."""
        assert self.takes(spec.drop)
        self._withdraw([spec.drop])
        self.ensure()
        self._count += 1
        folder = self._home.tmp / f"{self._name}-{spec.drop}-{self._count}"
        folder.mkdir(parents=True)
        try:
            write(folder / GATE_SPEC, spec, durable=False)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # else every tick on a full disk would leave another one
            raise
        self._asked[spec.drop] = _Asked(spec.drop, folder, spec.level)
        self._ask(folder)

    def _ask(self, folder: Path) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A child that died since `ensure` is seen at the next look.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()

    def _cool(self) -> None:
        """Remove the folder of the warming file."""
        if self._warming is not None:
            shutil.rmtree(self._warming, ignore_errors=True)
        self._warming = None

    def look(self) -> GateSeen:
        """What the child is at, what it has answered, whether it died over it."""
        alive = self._is_alive()
        if self._warming is not None and (not alive or (self._warming / GATE_RESULT).exists()):
            self._cool()
        if not self._asked:
            return GateSeen(alive=alive, room=ROOM)
        results: dict[str, GateResult] = {}
        for asked in self._asked.values():
            if (result := self._answer(asked)) is None:
                break  # it answers in order
            results[asked.drop] = result
        if not alive:  # those behind the one that it died over are handed over again, to another child
            self._withdraw(list(self._asked)[len(results) + 1 :])
        first, *behind = self._asked
        died = not alive and first not in results
        return GateSeen(
            alive=alive,
            drop=first,
            result=results.get(first),
            died=died,
            end=self._end() if died else "",
            behind=tuple(behind),
            results=results,
            room=max(0, ROOM - len(self._asked)),
        )

    def _is_alive(self) -> bool:
        return self._process is not None and end_group(self._process) is None

    @staticmethod
    def _answer(asked: _Asked) -> GateResult | None:
        """Read once it is there."""
        if asked.result is None:
            asked.result = read_if_whole(GateResult, asked.folder / GATE_RESULT)
        return asked.result

    def _end(self) -> str:
        """How the child ended, in words that follow on `it died`."""
        status = self._process.returncode if self._process is not None else None
        if status is None or status >= 0:
            return f"with exit status {status}"
        try:
            number = signal.Signals(-status)
        except ValueError:
            return f"by signal {-status}"
        return f"by {number.name}, {WHY[number]}" if number in WHY else f"by {number.name}"

    def is_busy(self) -> bool:
        """Whether a drop is at work."""
        return bool(self._asked)

    def is_at(self, drop: str) -> bool:
        """Whether this drop is at work."""
        return drop in self._asked

    def waiting(self) -> tuple[str, ...]:
        """The drops that were handed over, in order."""
        return tuple(self._asked)

    def clear(self, drop: str | None = None) -> None:
        """Forget a drop, or all, and remove what is left of their folders. The child finds a folder gone and goes on."""
        self._withdraw(list(self._asked) if drop is None else [drop])

    def _withdraw(self, drops: Iterable[str]) -> None:
        for drop in drops:
            if (asked := self._asked.pop(drop, None)) is not None:
                shutil.rmtree(asked.folder, ignore_errors=True)

    def close(self) -> None:
        """End the child and whatever it has started, at once: it writes nothing but its folder under tmp/. Never waits long."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if end_group(self._process) is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that the kernel holds
                self._process.wait(REAP_S)
        self._process = None
        self._cool()
