"""A training box on one host and an inference box on the other: the real link, the real agent, the real ssh road between them.

Link and agent run in this process, a turn at a time, so that a test decides what happens when. Only the engine is the stub.
"""

import os
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from confinedkeys import ConfinedKeys
from inference_box import ALIAS, Clock, Recipe, World, stub_adapter
from twohosts import TwoHosts

from core.wire import Activation, AliasState, Observed, Wish
from deploy import rsync, ssh
from deploy.delivery import Delivery
from deploy.rsync import road_to
from serving.capacity import Pulse
from serving.engines.stub import StubEngine
from store.keys import ensure_keys
from store.paths import Home
from store.releases import place_release
from store.seals import seal
from store.targets import mirror, set_wish
from store.wire import check_release, read_activations

TARGET = "cellar"
SOON_S = 20.0


class OwnTime(Clock):
    """The real time, which a test may move on."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


@dataclass(slots=True)
class FarWorld(World):
    """The inference box; it trusts the key of the home beside it."""

    @property
    def keys(self) -> Path:
        return self.root / "home" / "keys"


class RoadPair:
    """Both boxes. `turn` is one of the link's, `beat` one of the inference box's; `live` is what it answers with."""

    def __init__(self, root: Path, hosts: TwoHosts) -> None:
        self.root, self.hosts = root, hosts
        self._haste = ExitStack()
        self._haste.enter_context(patch.multiple(ssh, ALIVE_S=1, ALIVE_COUNT=2, CONNECT_S=2))
        self._haste.enter_context(patch.object(rsync, "ALWAYS", ("--archive", "--fsync", "--timeout=3")))
        self.home = Home(root / "home")
        self.home.prepare()
        ensure_keys(self.home.keys)
        self.clock = OwnTime()
        self.far = FarWorld(root, clock=self.clock)
        self.keys = ConfinedKeys(root / "ssh", hosts.far, self.far.box)
        self.keys.start()
        self.target = self.keys.target()
        self.delivery = self.link()
        self.start_box()

    # The training box

    def link(self) -> Delivery:
        """A link as the daemon starts it."""
        return Delivery(self.home, road_to(self.target, self.home), self.clock.now)

    def hang_up(self) -> None:
        """End the connections that the link keeps open."""
        self.hosts.near.within(lambda: ssh.hang_up(self.target, self.home))

    def release(self, version: int = 1, *, weights_bytes: int = 0, alias: str = ALIAS) -> str:
        """A release in its place on the training box. `weights_bytes`: of numbers that do not compress."""

        def fill(folder: Path) -> None:
            stub_adapter(folder)
            with open(folder / "adapter_model.safetensors", "ab") as file:
                file.write(os.urandom(weights_bytes))

        release = self.far.pack(Recipe(alias=alias, version=version, fill=fill))
        seal(self.far.packed(release))
        place_release(self.home, self.far.packed(release), alias, version, release)
        return release

    def wish(self, release: str | None, replaces: str | None, alias: str = ALIAS) -> None:
        """As the daemon wishes."""
        set_wish(self.home, TARGET, alias, Wish(release=release, replaces=replaces), self.clock.now())

    def turn(self) -> Observed:
        """One turn of the link, on the near host."""
        return self.hosts.near.within(self.delivery.turn)

    # The inference box

    def start_box(self) -> None:
        """The agent after a start, and its sign of life."""
        self.agent = self.far.agent()
        self._pulse = Pulse(self.far.box, self.agent.ledger.box_id, StubEngine("tiny", max_new_tokens=16), self.clock.now)
        self._pulse.beat()

    def beat(self) -> None:
        """A tick of the agent and a sign of life; then what it serves must be whole."""
        self.agent.tick()
        self._pulse.beat()
        self.check_valid()

    @property
    def live(self) -> str | None:
        """The release that a request gets now; None for the base."""
        with self.agent.routes.pin(ALIAS) as pinned:
            return pinned.release

    def check_valid(self) -> None:
        """The active adapter is whole, verified, and the one that active.json and a request name."""
        state = self.far.active.aliases.get(ALIAS, AliasState(release=None))
        assert state.release == self.live
        if self.live:
            found, _ = check_release(self.agent.library.folder(self.live), self.far.keys)
            assert found == self.live

    def arrivals(self, release: str) -> list[Path]:
        """What lies in incoming of a release."""
        return sorted(self.far.box.incoming.glob(f"{release}.*"))

    # Both

    def settle(self, release: str | None, timeout_s: float = SOON_S) -> Observed:
        """Turn and beat until the training box has read that this release is live. Fails after `timeout_s`."""
        until = time.monotonic() + timeout_s
        while True:
            seen = self.turn()
            self.beat()
            state = seen.active.aliases.get(ALIAS) if seen.active else None
            if state is not None and state.release == release and not seen.code and not self.delivery_is_open(seen):
                return seen
            assert time.monotonic() < until, f"not live within {timeout_s:.0f} s: {seen}"

    def delivery_is_open(self, seen: Observed) -> bool:
        """Whether the box has a wish before it that it has not read."""
        return seen.active is None or seen.active.fence_seen < seen.fence_pushed

    def pass_s(self, seconds: float) -> None:
        """Time passes on both boxes."""
        self.clock.seconds += seconds

    def mirrored(self) -> list[Activation]:
        """The training box's copy of the box's ledger."""
        return read_activations(mirror(self.home, TARGET) / "activations.jsonl")

    def end(self) -> None:
        """Mend the cable, end sshd and what the link keeps open."""
        for undo in (self.hosts.mend, self.hosts.let_through, self.hosts.hurry, self.hosts.lose_none):
            with suppress(AssertionError):
                undo()
        self.hang_up()
        self.keys.stop()
        self._haste.close()
        shutil.rmtree(self.far.box.root, ignore_errors=True)
