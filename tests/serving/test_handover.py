"""A restart of the server behind an inherited socket drops no request."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_process import DEADLINE_S, ServingProcess, wait_until

STARTER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}; os.execv(sys.argv[2], sys.argv[2:])"


class Starter:
    """Holds the listening socket, as systemd does, and starts servers that inherit it."""

    def __init__(self, process: ServingProcess, host: str = "127.0.0.1") -> None:
        self.process = process
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        self.socket.listen(512)
        process.port = self.socket.getsockname()[1]

    def start(self) -> "subprocess.Popen[bytes]":
        fd = self.socket.fileno()
        command = [sys.executable, "-c", STARTER, str(fd), sys.executable, "-m", "serving", str(self.process.config)]
        with self.process.log.open("ab") as log:
            self.process.child = subprocess.Popen(command, pass_fds=(fd,), stderr=log, stdout=log)
        return self.process.child

    def restart(self) -> None:
        """As `systemctl restart` does it: the next is started once the last has ended."""
        self.process.terminate()
        assert self.process.wait() == 0, self.process.log.read_text()
        self.start()


@pytest.fixture
def starter(process: ServingProcess) -> Iterator[Starter]:
    made = Starter(process)
    yield made
    made.socket.close()


class Clients:
    """Threads that ask without a pause: half on a new connection each time, half on one that they keep; one streams."""

    def __init__(self, process: ServingProcess) -> None:
        self.answered = 0
        self.dropped: list[str] = []
        self._process = process
        self._stop = threading.Event()

    @contextmanager
    def asking(self, count: int = 4) -> Iterator["Clients"]:
        threads = [threading.Thread(target=self._ask, args=(number % 2 == 0, number == 0)) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(DEADLINE_S)

    def _ask(self, keep: bool, stream: bool) -> None:
        body = {"model": "default/main", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
        client = httpx.Client(timeout=DEADLINE_S)
        while not self._stop.is_set():
            if not keep:
                client.close()
                client = httpx.Client(timeout=DEADLINE_S)
            try:
                answer = client.post(f"{self._process.address}/v1/chat/completions", json=body)
                whole = answer.text.rstrip().endswith("[DONE]") if stream else bool(answer.json()["choices"])
                self._count(answer.status_code == 200 and whole, f"{answer.status_code} {answer.text[:200]}")
            except (httpx.TransportError, ValueError, KeyError) as error:
                self._count(False, repr(error))
        client.close()

    def _count(self, good: bool, told: str) -> None:
        if good:
            self.answered += 1
        else:
            self.dropped.append(told)


def test_restarts_while_clients_ask_drop_nothing(starter: Starter) -> None:
    starter.start()
    clients = Clients(starter.process)
    with clients.asking():
        for _ in range(2):
            before = clients.answered
            wait_until(lambda before=before: clients.answered > before + 20, "clients are answered")
            starter.restart()
        before = clients.answered
        wait_until(lambda: clients.answered > before + 20, "clients are answered by the last one")
    assert clients.dropped == [], f"of {clients.answered + len(clients.dropped)} requests"


def test_it_accepts_nothing_before_it_can_answer(starter: Starter) -> None:
    """No 503 while the model loads: the first answer of all is a good one."""
    asked: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: asked.update(answer=starter.process.ask()))
    thread.start()
    starter.start()
    thread.join(DEADLINE_S)
    assert asked["answer"].status_code == 200


def test_a_stop_before_it_is_ready_is_an_end_like_any_other(starter: Starter) -> None:
    child = starter.start()
    wait_until(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes().count(b"serving") > 0, "it runs")
    wait_until(lambda: (starter.process.world.box.root / "serving.lock").exists(), "it has the lock")
    starter.process.terminate()
    assert starter.process.wait() in (0, -15)


def test_a_public_socket_needs_keys_whatever_the_config_says(process: ServingProcess) -> None:
    starter = Starter(process, "0.0.0.0")
    starter.start()
    assert process.wait() == 3
    assert "PUBLIC_WITHOUT_KEYS" in process.log.read_text()
    starter.socket.close()


def test_sockets_for_another_process_are_left_alone(process: ServingProcess) -> None:
    process.start()
    assert "LISTEN_PID" not in os.environ
    from serving.handover import inherited

    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert inherited(environment) == []
    assert environment == {}
