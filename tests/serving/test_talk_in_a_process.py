"""A real serving process, a plain WebSocket client, and `lorad chat`."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_process import ServingProcess, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from core.access import Scope
from store.apikeys import add_api_key

LORAD = (sys.executable, "-c", "from cli.main import main; main()")
SOCKET = "/api/ai-echo/ws"
WORDS = " ".join(f"w{number}" for number in range(200))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """A server with one stream and a short line."""
    made = ServingProcess(tmp_path_factory.mktemp("narrow"), serving={"streams": 1, "queue": 9, "max_new_tokens": 4096, "max_body_kb": 64})
    made.start()
    yield made
    made.kill()


@contextmanager
def opened(process: ServingProcess, **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{process.port}{SOCKET}", **options) as client:
        yield client


def asked_by(stack: ExitStack, process: ServingProcess, number: int, message: str) -> list[ClientConnection]:
    """So many clients, each of which has just sent the message."""
    clients = [stack.enter_context(opened(process)) for _ in range(number)]
    for client in clients:
        client.send(json.dumps({"message": message, "length": "long"}))
    return clients


def heard(client: ClientConnection) -> list[dict[str, Any]]:
    """The events of one answer."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in ("done", "error"):
        events.append(json.loads(client.recv(timeout=60)))
    return events


def test_a_plain_websocket_client_talks_and_is_remembered(narrow: ServingProcess) -> None:
    with opened(narrow) as client:
        client.send(json.dumps({"message": "hello there"}))
        events = heard(client)
        assert [event["type"] for event in events] == ["begun", "text", "text", "text", "done"]
        text = "".join(event["text"] for event in events if event["type"] == "text")
        assert text == events[-1]["text"] == "[stub base] hello there"
        session = events[0]["session_id"]
        client.send(json.dumps({"message": "again", "session_id": session}))
        assert heard(client)[-1]["session_id"] == session
    told = httpx.get(f"{narrow.address}/api/ai-echo/history", params={"session_id": session}).json()
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"] * 2


def test_what_does_not_fit_is_told_and_the_connection_lives_on(narrow: ServingProcess) -> None:
    with opened(narrow) as client:
        for said, code in (("{", "json_invalid"), ("{}", "missing"), (json.dumps({"message": "x", "model": "nobody/main"}), "model_not_found")):
            client.send(said)
            (event,) = heard(client)
            assert (event["type"], event["code"]) == ("error", code)
        client.send(json.dumps({"message": "hello"}))
        assert heard(client)[-1]["type"] == "done"
        client.send(b"bytes")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=60)
    with opened(narrow) as client:
        client.send(json.dumps({"message": "x" * 70_000}))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009  # too big


def test_ten_users_at_once_are_answered_or_told_their_position_and_none_is_lost(narrow: ServingProcess) -> None:
    with ExitStack() as stack:
        answers = [heard(client) for client in asked_by(stack, narrow, 10, WORDS)]
    assert all(events[-1]["type"] == "done" and events[-1]["text"].endswith(WORDS) for events in answers)
    queued = [[event["position"] for event in events if event["type"] == "queued"] for events in answers]
    assert max(len(positions) for positions in queued) >= 2, "those at the end saw the line move"
    assert all(positions == sorted(positions, reverse=True) for positions in queued)


def test_a_full_line_is_told_with_a_time(narrow: ServingProcess) -> None:
    with ExitStack() as stack:
        lasts = [heard(client)[-1] for client in asked_by(stack, narrow, 12, " ".join([WORDS] * 10))]
    refused = [event for event in lasts if event["type"] == "error"]
    assert 1 <= len(refused) <= 2, "one is answered, nine wait"
    assert [event["type"] for event in lasts].count("done") == 12 - len(refused)
    assert all((event["status"], event["code"]) == (429, "queue_full") and event["retry_after_s"] >= 1 for event in refused)


def lorad_chat(process: ServingProcess, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    command = [*LORAD, "chat", "--config", str(process.config), *words]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"LORAD_API_KEY": ""})


def test_what_is_piped_in_is_answered_on_standard_output(narrow: ServingProcess) -> None:
    done = lorad_chat(narrow, "--adapter", "tiny", said="hello there")
    assert (done.returncode, done.stdout) == (0, "[stub base] hello there\n"), done.stderr
    lost = lorad_chat(narrow, "--url", "http://127.0.0.1:9", said="hello")
    assert lost.returncode == 1
    assert "SERVER_UNREACHABLE" in lost.stderr


def test_the_terminal_remembers_resets_and_explains(narrow: ServingProcess) -> None:
    said = "hello\n/why\n/reset\n/adapter nobody\n/history\n/nonsense\n/delete\n/quit\n"
    near, far = pty.openpty()
    command = [*LORAD, "chat", "--adapter", "tiny", "--config", str(narrow.config)]
    child = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, close_fds=True)
    os.close(far)
    seen = b""
    for line in said.splitlines():
        seen += read_until(near, b"> ")
        os.write(near, f"{line}\n".encode())
    assert child.wait(60) == 0
    os.close(near)
    text = seen.decode()
    for expected in ("[stub base] hello", "lorad why chatcmpl-base-", "it begins anew", "no 'nobody'; there are tiny", "there is no /nonsense", "deleted"):
        assert expected in text


def read_until(terminal: int, mark: bytes) -> bytes:
    found = b""
    while not found.endswith(mark):
        found += os.read(terminal, 4096)
    return found


def test_a_key_is_asked_for_and_a_session_belongs_to_the_key_that_began_it(tmp_path: Path) -> None:
    process = ServingProcess(tmp_path)
    keys = [add_api_key(process.world.box, name, [Scope.INFER], process.world.clock.now())[1] for name in ("ada", "ben")]
    process.launch()
    try:
        wait_until(lambda: is_ready(process, keys[0]), "the process is ready")
        with pytest.raises(InvalidStatus, match=r"401|403"), opened(process):
            pass
        with opened(process, additional_headers={"authorization": f"Bearer {keys[0]}"}) as client:
            client.send(json.dumps({"message": "hello"}))
            session = heard(client)[-1]["session_id"]
        status = [httpx.get(f"{process.address}/api/ai-echo/history", params={"session_id": session}, headers=bearer(key)).status_code for key in keys]
        assert status == [200, 404]
    finally:
        process.kill()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def is_ready(process: ServingProcess, key: str) -> bool:
    try:
        return httpx.get(f"{process.address}/ready", headers=bearer(key), timeout=5).status_code == 200
    except httpx.TransportError:
        return False
