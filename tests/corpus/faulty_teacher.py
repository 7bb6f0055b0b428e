"""A teacher on loopback that is good until a test spoils one of its replies."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], Any]


class FaultyTeacher:
    """`spoil` maps a path to what is done to its good reply; it may return bytes, or (status, bytes). `asked` counts requests by path."""

    def __init__(self) -> None:
        self.spoil: dict[str, Reply] = {}
        self.asked: dict[str, int] = {}
        self.released = threading.Event()
        self.url = ""

    def good(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/health":
            return {"skill": "adding", "generator": "adder", "version": "7", "schema_id": "chat_sft_v1"}
        if path == "/levels":
            return {"levels": [{"level": level, "title": "sums", "per_seed": 50, "seeds": 5} for level in (1, 2)]}
        if path == "/generate":
            level, seed = body["level"], body["seed"]
            return {"level": level, "seed": seed, "rows": [adding(level, seed * 50 + place) for place in range(body["count"])]}
        results = [
            {"right": each["answer"] == each["row"]["messages"][1]["content"], "level": each["row"]["metadata"]["level"], "why": ""} for each in body["answers"]
        ]
        return {"results": results}


def adding(level: int, number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"What is {number} and {level}?"}, {"role": "assistant", "content": f"It is {number + level}."}]
    return {"messages": messages, "metadata": {"level": level}}


@contextmanager
def teaching() -> Iterator[FaultyTeacher]:
    """The teacher, listening on a free port of loopback until the block ends."""
    teacher = FaultyTeacher()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            teacher.asked[self.path] = teacher.asked.get(self.path, 0) + 1
            reply = teacher.good(self.path, body)
            if self.path in teacher.spoil:
                reply = teacher.spoil[self.path](reply)
            status, raw = reply if isinstance(reply, tuple) else (200, reply)
            raw = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                if status == 302:
                    self.send_header("Location", teacher.url + "/elsewhere")
                self.end_headers()
                self.wfile.write(raw)
            except OSError:  # the client has given up
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    teacher.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield teacher
    finally:
        teacher.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
