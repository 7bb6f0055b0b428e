"""The road of signals: how fast feedback is taken beside a chat, and whether a pull that is killed again and again loses any."""

import asyncio
import json
import math
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from core.signals import Signal

LORAD = str(Path(sys.executable).with_name("lorad"))
RATE, SECONDS = 200, 15
CONNECTIONS = 16
KILLS = 100
CLICK = {"kind": "correction", "model": "default/main", "consent": True}
QUESTION = [{"role": "user", "content": "What is the capital of Switzerland, and why?"}, {"role": "assistant", "content": "It is Zurich. " * 20}]
PATIENCE_S = 180.0


@dataclass(slots=True)
class Serving:
    """`lorad serve` in a folder of its own; started and ended as often as is wanted."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        serving = {"port": self.port, "home": str(self.root / "serving")}
        values = {"home": str(self.root / "home"), "serving": serving, "deploy": {"targets": [{"name": "near", "path": str(self.root / "serving")}]}}
        (self.root / "config.json").write_text(json.dumps(values | self.config))

    @property
    def address(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns once it answers."""
        with open(self.root / "serve.log", "ab") as log:
            self.process = subprocess.Popen([LORAD, "serve", "--config", str(self.root / "config.json")], stdout=log, stderr=log)
        until = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"lorad serve is not ready:\n{(self.root / 'serve.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(**config: Any) -> Iterator[Serving]:
    """A server in a temporary folder, running."""
    with tempfile.TemporaryDirectory() as name:
        made = Serving(Path(name), config)
        made.start()
        try:
            yield made
        finally:
            made.end()


def feedback_p99_ms(rate: int = RATE, seconds: int = SECONDS) -> dict[str, Any]:
    """`rate` corrections a second, each sent when its time has come, beside one chat stream of the real base."""
    with serving() as server:
        httpx.post(f"{server.address}/v1/chat/completions", json=_chat(8), timeout=PATIENCE_S)
        took_s, told, tokens = asyncio.run(_load(server.port, rate, seconds))
    took_s.sort()
    if set(told) != {200}:
        raise RuntimeError(f"feedback was answered with {dict(told)}")
    at = {name: round(took_s[math.ceil(len(took_s) * share) - 1] * 1000, 1) for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))}
    return {"feedback_p99_ms": at["p99"], "feedback_p50_ms": at["p50"], "feedback_worst_ms": at["worst"], "feedback_sent": len(took_s), "chat_tokens": tokens}


async def _load(port: int, rate: int, seconds: int) -> tuple[list[float], Counter[int], int]:
    """(seconds of each, how often each status, pieces that the chat told meanwhile). Plain sockets: this client is to take no core from the server."""
    took_s: list[float] = []
    told: Counter[int] = Counter()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Connection.open(port))

    async def send(number: int) -> None:
        body = CLICK | {"messages": QUESTION, "correction": f"It is Berne ({number}).", "user": f"user {number % 50}"}
        began = time.perf_counter()
        connection = await free.get()
        status = await connection.post("/v1/feedback", body)
        took_s.append(time.perf_counter() - began)
        told[status] += 1
        free.put_nowait(connection)

    pieces, talking = list[bytes](), asyncio.Event()
    chat = asyncio.create_task(_talk(port, pieces, talking))
    await asyncio.gather(*(send(-place - 1) for place in range(CONNECTIONS)))
    await talking.wait()
    took_s.clear()
    told.clear()
    pieces.clear()
    began, sent = time.perf_counter(), []
    for number in range(rate * seconds):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        sent.append(asyncio.create_task(send(number)))
    await asyncio.gather(*sent)
    chat.cancel()
    return took_s, told, len(pieces)


@dataclass(slots=True)
class Connection:
    """One kept-alive connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, path: str, body: dict[str, Any]) -> int:
        """Send JSON, read the whole answer; its status."""
        head = await self.begin(path, body)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self.reader.readexactly(length)
        return int(head.split(b" ", 2)[1])

    async def begin(self, path: str, body: dict[str, Any]) -> bytes:
        """Send JSON; the head of the answer."""
        raw = json.dumps(body).encode()
        self.writer.write(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
        return await self.reader.readuntil(b"\r\n\r\n")


async def _talk(port: int, pieces: list[bytes], talking: asyncio.Event) -> None:
    """One stream after another, until it is cancelled; what came goes to `pieces`."""
    while True:
        connection = await Connection.open(port)
        await connection.begin("/v1/chat/completions", _chat(256, stream=True))
        while b"[DONE]" not in (piece := await connection.reader.readline()):
            pieces += [piece] if piece.startswith(b"data: {") else []
            talking.set()
        connection.writer.close()


def _chat(tokens: int, **fields: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": "Tell me a long story about a bicycle that learns to fly."}]
    return {"model": "default/main", "messages": question, "max_tokens": tokens, "temperature": 1.0} | fields


class Sender:
    """A client that sends corrections, and the same again where it got no answer, as a careful client does."""

    def __init__(self, address: str, pause_s: float) -> None:
        self.ids: list[str] = []  # of what was answered with 200
        self._address, self._pause_s = address, pause_s
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the answer to the last one."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with httpx.Client(base_url=self._address, timeout=20) as client:
            while not self._ends.is_set():
                body = CLICK | {"messages": QUESTION, "correction": f"It is Berne, for the {number}th time."}
                try:
                    answer = client.post("/v1/feedback", json=body)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.ids.append(answer.json()["id"])
                    number += 1
                time.sleep(self._pause_s)


def pulls(kills: int = KILLS, seed: int = 0) -> dict[str, Any]:
    """`kills` links killed at random moments, their rsync left to itself, the server five times too, and the daemon's half in between.

    `pull_lost`: signals that were answered with 200 and are not stored. `pull_doubled`: those that are stored twice.
    """
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    with serving(backend="stub", allow_stub=True) as server:
        sender, daemon = Sender(server.address, 0.01), _Daemon(server.root / "home")
        try:
            within_s = 1.5 * _pull_s(server, daemon)
            for number in range(kills):
                _kill_a_link(server, daemon, within_s, rng)
                if number % max(1, kills // 5) == kills // 10:
                    server.end(signal.SIGKILL)
                    server.start()
        finally:
            sender.end()
        server.end()  # it publishes what is left
        server.start()  # and is alive for the link
        with _link(server):
            daemon.turn_until(lambda: set(sender.ids) <= set(daemon.stored()))
        stored = daemon.stored()
    lost, doubled = set(sender.ids) - set(stored), len(stored) - len(set(stored))
    return {"pull_lost": len(lost), "pull_doubled": doubled, "pull_kills": kills, "pull_signals": len(sender.ids), "pull_turns": daemon.turns}


def _kill_a_link(server: Serving, daemon: "_Daemon", within_s: float, rng: random.Random) -> None:
    """Kill a link at some moment of the time that one takes from its beginning until it has pulled."""
    with _link(server) as link:
        _wait(lambda: _begins(server, link), server)
        until = time.monotonic() + rng.random() * within_s
        while time.monotonic() < until:
            daemon.turn(rng)
            time.sleep(0.01)
        link.kill()


def _pull_s(server: Serving, daemon: "_Daemon") -> float:
    """How long a link takes from its beginning until what it pulled is stored."""
    with _link(server) as link:
        _wait(lambda: _begins(server, link), server)
        began = time.monotonic()
        _wait(lambda: daemon.turn() > 0, server)
        return time.monotonic() - began


def _begins(server: Serving, link: "subprocess.Popen[bytes]") -> bool:
    lock = server.root / "home" / "targets" / "near" / "link.lock"
    return lock.exists() and lock.read_text() == f"pid {link.pid}"


def _wait(condition: Callable[[], object], server: Serving) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"the link does not move:\n{(server.root / 'link.log').read_text()[-2000:]}")
        time.sleep(0.01)


@contextmanager
def _link(server: Serving) -> "Iterator[subprocess.Popen[bytes]]":
    with open(server.root / "link.log", "ab") as log:
        words = [sys.executable, "-m", "deploy", "link", str(server.root / "config.json"), "near"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


class _Died(Exception):
    """The daemon was killed."""


class _Daemon:
    """The daemon's half: its own reader of spools over its own shelf, begun anew now and then as after a kill between two of its steps."""

    def __init__(self, root: Path) -> None:
        from store.paths import Home

        self._home = Home(root)
        self._home.prepare()
        self.turns = 0  # that stored something
        self._begin()

    def _begin(self) -> None:
        from daemon.spools import Spools
        from store.feedback import Shelf

        self._dies = False
        self._shelf = Shelf(self._home)
        self._spools = Spools(self._home, self._take, lambda what: print(what, file=sys.stderr))

    def _take(self, signals: "Sequence[Signal]", now: datetime) -> None:
        from core.learning import FeedbackConfig

        self._shelf.add(signals, now, FeedbackConfig(source_cap=0, user_cap=0))
        if self._dies:
            raise _Died

    def turn(self, rng: random.Random | None = None) -> int:
        """Take in what is there; how many turns have stored something. With `rng`: one time in ten, die once it is stored and before it is noted how far."""
        self._dies = rng is not None and rng.random() < 0.1
        try:
            self.turns += self._spools.turn(["near"], datetime.now(UTC)) > 0
        except _Died:
            self._begin()
        return self.turns

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Turn until it holds, or nothing came for ten seconds."""
        until = time.monotonic() + 10.0
        while not condition() and time.monotonic() < until:
            before = self.turns
            self.turn()
            until = time.monotonic() + 10.0 if self.turns > before else until
            time.sleep(0.05)

    def stored(self) -> list[str]:
        """Ids of what is stored, as often as it is, from disk."""
        found = [json.loads(line) for path in (self._home.root / "feedback").glob("*/*/pending/*.jsonl") for line in path.read_text().splitlines()]
        return [line["signal"]["id"] for line in found if line.get("signal")]
