"""An inference box in a temporary folder, and the training box's side of it: pack, send, wish."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.answering import ProfileRecord
from core.wire import Activation, Active, AliasState, Desired, Manifest, Wish
from serving.activation import Agent, Ground
from serving.engines.port import Engine
from serving.engines.stub import StubEngine
from store import codec
from store.bases import STUB_BASE
from store.keys import ensure_keys
from store.paths import Box
from store.seals import SEAL, hash_files
from store.wire import read_activations, read_active, sign_desired, write_manifest

START = datetime(2026, 1, 1, tzinfo=UTC)
ALIAS = "default/main"
MODEL = "tiny"


@dataclass(slots=True, kw_only=True)
class Clock:
    """Time that stands still until a test moves it."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a release is made; `adapter` fills the folder with its adapter files and probe."""

    alias: str = ALIAS
    version: int = 1
    backend: str = "stub"
    base: str = STUB_BASE
    tokenizer: str = STUB_BASE
    template: str = STUB_BASE
    fill: Callable[[Path], None] | None = None
    keys: Path | None = None
    profile: ProfileRecord | None = None


def stub_adapter(folder: Path) -> None:
    """Adapter files as the stub trainer's pack holds them."""
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "made_up": true}')
    (folder / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    side = {"ids": [1, 2], "logprobs": [-0.5, -0.25]}
    (folder / "probe.jsonl").write_text(json.dumps({"prompt": "Hi", "prompt_ids": [3], "base": side, "adapter": side, "made_up": True}) + "\n")


@dataclass(slots=True)
class World:
    """Both boxes, in one folder."""

    root: Path
    clock: Clock = field(default_factory=Clock)
    fence: int = 0
    fences: dict[str, int] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ensure_keys(self.keys)
        self.box.prepare()

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def box(self) -> Box:
        return Box(self.root / "serving")

    # The training box

    def pack(self, recipe: Recipe | None = None, **changes: Any) -> str:
        """Make a release at `packed/<id>`; returns its id."""
        recipe = recipe or Recipe(**changes)
        made = self.root / "packed" / "making"
        made.mkdir(parents=True)
        (recipe.fill or stub_adapter)(made)
        for name in ("tokenizer.json", "chat_template.jinja", "verdict.json"):
            (made / name).write_text("{}")
        manifest = Manifest(
            format=1,
            adapter=recipe.alias,
            version=recipe.version,
            job="job",
            backend=recipe.backend,
            base_sha256=recipe.base,
            tokenizer_sha256=recipe.tokenizer,
            template_sha256=recipe.template,
            parent=None,
            checkpoint_sha256="0" * 64,
            verdict_sha256="0" * 64,
            drops=("0" * 64,),
            created_at=START + timedelta(days=recipe.version),
            files=hash_files(made),
            profile=recipe.profile,
        )
        release = write_manifest(made, manifest, recipe.keys or self.keys)
        made.rename(self.packed(release))
        return release

    def packed(self, release: str) -> Path:
        return self.root / "packed" / release

    def send(self, release: str, attempt: int = 1, *, sealed: bool = True) -> Path:
        """Put a release into incoming, as rsync does: payload, then SEALED."""
        folder = self.box.incoming / f"{release}.{attempt}"
        shutil.copytree(self.packed(release), folder)
        if sealed:
            (folder / SEAL).write_text("arrived\n")
        return folder

    def wish(self, release: str | None, replaces: str | None, *, alias: str = ALIAS, allow: bool = False) -> int:
        """Change one alias of the wish and send the whole; returns the fence."""
        self.fence += 1
        self.fences[alias] = self.fence
        self.wishes[alias] = Wish(release=release, replaces=replaces, allow=allow)
        self.write_wish(Desired(fence=self.fence, aliases=dict(self.wishes), fences=dict(self.fences), made_at=START))
        return self.fence

    def write_wish(self, desired: Desired, keys: Path | None = None) -> None:
        codec.write(self.box.desired, sign_desired(desired, keys or self.keys))

    def release(self, replaces: str | None, **changes: Any) -> str:
        """Pack, send and wish for a release."""
        release = self.pack(**changes)
        self.send(release)
        self.wish(release, replaces, alias=changes.get("alias", ALIAS))
        return release

    # The inference box

    def agent(self, engine: Engine | None = None) -> Agent:
        """A serving process's agent after its start, as after any restart."""
        agent = Agent(self.ground(engine))
        agent.start()
        return agent

    def ground(self, engine: Engine | None = None) -> Ground:
        engine = engine or StubEngine(MODEL, max_new_tokens=16)
        return Ground(box=self.box, keys=self.keys, engine=engine, now=self.clock.now, monotonic=self.clock.monotonic)

    @property
    def ledger(self) -> list[Activation]:
        return read_activations(self.box.activations)

    @property
    def active(self) -> Active:
        active = read_active(self.box.active)
        assert active is not None
        return active

    def state(self, alias: str = ALIAS) -> AliasState:
        return self.active.aliases[alias]

    def live(self, alias: str = ALIAS) -> str | None:
        """What active.json says the alias serves; None too while it says nothing of it."""
        active = read_active(self.box.active)
        state = active.aliases.get(alias) if active else None
        return state.release if state else None

    def events(self, alias: str = ALIAS) -> list[tuple[str, str]]:
        """(event, code) of the alias's ledger lines."""
        return [(line.event, line.code) for line in self.ledger if line.alias == alias]

    def places(self) -> Mapping[str, list[str]]:
        """Names of what lies in incoming, checking and releases."""
        return {
            "incoming": sorted(path.name for path in self.box.incoming.iterdir()),
            "checking": sorted(path.name for path in self.box.checking.iterdir()),
            "releases": sorted(str(path.relative_to(self.box.releases)) for path in self.box.releases.glob("[!.]*/*/*")),
        }
