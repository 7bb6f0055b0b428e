"""A real serving process with the real base under load: what swaps do to its answers, and what becomes of those who must wait."""

import json
import math
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench.serve_markers import ALIAS, WORDS, Marked, Pair, pair, question
from core.wire import Desired, Wish
from store import codec
from store.paths import Box
from store.seals import SEAL
from store.wire import read_active, sign_desired

LORAD = str(Path(sys.executable).with_name("lorad"))
CLIENTS = 8
SWAPS = 50
REQUESTS = 10_000
TOKENS = 8
BEFORE = 5  # one in so many requests again, before the first swap
USERS = 10
USER_TOKENS = 64
PATIENCE_S = 300.0
LOOK_S = 0.005
GREEDY = {"temperature": 0, "repetition_penalty": 1, "max_tokens": TOKENS}


class ServingBox:
    """A box with both releases on it, and its process while `running`."""

    def __init__(self, root: Path, made: Pair) -> None:
        self.root, self.box, self._keys = root, Box(root / "serving"), made.keys
        self.box.prepare()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        serving = {"port": self._port, "home": str(self.box.root), "trust": str(made.keys)}
        (root / "config.json").write_text(json.dumps({"home": str(root / "home"), "serving": serving}))
        self._fence = 0
        self.live: str | None = None
        for each in made.releases:
            _arrive(each, self.box)

    @property
    def address(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self._port}"

    @contextmanager
    def running(self) -> Iterator["ServingBox"]:
        """From ready to its end."""
        with open(self.root / "serve.log", "wb") as log:
            process = subprocess.Popen([LORAD, "serve", "--config", str(self.root / "config.json")], stdout=log, stderr=log)
        try:
            _wait(lambda: self._is_ready(process), "serving is ready")
            yield self
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def swap(self, release: str) -> float:
        """Wish for a release; seconds until active.json names it."""
        self._fence += 1
        wish = Desired(fence=self._fence, aliases={ALIAS: Wish(release=release, replaces=self.live)}, fences={ALIAS: self._fence}, made_at=datetime.now(UTC))
        began = time.perf_counter()
        codec.write(self.box.desired, sign_desired(wish, self._keys))
        _wait(lambda: self._serves(release), f"{release[:12]} is live")
        self.live = release
        return time.perf_counter() - began

    def settle(self, client: httpx.Client) -> None:
        """Wait until a request is answered by what is live: the routes follow active.json by a moment."""
        _wait(lambda: ask(client, "nothing").release == self.live, "the routes have followed")

    def _serves(self, release: str) -> bool:
        active = read_active(self.box.active)
        state = active.aliases.get(ALIAS) if active else None
        if state is not None and state.fence == self._fence and state.release != release:
            raise RuntimeError(f"the box said {state.code}: {state.reason}")
        return state is not None and state.release == release

    def _is_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"lorad serve ended:\n{(self.root / 'serve.log').read_text()[-2000:]}")
        try:
            return httpx.get(f"{self.address}/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False


def _arrive(each: Marked, box: Box) -> None:
    """As the road brings it: the payload, then its seal."""
    place = box.incoming / f"{each.release}.1"
    shutil.copytree(each.folder, place, ignore=shutil.ignore_patterns(SEAL))
    shutil.copyfile(each.folder / SEAL, place / SEAL)


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer: what was asked, which release it names, its text, how long it took, and why it is none."""

    word: str
    release: str
    text: str
    took_s: float
    fault: str = ""


@dataclass(slots=True)
class Load:
    """Clients that ask without a pause until `num` answers are in and `go_on` is cleared."""

    box: ServingBox
    num: int
    go_on: threading.Event = field(default_factory=threading.Event)
    heard: list[Heard] = field(default_factory=list)

    def run(self) -> list[threading.Thread]:
        """Start them."""
        threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def _client(self, number: int) -> None:
        place = number
        with httpx.Client(base_url=self.box.address, timeout=PATIENCE_S) as client:
            while len(self.heard) < self.num or self.go_on.is_set():
                self.heard.append(ask(client, WORDS[place % len(WORDS)]))
                place += CLIENTS + 1


def ask(client: httpx.Client, word: str) -> Heard:
    """One greedy answer of at most eight tokens."""
    body = {"model": ALIAS, "messages": [{"role": "user", "content": question(word)}]} | GREEDY
    began = time.perf_counter()
    try:
        answer = client.post("/v1/chat/completions", json=body)
        took_s = time.perf_counter() - began
        if answer.status_code != 200:
            return Heard(word, "", "", took_s, f"{answer.status_code}: {answer.text[:200]}")
        return Heard(word, answer.headers["x-lorad-release"], answer.json()["choices"][0]["message"]["content"], took_s)
    except (httpx.HTTPError, ValueError, LookupError) as error:
        return Heard(word, "", "", time.perf_counter() - began, f"{type(error).__name__}: {error}")


def under_load(requests: int = REQUESTS) -> dict[str, Any]:
    """`requests`, `dropped`, `mixed`, `p99_ratio`, and how long a wish took to be live under load."""
    made = pair()
    swaps = max(4, min(SWAPS, requests // (REQUESTS // SWAPS)))
    with tempfile.TemporaryDirectory() as name:
        cold = {each.release: _cold(Path(name) / each.marker, made, each) for each in made.releases}
        root = Path(name) / "hot"
        root.mkdir()
        with ServingBox(root, made).running() as box:
            with httpx.Client(base_url=box.address, timeout=PATIENCE_S) as client:
                for each in made.releases:
                    box.swap(each.release)
                    box.settle(client)
            before = Load(box, max(CLIENTS, requests // BEFORE))
            for thread in before.run():
                thread.join()
            took, during = _swap_under(box, made, swaps, requests)
    right = sum(cold[each.release][word].startswith(each.marker) and word in cold[each.release][word] for each in made.releases for word in WORDS)
    return judged(before.heard, during, cold) | {
        "swaps": swaps,
        "live_under_load_s": round(statistics.median(took), 3),
        "live_under_load_worst_s": round(max(took), 3),
        "markers_learnt": f"{right} of {len(WORDS) * len(made.releases)}",
    }


def _cold(root: Path, made: Pair, each: Marked) -> dict[str, str]:
    """What a server that never served anything else answers, one question at a time."""
    root.mkdir()
    with ServingBox(root, made).running() as box, httpx.Client(base_url=box.address, timeout=PATIENCE_S) as client:
        box.swap(each.release)
        box.settle(client)
        answers = [ask(client, word) for word in WORDS]
    assert {one.release for one in answers} == {each.release}, [one.fault for one in answers]
    return {one.word: one.text for one in answers}


def _swap_under(box: ServingBox, made: Pair, swaps: int, requests: int) -> tuple[list[float], list[Heard]]:
    """Swaps spread over the requests: the next one when its share of them is answered."""
    load = Load(box, requests)
    load.go_on.set()
    threads, took = load.run(), []
    for number in range(swaps):
        share = number * requests // swaps
        _wait(lambda share=share: len(load.heard) >= share, "answers come")  # type: ignore[misc]
        took.append(box.swap(next(each.release for each in made.releases if each.release != box.live)))
    load.go_on.clear()
    for thread in threads:
        thread.join()
    return took, load.heard


def judged(before: Sequence[Heard], during: Sequence[Heard], cold: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The figures of what was heard. `cold`: release -> word -> what a cold server of that release answers."""
    answers = [one for one in during if not one.fault]
    dropped = [one.fault for one in (*before, *during) if one.fault]
    mixed = [one for one in (*before, *during) if not one.fault and cold.get(one.release, {}).get(one.word) != one.text]
    early, late = p99([one.took_s for one in before if not one.fault]), p99([one.took_s for one in answers])
    figures: dict[str, Any] = {"requests": len(during), "dropped": len(dropped), "mixed": len(mixed), "p99_ratio": round(late / early, 2)}
    figures |= {"p99_before_ms": round(early * 1000), "p99_during_ms": round(late * 1000)}
    figures["answered_by"] = {release[:12]: count for release, count in Counter(one.release for one in answers).items()}
    if dropped:
        figures["dropped_why"] = Counter(dropped).most_common(3)
    if mixed:
        figures["mixed_seen"] = [(one.release[:12], one.word, one.text, cold.get(one.release, {}).get(one.word)) for one in mixed[:3]]
    return figures


def p99(values: Sequence[float]) -> float:
    """The smallest value that 99 of 100 do not exceed; NaN of none."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1] if values else math.nan


def waiting_users() -> dict[str, Any]:
    """Ten users of the conversation service at the same moment: `queued_lost` of them got neither an answer nor a refusal that says when."""
    made = pair()
    with tempfile.TemporaryDirectory() as name, ServingBox(Path(name), made).running() as box:
        box.swap(made.releases[0].release)
        start, told = threading.Barrier(USERS), [list[dict[str, Any]]() for _ in range(USERS)]
        threads = [threading.Thread(target=_chat, args=(box.address, start, told[user]), daemon=True) for user in range(USERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return queued(told)


def _chat(address: str, start: threading.Barrier, told: list[dict[str, Any]]) -> None:
    """One user's message; every event of the answer."""
    body = {"message": "Tell me a long story about a bicycle.", "length": "long", "max_tokens": USER_TOKENS, "stream": True, "temperature": 1.0}
    start.wait()
    try:
        with httpx.stream("POST", f"{address}/api/ai-echo/chat", json=body, timeout=PATIENCE_S) as answer:
            if answer.status_code != 200:
                told.append({"type": "refused", "status": answer.status_code, "retry_after": answer.headers.get("retry-after")})
                return
            told.extend(json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: {"))
    except httpx.HTTPError as error:
        told.append({"type": "lost", "why": f"{type(error).__name__}: {error}"})


def queued(told: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The figures of what each user was told."""
    kinds = [{str(event["type"]) for event in events} for events in told]
    refused = sum(any(event["type"] == "refused" and event["status"] == 429 and event["retry_after"] for event in events) for events in told)
    served = sum("done" in kind for kind in kinds)
    positions = sorted(events[0]["position"] for events in told if events and events[0]["type"] == "queued")
    return {
        "queued_users": len(told),
        "queued_served": served,
        "queued_positions": positions,
        "queued_refused": refused,
        "queued_lost": len(told) - served - refused,
    }


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s in vain: {what}")
        time.sleep(LOOK_S)
