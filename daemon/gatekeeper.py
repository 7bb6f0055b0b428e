"""The long-lived gate child: given one drop at a time, restarted after a crash."""

import contextlib
import shutil
import subprocess
from pathlib import Path

from core.facts import GateSeen
from core.gate import GateResult, GateSpec
from daemon.children import spawn
from store.codec import read_if_whole, write
from store.paths import Home


class Gatekeeper:
    """Owns the gate child and the folder `tmp/gate-<drop>-<n>/` that it works in."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._drop: str | None = None
        self._folder: Path | None = None
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
            with open(self._home.root / "gate.log", "wb") as logfile:
                self._process = spawn(["validation"], stdout=logfile, stdin=subprocess.PIPE)

    def submit(self, spec: GateSpec) -> None:
        """Hand over one drop."""
        self.clear()
        self.ensure()
        self._count += 1
        self._folder = self._home.tmp / f"gate-{spec.drop}-{self._count}"
        self._folder.mkdir(parents=True)
        write(self._folder / "gate-spec.json", spec, durable=False)
        assert self._process is not None
        assert self._process.stdin is not None
        self._drop = spec.drop
        try:
            self._process.stdin.write(f"{self._folder}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it died since `ensure`: the next look sees it

    def look(self) -> GateSeen:
        """What the child is at, whether it has answered, whether it died over it."""
        alive = self._process is not None and self._process.poll() is None
        if self._drop is None:
            return GateSeen(alive=alive)
        result = read_if_whole(GateResult, self.folder / "result.json")
        return GateSeen(alive=alive, drop=self._drop, result=result, died=not alive and result is None)

    def is_busy(self) -> bool:
        """Whether a drop is at work."""
        return self._drop is not None

    def clear(self) -> None:
        """Forget the drop at work and remove what is left of its folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._drop = self._folder = None

    def close(self) -> None:
        """End the child by closing its input; kill it where it does not end."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
