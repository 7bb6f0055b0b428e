"""A long-lived gate child: given one drop at a time, restarted after a crash.

There are two: one for new drops, and one, started when it is needed, for accepted drops that are checked at level deep
in the background. A small file never waits behind the minutes that this may take.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from core.facts import GateSeen
from core.gate import GATE_RESULT, GATE_SPEC, GateResult, GateSpec
from daemon.children import spawn
from store.codec import read_if_whole, write
from store.paths import Home

LOG_TAIL_LINES = 40
ROWS = "".join(
    f'{{"messages":[{{"role":"user","content":"What is {n}?"}},{{"role":"assistant","content":"A number, and {n} of them."}}]}}\n' for n in range(12)
)
NEW = "gate"
BACKGROUND = "deep"
WHY = {
    signal.SIGXCPU: "which it gets for more CPU seconds than validation.cpu_s",
    signal.SIGABRT: "which libraries raise, among other things, where memory is short (validation.memory_mb)",
    signal.SIGKILL: "which the system sends where the machine is out of memory",
}


class Gatekeeper:
    """Owns a gate child and the folder `tmp/<name>-<drop>-<n>/` that it works in. Its log is `<name>.log`."""

    def __init__(self, home: Home, name: str = NEW) -> None:
        self._home = home
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._drop: str | None = None
        self.level = ""  # of the drop at work
        self._folder: Path | None = None
        self._warming: Path | None = None  # the folder of a file that is only to make the child load what it needs
        self._count = 0

    @property
    def folder(self) -> Path:
        """The folder of the drop at work."""
        assert self._folder is not None
        return self._folder

    def ensure(self) -> None:
        """Start the child unless it lives."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._log, self._log.with_name(f"{self._log.name}.1"))
            with open(self._log, "wb") as logfile:
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

    def submit(self, spec: GateSpec) -> None:
        """Hand over one drop."""
        self.clear()
        self.ensure()
        self._count += 1
        self._folder = self._home.tmp / f"{self._name}-{spec.drop}-{self._count}"
        self._folder.mkdir(parents=True)
        write(self._folder / GATE_SPEC, spec, durable=False)
        self._drop, self.level = spec.drop, spec.level
        self._ask(self._folder)

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
        """What the child is at, whether it has answered, whether it died over it."""
        alive = self._process is not None and self._process.poll() is None
        if self._warming is not None and (not alive or (self._warming / GATE_RESULT).exists()):
            self._cool()
        if self._drop is None:
            return GateSeen(alive=alive)
        result = read_if_whole(GateResult, self.folder / GATE_RESULT)
        died = not alive and result is None
        return GateSeen(alive=alive, drop=self._drop, result=result, died=died, end=self._end() if died else "")

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
        return self._drop is not None

    def is_at(self, drop: str) -> bool:
        """Whether this drop is at work."""
        return self._drop == drop

    def clear(self) -> None:
        """Forget the drop at work and remove what is left of its folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._drop = self._folder = None
        self.level = ""

    def close(self) -> None:
        """End the child: one that waits by closing its input, one at work by a signal; and whatever it has started."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._drop is not None or self._warming is not None:
            self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group lives on while a process of the survey does
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        self._cool()
