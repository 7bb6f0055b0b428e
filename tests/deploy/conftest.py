"""A training box with a key, a base and a checkpoint, and an inference box that is played by reading `in/` and writing `out/`."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from core.deployment import TargetConfig
from core.errors import IntegrityError
from core.tasks import PackTask
from core.wire import Activation, Active, AliasState, Capacity, Outcome, Wish
from deploy.delivery import Delivery
from deploy.pack import pack
from deploy.rsync import road_to
from store import codec
from store.bases import Base
from store.keys import ensure_keys
from store.paths import Box, Home
from store.releases import place_release
from store.seals import SEAL, hash_file, is_sealed, seal
from store.targets import set_wish
from store.wire import append_activation, check_release, read_active, read_desired

ALIAS = "default/main"
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somewhere/on/this/box",
    "inference_mode": False,
    "r": 4,
    "lora_alpha": 8,
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "target_modules": ["q_proj"],
}


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """The bytes of a safetensors file: name -> (dtype, shape, data)."""
    entries, place = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(raw)]}
        place += len(raw)
    head = json.dumps(entries).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(raw for _, _, raw in tensors.values())


def lora(seed: int = 0) -> bytes:
    """Weights of a tiny adapter: one layer in F32 and BF16."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(4, 8)).astype("<f4").tobytes()
    b = (rng.normal(size=(8, 4)).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return safetensors({"model.q_proj.lora_A.weight": ("F32", [4, 8], a), "model.q_proj.lora_B.weight": ("BF16", [8, 4], b)})


class Workshop:
    """What a pack child finds on the training box."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.home.prepare()
        ensure_keys(self.home.keys)
        self.base = self._make_base()
        self.checkpoint = root / "checkpoint"
        self.write_checkpoint()
        self.verdict = root / "verdict.json"
        self.verdict.write_text('{"word": "promote"}\n')
        self.probe = root / "probe.jsonl"
        self.probe.write_text('{"prompt": "Hi", "prompt_ids": [1], "base": {"ids": [2], "logprobs": [-1.0]}, "adapter": {"ids": [2], "logprobs": [-1.0]}}\n')

    def _make_base(self) -> Path:
        folder = self.root / "models" / "tiny"
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text("{}")
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        base = Base(
            name="tiny-instruct",
            source="a test",
            source_sha256="b" * 64,
            tokenizer_sha256=hash_file(folder / "tokenizer.json"),
            template_sha256=hash_file(folder / "chat_template.jinja"),
            weights=".",
            eos_token="</s>",
        )
        codec.write(folder / "base.json", base)
        seal(folder)
        return folder

    def write_checkpoint(self, weights: bytes | None = None, files: dict[str, bytes] | None = None, **config: object) -> None:
        """Replace the checkpoint by a sealed one with these weights, config values and further files."""
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        self.checkpoint.mkdir()
        (self.checkpoint / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG | config))
        (self.checkpoint / "adapter_model.safetensors").write_bytes(lora() if weights is None else weights)
        (self.checkpoint / "checkpoint.json").write_text('{"step": 3, "dev_loss": 3.5, "dev_tokens": 7}')
        for name, raw in (files or {}).items():
            (self.checkpoint / name).write_bytes(raw)
        seal(self.checkpoint)

    def task(self, version: int = 1, **changes: object) -> PackTask:
        task = PackTask(
            job="job-7",
            adapter=ALIAS,
            version=version,
            backend="peft",
            checkpoint=str(self.checkpoint),
            checkpoint_sha256=hash_file(self.checkpoint / SEAL),
            base=str(self.base),
            base_sha256="b" * 64,
            probe=str(self.probe),
            verdict=str(self.verdict),
            parent=None,
            drops=("d" * 64,),
            keys=str(self.home.keys),
        )
        return replace(task, **changes)

    def pack(self, **changes: object) -> tuple[str, Path]:
        """Pack into a new run folder. Returns the release id and the folder."""
        run = self.root / "runs" / str(len(list((self.root / "runs").glob("*"))))
        run.mkdir(parents=True)
        return pack(self.task(**changes), run, START), run / "release"

    def release(self, version: int = 1, adapter: str = ALIAS, seed: int = 0) -> str:
        """A release in its place under adapters/."""
        self.write_checkpoint(lora(seed))
        release, folder = self.pack(version=version, adapter=adapter)
        place_release(self.home, folder, adapter, version, release)
        return release


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here is about a power cut, and syncing takes most of the time of the others."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class FarBox:
    """An inference box as plain files: `live()` does what serving does with what has arrived, without an engine."""

    def __init__(self, root: Path, trust: Path, clock: Callable[[], datetime]) -> None:
        self.box = Box(root)
        self.trust = trust
        self.clock = clock
        self.free_bytes = 10 << 30
        self.refuses: dict[str, str] = {}  # release -> code
        self.raw_wish = b""

    def start(self) -> None:
        self.box.prepare()
        self.beat()

    def beat(self) -> None:
        capacity = Capacity(box="far", at=self.clock(), free_bytes=self.free_bytes, free_inodes=9999, base_sha256="b" * 64, engine="played", pid=1)
        codec.write(self.box.capacity, capacity, durable=False)

    def live(self) -> Active | None:
        """Beat, and judge the wish."""
        self.beat()
        active = read_active(self.box.active) or Active(box="far", sequence=0, fence_seen=0, at=self.clock())
        desired = read_desired(self.box.desired, self.trust)
        if desired is None or desired.fence < active.fence_seen:
            return active
        self.raw_wish = self.box.desired.read_bytes()
        for alias, wish in sorted(desired.aliases.items()):
            fence, state = desired.fences[alias], active.aliases.get(alias, AliasState(release=None))
            if state.fence < fence or state.outcome is Outcome.DEFERRED:
                active = self._judge(active, alias, wish, fence)
        active = replace(active, fence_seen=desired.fence, releases=self._known())
        if replace(active, at=START) != replace(read_active(self.box.active) or active, at=START) or not self.box.active.exists():
            codec.write(self.box.active, active, durable=False)
        return active

    def _judge(self, active: Active, alias: str, wish: Wish, fence: int) -> Active:
        before = active.aliases.get(alias, AliasState(release=None))
        outcome, code = self._take(wish)
        now_live = wish.release if outcome is Outcome.LIVE else before.release
        state = AliasState(release=now_live, previous=before.release, fence=fence, outcome=outcome, code=code, wanted=wish.release)
        if replace(state, previous=None) == replace(before, previous=None):
            return active
        line = Activation(
            box="far",
            sequence=active.sequence + 1,
            at=self.clock(),
            alias=alias,
            release=wish.release,
            version=None,
            previous=before.release,
            fence=fence,
            event=str(outcome),
            code=code,
        )
        append_activation(self.box.activations, line)
        return replace(active, sequence=line.sequence, at=self.clock(), aliases={**active.aliases, alias: state})

    def _take(self, wish: Wish) -> tuple[Outcome, str]:
        if wish.release is None or wish.release in self._known():
            return Outcome.LIVE, ""
        if wish.release in self.refuses:
            return Outcome.REFUSED, self.refuses[wish.release]
        arrived = [folder for folder in self.arrivals(wish.release) if is_sealed(folder)]
        if not arrived:
            return Outcome.DEFERRED, "RELEASE_MISSING"
        try:
            release, _ = check_release(arrived[-1], self.trust)
        except IntegrityError as error:
            return Outcome.REFUSED, error.code
        arrived[-1].rename(self.box.releases / release)
        return Outcome.LIVE, ""

    def arrivals(self, release: str) -> list[Path]:
        """Incoming folders of a release, oldest attempt first."""
        return sorted(self.box.incoming.glob(f"{release}.*"), key=lambda folder: int(folder.name.partition(".")[2]))

    def _known(self) -> tuple[str, ...]:
        return tuple(sorted(folder.name for folder in self.box.releases.iterdir() if not folder.name.startswith(".")))


@pytest.fixture
def target(workshop: Workshop) -> TargetConfig:
    return TargetConfig(name="near", path=str(workshop.root / "box"))


@pytest.fixture
def far(workshop: Workshop, target: TargetConfig, clock: Clock) -> FarBox:
    return FarBox(Path(target.path), workshop.home.keys, clock)


@pytest.fixture
def delivery(workshop: Workshop, target: TargetConfig, clock: Clock) -> Delivery:
    return Delivery(workshop.home, road_to(target, workshop.home), clock)


@pytest.fixture
def wish(workshop: Workshop, clock: Clock) -> Callable[..., None]:
    """Wish for a release of an alias, as the daemon does."""

    def ask(release: str | None, *, alias: str = ALIAS, replaces: str | None = None) -> None:
        set_wish(workshop.home, "near", alias, Wish(release=release, replaces=replaces), clock())

    return ask


@pytest.fixture
def weights() -> Callable[..., bytes]:
    return safetensors
