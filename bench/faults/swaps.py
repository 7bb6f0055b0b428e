"""F29 and F30: a release takes another's place while clients listen to it; and prompts that the release before had read.

On a tiny base whose adapters were taught different words (`shelves`), by the engine on torch and by llama.cpp: an answer shows
whose it is, and no rounding changes it.
"""

import itertools
import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from circle import Circle

from bench.faults import Outcome, Trial, fault
from bench.faults.shelves import ENGINES, MARKERS, TOKENS, WORDS, Shelf, question

ALIAS = "default/main"
CLIENTS = 8
SWAPS, UNGUARDED_SWAPS = 6, 5  # of three releases in turn: one has left the engine before its turn comes again, so each swap loads one
BEFORE = 48  # answers, then the first swap
PATIENCE_S = 60.0
LONG = "All the rain of the world falls into the sea . " * 12  # several pieces of torch's cache of beginnings
CACHE_MB = 64
NOISE = 0.02  # nats, as in the probe: llama.cpp adds up in another order where a prompt's beginning lies in its cache


# ---------------------------------------------------------------- clients that listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One streamed answer: the release of its header, the versions that its chunks name, and why it is none."""

    word: str
    began: float
    ended: float
    release: str = ""
    names: frozenset[str] = frozenset()
    text: str = ""
    fault: str = ""

    @property
    def said(self) -> tuple[frozenset[str], str]:
        """What is the same whenever this release answers this prompt."""
        return self.names, self.text


def listen(client: httpx.Client, word: str) -> Heard:
    """One greedy answer, to its end."""
    body: dict[str, Any] = {"model": ALIAS, "messages": [{"role": "user", "content": question(word)}], "stream": True}
    body |= {"temperature": 0, "repetition_penalty": 1, "max_tokens": TOKENS}
    began, release, chunks, fault = time.monotonic(), "", [], ""
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            release = answer.headers.get("x-lorad-release", "")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        chunks = [json.loads(line) for line in lines if line != "[DONE]"]
        whole = lines[-1:] == ["[DONE]"] and chunks[-1]["choices"][0]["finish_reason"] == "length"  # as all were taught
        fault = "" if answer.status_code == 200 and whole else f"{answer.status_code}: {lines[-2:]}"
    except (httpx.HTTPError, ValueError, LookupError) as error:
        fault = f"{type(error).__name__}: {error}"
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    names = frozenset(str(chunk.get("model")) for chunk in chunks)
    return Heard(word=word, began=began, ended=time.monotonic(), release=release, names=names, text=text, fault=fault)


@contextmanager
def clients(address: str) -> Iterator[list[Heard]]:
    """Eight that ask again and again until the context ends; what they have heard so far."""
    heard: list[Heard] = []
    enough = threading.Event()

    def ask_on(number: int) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            for place in itertools.count(number):
                if enough.is_set():
                    return
                heard.append(listen(client, WORDS[place % len(WORDS)]))

    with ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(ask_on, number) for number in range(CLIENTS)]
        try:
            yield heard
        finally:
            enough.set()
    for one in asking:
        one.result()


@dataclass(slots=True, kw_only=True)
class Swapped:
    """What clients heard of one engine. `cold`: (release, word) -> what it says while nothing else is asked."""

    cold: dict[tuple[str, str], tuple[frozenset[str], str]] = field(default_factory=dict)
    before: list[Heard] = field(default_factory=list)
    during: list[Heard] = field(default_factory=list)
    flips: list[tuple[float, str]] = field(default_factory=list)  # when, and the release that had to leave

    def figures(self) -> dict[str, Any]:
        """`across`: answers that a release ended after another had taken its place."""
        heard = [*self.before, *self.during]
        answers = [one for one in heard if not one.fault]
        mixed = [one for one in answers if self.cold.get((one.release, one.word)) != one.said]
        across = [one for one in answers if any(one.began < at < one.ended and one.release == left for at, left in self.flips)]
        early, late = ([one.ended - one.began for one in some if not one.fault] for some in (self.before, self.during))
        figures: dict[str, Any] = {"requests": len(heard), "dropped": len(heard) - len(answers), "mixed": len(mixed), "swaps": len(self.flips)}
        return figures | {"across": len(across), "p99_ratio": round(p99(late) / p99(early), 2) if early and late else None}


def p99(values: Sequence[float]) -> float:
    """The smallest value that 99 of 100 do not exceed."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


class Live:
    """A real serving process with this engine, and the releases on its box."""

    def __init__(self, circle: Circle, shelf: Shelf, engine: str) -> None:
        from inference_box import World

        serving = {"port": circle.port, "engine": engine, "threads": 1, "streams": CLIENTS}
        circle.configure(backend="auto", models_dir=str(shelf.models), model_name=shelf.base.name, serving=serving)
        self.circle, self.world = circle, World(circle.home)
        self.releases = shelf.pack(self.world, engine)
        for release in self.releases:
            self.world.send(release)
        circle.start_serving()

    def swap(self, release: str) -> str:
        """Wish for it, and wait until it is live. Returns what was live before."""
        left = self.world.live() or ""
        fence = self.world.wish(release, left or None)
        self.circle.wait(lambda: self.world.live() and self.world.state().fence == fence, "the wish is answered", PATIENCE_S)
        assert self.world.live() == release, self.world.state()
        return left

    def cold(self) -> dict[tuple[str, str], tuple[frozenset[str], str]]:
        """Each release asked for each word, one at a time."""
        said = {}
        for release in self.releases:
            self.swap(release)
            with httpx.Client(base_url=self.circle.address, timeout=PATIENCE_S) as client:
                self.circle.wait(lambda release=release: listen(client, WORDS[0]).release == release, "the routes have followed", PATIENCE_S)  # type: ignore[misc]
                said |= {(release, word): listen(client, word).said for word in WORDS}
        taught = dict(zip(self.releases, MARKERS, strict=True))
        assert all(text.startswith(f"{taught[release]} ") for (release, _), (_, text) in said.items()), said
        return said


def swap_under(live: Live, swaps: int) -> Swapped:
    """Eight clients listen; then one swap after the other, each when its release has answered all of them."""
    found = Swapped(cold=live.cold())
    with clients(live.circle.address) as heard:
        live.circle.wait(lambda: len(heard) >= BEFORE, "answers come", PATIENCE_S)
    found.before = heard
    with clients(live.circle.address) as heard:
        for release in itertools.islice(itertools.cycle(live.releases), swaps):
            left = live.swap(release)
            found.flips.append((time.monotonic(), left))
            live.circle.wait(lambda release=release: sum(one.release == release for one in heard) >= CLIENTS, f"{release[:12]} answers", PATIENCE_S)  # type: ignore[misc]
    found.during = heard
    return found


@fault("F29", "swap while 8 clients stream", guard="an answer ends on the release that it began with, which stays loaded so long", without="pinned_answers")
def swap_under_load(trial: Trial) -> Outcome:
    shelf = Shelf(trial.folder / "models")
    by_engine = {}
    for engine in ENGINES:
        live = Live(trial.circle(), shelf, engine)
        by_engine[engine] = swap_under(live, SWAPS if trial.guarded else UNGUARDED_SWAPS).figures()
        live.circle.serving.terminate()
        live.circle.serving.exit_status()
    whole = [not figures["dropped"] and not figures["mixed"] for figures in by_engine.values()]
    held = all(whole) and all(figures["across"] for figures in by_engine.values()) if trial.guarded else any(whole)
    figure = {name: sum(figures[name] for figures in by_engine.values()) for name in ("requests", "dropped", "mixed", "swaps")}
    figure["p99_ratio"] = {engine: figures["p99_ratio"] for engine, figures in by_engine.items()}
    across = ", ".join(f"{engine} {figures['across']}" for engine, figures in by_engine.items())
    return Outcome(held=held, figure=figure, note=f"answers that ran on while another release took over: {across}")


# ---------------------------------------------------------------- prompts that were read before


@dataclass(frozen=True, slots=True)
class Told:
    """An answer with its numbers: the log-probabilities (nats) of its tokens and of those beside them."""

    text: str
    logprobs: tuple[float, ...]
    cached_tokens: int

    def away(self, other: "Told") -> float:
        """Largest difference of a log-probability."""
        return max(abs(one - two) for one, two in zip(self.logprobs, other.logprobs, strict=False))


class Box:
    """An inference box in this process, which serves by one engine. A start restores what was live, with empty caches."""

    def __init__(self, root: Path, shelf: Shelf, engine: str) -> None:
        from inference_box import World

        self.world = World(root)
        self.first, self.second, *_ = self.releases = shelf.pack(self.world, engine)
        for release in self.releases:
            self.world.send(release)
        self._open = lambda: shelf.engine(engine)  # one stream: every answer takes the same slot
        self.start()

    def start(self) -> None:
        """Serve by a new engine."""
        self._engine = self._open()
        self._agent = self.world.agent(self._engine)

    def end(self) -> None:
        """Free the engine."""
        self._engine.close()

    def swap(self, release: str) -> None:
        """It goes live."""
        self.world.wish(release, self.world.live())
        self._agent.tick()
        assert self.world.live() == release, self.world.state()

    def ask(self, text: str = LONG) -> Told:
        """A greedy answer of what is live."""
        from rendering.specs import Message
        from serving.engines.port import Ask, Piece, Sampling

        pieces: list[Piece] = []
        ended = threading.Event()

        def hear(piece: Piece) -> None:
            pieces.append(piece)
            if piece.end or piece.error:
                ended.set()

        sampling = Sampling(temperature=0, repetition_penalty=1, max_tokens=12, logprobs=3, logit_bias={2: -100.0})
        with self._agent.routes.pin(ALIAS) as served:
            running = self._agent.engine.begin(Ask(blend=served.blend, messages=(Message("user", text),), sampling=sampling), hear)
            assert ended.wait(PATIENCE_S), "it never ended"
        assert pieces[-1].error is None, pieces[-1].error
        chosen = [token for piece in pieces for token in piece.tokens]
        numbers = tuple(likely.logprob for one in chosen for likely in (one.token, *one.top))
        return Told("".join(piece.text for piece in pieces), numbers, running.cached_tokens)

    def hot_and_cold(self) -> tuple[list[Told], list[Told]]:
        """Both releases' answers after the other one has read the prompt, and those of a box that has just started."""
        self.swap(self.first)
        fresh, again = self.ask(), self.ask()
        assert again.cached_tokens > fresh.cached_tokens == 0, "there is a cache"
        hot, cold = [], []
        for release in (self.second, self.first):
            self.swap(release)
            self.ask("Tell me about rain.")  # llama.cpp would put away what its slot holds, and find it again by tokens
            hot.append(self.ask())
        for release in (self.second, self.first):
            self.swap(release)
            self.end()
            self.start()
            cold.append(self.ask())
        return hot, cold


def _blind() -> list[Any]:
    """Caches that look at the tokens alone: torch's beginnings, and llama.cpp's own one across slots."""
    from serving.engines import llama_server
    from serving.engines.prefixes import Prefixes

    keys, complete, params = Prefixes.keys, llama_server.LlamaServer.complete, llama_server._params

    def of_tokens(self: Any, blend: Any, merged: bool, ids: Any) -> Iterator[bytes]:
        return keys(self, (), merged, ids)

    def by_any_slot(self: Any, blend: Any, slot: Any, request: Any, hear: Any) -> None:
        complete(self, blend, llama_server.Slot(number=-1, is_warm=True), request, hear)

    def keeping(*args: Any) -> Any:
        made = params(*args)
        made.cache_ram_mib = CACHE_MB
        return made

    server = llama_server.LlamaServer
    return [patch.object(Prefixes, "keys", of_tokens), patch.object(server, "complete", by_any_slot), patch.object(llama_server, "_params", keeping)]


@fault("F30", "a prompt that the release before had read", guard="what a cache keeps of a prompt is found again only by the blend that computed it")
def cache_across_releases(trial: Trial) -> Outcome:
    shelf = Shelf(trial.folder / "models")
    away, equal = {}, {}
    with ExitStack() as gone:
        for one in [] if trial.guarded else _blind():
            gone.enter_context(one)
        for engine in ENGINES:
            box = Box(trial.folder / engine, shelf, engine)
            try:
                hot, cold = box.hot_and_cold()
            finally:
                box.end()
            away[engine] = max(one.away(other) for one, other in zip(hot, cold, strict=True))
            equal[engine] = [one.text for one in hot] == [one.text for one in cold] and away[engine] <= NOISE
    figure = {"max_abs_diff": max(away.values()), "by_engine": away}
    return Outcome(held=all(equal.values()) if trial.guarded else any(equal.values()), figure=figure, note="nats; the cold server is the box after a restart")
