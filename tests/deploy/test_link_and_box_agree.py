"""One contract, two boxes: the played one that the other tests use, and the real serving agent with the stub engine."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from core.deployment import TargetConfig
from core.wire import Active, Observed, Outcome
from deploy.delivery import Delivery
from deploy.rsync import road_to, send_file
from store.paths import Box
from store.wire import read_active

ALIAS = "default/main"


class ServedBox:
    """The real agent on a folder; `live` is one tick of it and a beat."""

    def __init__(self, root: Path, trust: Path, clock: Callable[[], datetime]) -> None:
        activation = pytest.importorskip("serving.activation", reason="serving is not there")
        capacity = pytest.importorskip("serving.capacity", reason="serving is not there")
        stub = pytest.importorskip("serving.engines.stub", reason="serving is not there")
        self.box = Box(root)
        self.box.prepare()
        self.engine = stub.StubEngine("tiny", max_new_tokens=8)
        ground = activation.Ground(box=self.box, keys=trust, engine=self.engine, now=clock, monotonic=lambda: clock().timestamp())
        self.agent = activation.Agent(ground)
        self.pulse = capacity.Pulse(self.box, "served", self.engine, clock)

    def start(self) -> None:
        self.agent.start()
        self.pulse.beat()

    def live(self) -> Active | None:
        self.pulse.beat()
        self.agent.tick()
        return read_active(self.box.active)

    def arrivals(self, release: str) -> list[Path]:
        return sorted(self.box.incoming.glob(f"{release}.*"))


@pytest.fixture(params=["played", "served"])
def box(request, target: TargetConfig, workshop, clock):
    if request.param == "played":
        yield request.getfixturevalue("far")
        return
    served = ServedBox(Path(target.path), workshop.home.keys, clock)
    yield served
    served.engine.close()


@pytest.fixture
def release(workshop) -> Callable[..., str]:
    """A release that the stub engine serves."""

    def make(version: int) -> str:
        from store.releases import place_release

        workshop.write_checkpoint(files={"checkpoint.json": b'{"step": %d}' % version})
        made, folder = workshop.pack(version=version, backend="stub", base="", base_sha256="stub")
        place_release(workshop.home, folder, ALIAS, version, made)
        return made

    return make


def settle(delivery, box, clock, turns: int = 4) -> Observed:
    for _ in range(turns):
        delivery.turn()
        clock.pass_s(2)
        box.live()
    return delivery.turn()


def test_a_release_goes_live_and_is_replaced_and_rolled_back(box, delivery, wish, release, clock):
    box.start()
    first, second = release(1), release(2)
    for wished, before in ((first, None), (second, first), (first, second), (None, first)):
        wish(wished, replaces=before)
        observed = settle(delivery, box, clock)
        state = observed.active.aliases[ALIAS]
        assert (state.release, state.outcome, observed.code) == (wished, Outcome.LIVE, "")
    assert observed.ledger_lines == 4
    assert observed.fence_pushed == observed.active.fence_seen == 4


def test_a_wish_before_its_release_waits_and_is_then_fulfilled(box, delivery, wish, release, clock, workshop, target):
    box.start()
    made = release(1)
    wish(made)
    send_file(road_to(target, workshop.home), workshop.home.target("near") / "desired.json")
    assert box.live().aliases[ALIAS].code == "RELEASE_MISSING"
    assert settle(delivery, box, clock).active.aliases[ALIAS].release == made


def test_a_release_that_lost_its_seal_is_sent_again(box, delivery, wish, release, clock):
    box.start()
    made = release(1)
    wish(made)
    delivery.turn()
    for folder in box.arrivals(made):
        shutil.rmtree(folder)
    clock.pass_s(2)
    assert box.live().aliases[ALIAS].code == "RELEASE_MISSING"
    clock.pass_s(5)
    assert settle(delivery, box, clock).active.aliases[ALIAS].release == made


def test_a_broken_attempt_with_a_higher_number_would_win_so_numbers_only_grow(box, delivery, wish, release, clock, workshop, target):
    box.start()
    made = release(1)
    wish(made)
    delivery.turn()
    broken = box.arrivals(made)[0]
    (broken / "SEALED").unlink()  # what a killed link leaves
    observed = settle(Delivery(workshop.home, road_to(target, workshop.home), clock), box, clock)
    assert observed.active.aliases[ALIAS].release == made


def test_bytes_damaged_on_the_way_are_refused(box, delivery, wish, release, clock):
    box.start()
    made = release(1)
    wish(made)
    delivery.turn()
    path = box.arrivals(made)[0] / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    state = settle(delivery, box, clock).active.aliases[ALIAS]
    assert (state.release, state.outcome, state.code) == (None, Outcome.REFUSED, "RELEASE_BYTES")


def test_a_box_that_was_down_gets_what_was_wished_meanwhile(box, delivery, wish, release, clock):
    made = release(1)
    wish(made)
    assert delivery.turn().code == "TARGET_UNREACHABLE"
    box.start()
    assert settle(delivery, box, clock).active.aliases[ALIAS].release == made
