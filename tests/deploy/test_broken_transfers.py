"""What the link does about transfers that were broken off, a network that is gone, and a box without room; and what it tells the box."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.wire import Capacity
from deploy import delivery as module
from deploy.delivery import ATTEMPTS, Delivery
from deploy.failures import HOST_KEY_CHANGED, TARGET_SILENT, TransferError
from deploy.rsync import road_to
from store import codec
from store.seals import SEAL, is_sealed

ALIAS = "default/main"


@pytest.fixture
def failing(monkeypatch) -> Callable[[str | None], None]:
    """From now on the next sends fail with this code; None: they go through."""
    real, state = module.send_release, {"code": None}

    def send(road, folder, name, resume="") -> None:
        real(road, folder, name, resume)
        if state["code"]:
            place = Path(road.into) / "incoming" / name
            (place / SEAL).unlink()
            weights = place / "adapter_model.safetensors"
            os.truncate(weights, weights.stat().st_size // 2)
            raise TransferError("broken off", hint="it goes on by itself", code=state["code"])

    monkeypatch.setattr(module, "send_release", send)
    return lambda code: state.update(code=code)


@pytest.fixture
def sent(monkeypatch) -> list[str]:
    """The --copy-dest of every rsync that sends a payload."""
    found: list[str] = []
    real = module.send_release

    def send(road, folder, name, resume="") -> None:
        found.append(resume)
        real(road, folder, name, resume)

    monkeypatch.setattr(module, "send_release", send)
    return found


def test_what_had_arrived_is_the_basis_of_the_next_attempt_in_a_new_folder(workshop, target, far, wish, clock, failing, sent):
    far.start()
    release = workshop.release()
    wish(release)
    failing(TARGET_SILENT)
    delivery = Delivery(workshop.home, road_to(target, workshop.home), clock)
    assert delivery.turn().code == TARGET_SILENT
    half = far.arrivals(release)[0]
    assert not is_sealed(half)
    failing(None)
    again = Delivery(workshop.home, road_to(target, workshop.home), clock)  # as after a kill of the link
    assert again.turn().code == ""
    assert sent == ["", half.name]
    assert is_sealed(far.arrivals(release)[-1])
    assert far.live().aliases[ALIAS].release == release


def test_a_release_that_came_through_is_sent_anew_from_nothing(workshop, delivery, far, wish, clock, sent):
    """The box found it damaged: its bytes there are no basis."""
    far.start()
    release = workshop.release()
    wish(release)
    delivery.turn()
    assert (workshop.home.target("near") / ATTEMPTS).read_text().split() == [far.arrivals(release)[0].name.partition(".")[2]]
    clock.pass_s(1)
    for folder in far.arrivals(release):
        (folder / SEAL).unlink()
    for _ in range(8):
        delivery.turn()
        far.live()
        clock.pass_s(9)
    assert sent[:2] == ["", ""]


@pytest.mark.parametrize(("code", "most_s"), [(TARGET_SILENT, 10), (HOST_KEY_CHANGED, 30)])
def test_a_network_that_is_gone_is_not_hammered(workshop, target, far, clock, monkeypatch, code, most_s):
    def fail(road, names, folder) -> None:
        raise TransferError("gone", hint="mend it", code=code)

    far.start()
    delivery = Delivery(workshop.home, replace(road_to(target, workshop.home), folder=workshop.root), clock)
    assert delivery.turn().reachable
    monkeypatch.setattr(module, "fetch", fail)
    pauses = []
    for _ in range(7):
        observed = delivery.turn()
        assert (observed.code, observed.reachable) == (code, False)
        pauses.append(delivery.pause_s)
    assert pauses[:3] == [1, 2, 4]
    assert pauses[-1] == most_s
    monkeypatch.undo()
    delivery.turn()
    assert delivery.pause_s <= module.IDLE_S


def test_a_box_without_inodes_is_sent_nothing_and_one_that_does_not_count_them_is(workshop, delivery, far, wish, clock, monkeypatch):
    far.start()
    release = workshop.release()
    wish(release)
    kept = codec.read(Capacity, far.box.capacity)
    codec.write(far.box.capacity, replace(kept, free_inodes=5), durable=False)
    observed = delivery.turn()
    assert observed.code == "TARGET_DISK_FULL"
    assert "inodes" in observed.reason
    codec.write(far.box.capacity, replace(kept, free_inodes=0), durable=False)
    assert delivery.turn().code == ""
    assert far.arrivals(release)


def test_the_box_is_told_what_the_training_box_does_every_ten_seconds_at_most(workshop, delivery, far, clock):
    far.start()
    there = far.box.desired.with_name("training-status.json")
    delivery.turn()
    assert not there.exists(), "no daemon has run here"
    for number, expected in ((1, 1), (2, 1), (3, 3)):
        workshop.home.status.write_text(str(number))
        os.utime(workshop.home.status, ns=(number, number))
        delivery.turn()
        assert there.read_text() == str(expected)
        clock.pass_s(6)
        far.beat()
