"""What the serving box finds in a conversation comes to the review of the training box, and a peer model's answer beside it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from circle import Circle

ADAPTER = "default/main"
TALK = [{"role": "user", "content": "The capital?"}, {"role": "assistant", "content": "It is Sydney."}]


@pytest.fixture
def peer() -> Iterator[str]:
    """A peer model that knows one answer; its address."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            reply = json.dumps({"is_wrong": True, "answer": "The peer says: Canberra."})
            raw = json.dumps({"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.full
def test_a_correction_that_was_found_and_a_peers_answer_wait_for_a_person(circle: Circle, peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    circle.configure(feedback={"peer_url": peer, "peer_model": "big"})
    circle.start_both()
    corrected = [*TALK, {"role": "user", "content": "No, it's Canberra, not Sydney."}]
    body = {"model": ADAPTER, "store": True}
    assert httpx.post(f"{circle.address}/v1/chat/completions", json=body | {"messages": corrected}, timeout=60).status_code == 200
    rated = {"kind": "mistake", "messages": TALK, "model": ADAPTER, "consent": True}
    assert httpx.post(f"{circle.address}/v1/feedback", json=rated, timeout=60).status_code == 200

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(circle.lorad("feedback", "list", "--adapter", ADAPTER, "--format", "json").stdout or "[]")
        return found

    circle.wait(lambda: {one["source"] for one in listed()} >= {"detected", "api", "peer"}, "all three are on the shelf")
    told = {one["source"]: one for one in listed()}
    assert told["detected"]["correct_output"] == "It is Canberra."
    assert told["peer"]["correct_output"] == "The peer says: Canberra."
    assert {told[name]["fate"]["word"] for name in ("detected", "peer")} == {"review"}
