"""A judge that speaks the protocol over a real socket, and misbehaves on request."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Opinion = Callable[[str, str, int], str]
"""(answer A, answer B, seed) -> what the judge says."""


class JudgeServer:
    """Its address, what it was asked, and what it does: `opinion` says the words, `before` may answer otherwise."""

    def __init__(self, opinion: Opinion) -> None:
        self.opinion = opinion
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.before: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False
        self.released = threading.Event()
        self.url = ""

    def reply(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str = "application/json", **headers: str) -> bool:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    def complete(self, handler: BaseHTTPRequestHandler, text: str, finish: str = "stop") -> bool:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        return self.reply(handler, 200, json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode())


def answers_in(request: dict[str, Any]) -> tuple[str, str]:
    """The two answers that a judge is shown."""
    text = request["messages"][1]["content"]
    mark = text.split(" ", 1)[0]
    parts = dict(part.split("\n", 1) for part in text.split(f"{mark} ")[1:])
    return parts["answer A"].rstrip("\n"), parts["answer B"].rstrip("\n")


@contextmanager
def judge_server(opinion: Opinion) -> Iterator[JudgeServer]:
    server = JudgeServer(opinion)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(request)
            server.keys.append(self.headers.get("Authorization", ""))
            if self.path != "/v1/chat/completions":
                server.reply(self, 404, b"{}")
            elif not server.before(self, len(server.asked)):
                server.complete(self, server.opinion(*answers_in(request), request["seed"]))

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            listening.shutdown()
            thread.join()
