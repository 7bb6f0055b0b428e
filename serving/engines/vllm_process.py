"""The vLLM child: started with what `serving` says, watched, started again with growing pauses, ended with us."""

import http.client
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import LoradError
from store.bases import weights_folder

log = logging.getLogger(__name__)

READY_S = 600.0  # a large model is read, compiled and captured
LOOK_S = 0.2
PAUSES_S = (1.0, 5.0, 30.0, 120.0)
END_S = 10.0
QUANTIZED = {"nf4": ("--quantization", "bitsandbytes"), "int8": ("--quantization", "fp8")}  # vLLM's own 8 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """What of `serving` this engine reads. `command` stands in front of vLLM's own arguments."""

    max_new_tokens: int = 256
    context_tokens: int = 0  # 0: unknown here, vLLM refuses
    streams: int = 8
    max_rank: int = 64
    max_adapters: int = 4
    tensor_parallel: int = 1
    cuda_graphs: bool = True
    quantization: str = "none"
    command: Sequence[str] = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")


class VllmProcess:
    """One child at a time. `start` blocks until it answers; what fails meanwhile is ENGINE_RESTARTS."""

    def __init__(self, folder: Path, name: str, settings: VllmSettings) -> None:
        self._folder = folder
        self._name = name
        self._settings = settings
        self._key = secrets.token_urlsafe(32)
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self, again: Callable[[], None]) -> None:
        """Start the child and its watcher, which calls `again` after each restart. Raises LoradError BASE_UNUSABLE."""
        self._spawn()
        if not self._wait():
            self.close()
            raise LoradError(f"vllm did not come up within {READY_S:g} s", hint="its own words stand in the server's log above", code="BASE_UNUSABLE")
        self._ready.set()
        self._watcher = threading.Thread(target=self._watch, args=(again,), name="vllm", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End the child: SIGTERM, then SIGKILL. Repeating it is harmless."""
        self._closed.set()
        self._ready.clear()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(END_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(END_S)

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
        """Status and text of a route's answer. Raises LoradError ENGINE_RESTARTS."""
        try:
            connection, response = self._request("POST", path, body)
            with closing(connection):
                return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise _restarts(error) from None

    def post_json(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and JSON of a route's answer; None where it is none."""
        self._ask_ready()
        status, text = self.post(path, body)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, None

    def stream(self, path: str, body: Mapping[str, Any], hear: Callable[[Mapping[str, Any]], bool]) -> None:
        """Events of a streamed answer, until `hear` says no or they end. Raises LoradError ENGINE_RESTARTS, ENGINE_FAILED."""
        self._ask_ready()
        try:
            connection, response = self._request("POST", path, body)
            with closing(connection):
                if response.status != http.client.OK:
                    raise LoradError(f"vllm refuses the request: {response.read()[:300]!r}", hint="the server's log says more", code="ENGINE_FAILED")
                for line in response:
                    text = line.removeprefix(b"data:").strip()
                    if not line.startswith(b"data:") or text == b"[DONE]":
                        continue
                    if not hear(json.loads(text)):
                        return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _restarts(error) from None

    def _spawn(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self._port = found.getsockname()[1]
        environment = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_API_KEY": self._key, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        self._child = subprocess.Popen([*self._settings.command, *self._arguments()], env=environment, stdin=subprocess.DEVNULL)
        log.info("vllm started as pid %d on port %d", self._child.pid, self._port, extra={"action": "engine_started"})

    def _arguments(self) -> list[str]:
        wish = self._settings
        return [
            *("--model", str(weights_folder(self._folder)), "--served-model-name", self._name),
            *("--tokenizer", str(self._folder), "--host", "127.0.0.1", "--port", str(self._port)),
            *("--enable-lora", "--max-lora-rank", str(wish.max_rank), "--max-loras", str(wish.max_adapters), "--max-cpu-loras", str(2 * wish.max_adapters)),
            *("--max-num-seqs", str(wish.streams), "--tensor-parallel-size", str(wish.tensor_parallel), "--max-logprobs", "20"),
            *(() if wish.cuda_graphs else ("--enforce-eager",)),
            *QUANTIZED.get(wish.quantization, ()),
            *("--generation-config", "vllm"),  # no sampling defaults of the model's own: ours are sent with each request
        ]

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READY_S)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection, connection.getresponse()

    def _ask_ready(self) -> None:
        if not self._ready.is_set():
            raise _restarts("it is being started again")

    def _wait(self) -> bool:
        """Whether the child answers before it ends or the time is up."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._closed.is_set():
            if self._child is None or self._child.poll() is not None:
                return False
            try:
                connection, response = self._request("GET", "/health")
                with closing(connection):
                    if response.status == http.client.OK:
                        return True
            except (OSError, http.client.HTTPException):
                pass
            self._closed.wait(LOOK_S)
        return False

    def _watch(self, again: Callable[[], None]) -> None:
        tries = 0
        while not self._closed.is_set():
            assert self._child is not None, "started before it is watched"
            if self._child.poll() is None:
                self._closed.wait(LOOK_S)
                continue
            self._ready.clear()
            log.error("vllm ended with %s", self._child.returncode, extra={"action": "engine_ended"})
            self._closed.wait(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            if self._closed.is_set():
                return
            tries += 1
            self._spawn()
            if not self._wait():
                continue
            try:
                again()
            except LoradError as error:
                log.error("vllm is back, but: %s", error, extra={"action": "engine_restarted"})
                self._child.kill()
                continue
            self._ready.set()
            tries = 0


def _restarts(why: object) -> LoradError:
    return LoradError(f"vllm does not answer: {why}", hint="ask again in a moment; it is started again by itself", code="ENGINE_RESTARTS")
