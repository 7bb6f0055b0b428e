"""How long a swap takes, and what a thousand of them leave behind in memory.

Figures of `scripts/bench serve`: `swap_s` (the routing table alone changes hands: from the wish being read to the next
request being answered by the new release, its bytes already on the box), `swap_slope_mb` (resident memory a swap, by least
squares over the second half of the swaps: the first warms allocators and caches up).
"""

import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.wire import Desired, Manifest, Wish
from rendering.specs import Message
from serving.activation import Agent, Ground
from serving.engines.port import Ask, Engine, Piece, Sampling
from store import codec
from store.keys import ensure_keys
from store.paths import Box
from store.seals import SEAL, hash_files
from store.wire import sign_desired, write_manifest

ALIAS = "default/main"
SWAPS = 1000
TIMED = 50
PAGE = os.sysconf("SC_PAGE_SIZE")
ANSWER_S = 120.0


class Bench:
    """A box with two releases that take turns. `fill` writes the adapter files of a version into a folder."""

    def __init__(self, root: Path, engine: Engine, fill: Callable[[Path, int], None]) -> None:
        self.keys, self.box, self.engine = root / "keys", Box(root / "serving"), engine
        ensure_keys(self.keys)
        self.box.prepare()
        self.agent = Agent(Ground(box=self.box, keys=self.keys, engine=engine, now=lambda: datetime.now(UTC), monotonic=time.monotonic))
        self.agent.start()
        self.releases = [self._send(root, version, fill) for version in (1, 2)]
        self._fence = 0
        self._live: str | None = None

    def swap(self) -> float:
        """Wish for the other release; seconds until a request is routed to it."""
        release = self.releases[0] if self._live != self.releases[0] else self.releases[1]
        self._fence += 1
        wish = Desired(fence=self._fence, aliases={ALIAS: Wish(release=release, replaces=self._live)}, fences={ALIAS: self._fence}, made_at=datetime.now(UTC))
        codec.write(self.box.desired, sign_desired(wish, self.keys), durable=False)
        began = time.perf_counter()
        self.agent.tick()
        with self.agent.routes.pin(ALIAS) as served:
            took = time.perf_counter() - began
            assert served.release == release, self.agent.ledger.aliases
        self._live = release
        return took

    def answer(self) -> str:
        """One short greedy answer of what is live."""
        ended, said = threading.Event(), [""]

        def hear(piece: Piece) -> None:
            said[0] += piece.text
            if piece.end or piece.error:
                ended.set()

        with self.agent.routes.pin(ALIAS) as served:
            greedy = Sampling(temperature=0.0, max_tokens=4)
            self.agent.engine.begin(Ask(blend=served.blend, messages=(Message("user", "Say hello."),), sampling=greedy), hear)
            assert ended.wait(ANSWER_S)
        return said[0]

    def _send(self, root: Path, version: int, fill: Callable[[Path, int], None]) -> str:
        made = root / f"made-{version}"
        made.mkdir()
        fill(made, version)
        base = self.engine.base
        manifest = Manifest(
            format=1,
            adapter=ALIAS,
            version=version,
            job="bench",
            backend=self.engine.backend,
            base_sha256=base.base_sha256,
            tokenizer_sha256=base.tokenizer_sha256,
            template_sha256=base.template_sha256,
            parent=None,
            checkpoint_sha256="0" * 64,
            verdict_sha256="0" * 64,
            drops=(),
            created_at=datetime.now(UTC),
            files=hash_files(made),
        )
        release = write_manifest(made, manifest, self.keys)
        (made / SEAL).write_text("arrived\n")
        made.rename(self.box.incoming / f"{release}.1")
        return release


def swap_s(bench: Bench, swaps: int = TIMED) -> dict[str, float]:
    """Median and worst of `swaps` swaps between two releases that lie loaded, after each has been live once."""
    for _ in range(2):
        bench.swap()
    took = [bench.swap() for _ in range(swaps)]
    return {"swap_s": statistics.median(took), "swap_worst_s": max(took)}


def swap_slope_mb(bench: Bench, swaps: int = SWAPS, answers_every: int = 10) -> float:
    """MiB of resident memory that each swap adds, with an answer now and then."""
    sizes = []
    for number in range(swaps):
        bench.swap()
        if number % answers_every == 0:
            bench.answer()
        if number >= swaps // 2:
            sizes.append(_resident_mb())
    gc.collect()
    return _slope(sizes)


def reload_slope_mb(engine: Engine, release: str, folder: Path, times: int) -> float:
    """MiB of resident memory that each unload and load of a release adds: what a swap to a release that never was here costs."""
    sizes = []
    for number in range(times):
        engine.unload(release)
        engine.load(release, folder)
        if number >= times // 2:
            sizes.append(_resident_mb())
    return _slope(sizes)


def stub_adapter(folder: Path, version: int) -> None:
    """Adapter files of the stub."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "made_up": true}')
    (folder / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes([version]))
    side = {"ids": [1], "logprobs": [-0.5]}
    (folder / "probe.jsonl").write_text(json.dumps({"prompt": "Hi", "prompt_ids": [3], "base": side, "adapter": side, "made_up": True}) + "\n")


def measure() -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents): of everything around a model, with the engine that has none."""
    from serving.engines.stub import StubEngine

    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), StubEngine("stub", max_new_tokens=4), stub_adapter)
        figures: dict[str, Any] = swap_s(bench)
        figures["swap_slope_mb"] = swap_slope_mb(bench)
        bench.engine.close()
    return figures, {}


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / (1 << 20)


def _slope(values: Sequence[float]) -> float:
    places = range(len(values))
    return statistics.linear_regression(places, values).slope
