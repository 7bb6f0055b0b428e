"""A real serving process, started as a child from a config file of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from inference_box import World

DEADLINE_S = 120.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; fails naming `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what}")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServingProcess:
    """`python -m serving`, its box and its address."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.world = World(root)
        self.port = free_port()
        self.config = root / "config.json"
        self.log = root / "log.txt"
        self.write_config(**config)
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write_config(self, **changes: Any) -> None:
        """The config: the stub engine and this test's folder, with changes; `serving` adds to that section."""
        serving = {"port": self.port, "home": "serving", "trust": "keys"} | changes.pop("serving", {})
        self.config.write_text(json.dumps({"home": "var", "backend": "stub", "model_name": "tiny", "serving": serving} | changes))

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it without waiting."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen([sys.executable, "-m", "serving", str(self.config)], stderr=log, stdout=log)
        return self.child

    def start(self, headers: dict[str, str] | None = None) -> "ServingProcess":
        """Start it and wait until it is ready."""
        child = self.launch()

        def is_ready() -> bool:
            assert child.poll() is None, self.log.read_text()
            try:
                return httpx.get(f"{self.address}/ready", headers=headers, timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_ready, "the process is ready")
        return self

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self.child is not None
        return self.child.wait(DEADLINE_S)

    def terminate(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, if it lives."""
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait(DEADLINE_S)

    def ask(self, text: str = "hello", model: str = "default/main", **fields: Any) -> httpx.Response:
        """One chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]} | fields
        return httpx.post(f"{self.address}/v1/chat/completions", json=body, timeout=DEADLINE_S)
