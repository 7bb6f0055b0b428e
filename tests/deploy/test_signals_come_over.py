"""The signals of a box come over once each: pulls that are cut, repeated and two at once, a box set up anew, a full disk."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_sshd import FarSide, needs_sshd
from signal_taker import Taker, signal

from core.deployment import TargetConfig
from core.signals import Spooled
from deploy import gathering, rsync
from deploy.delivery import Delivery
from deploy.failures import TransferError
from deploy.gathering import COMING, Gathering
from deploy.rsync import road_to
from store import codec, spool
from store.paths import Box, Home
from store.spool import Spool, segments_in, spooled_after
from store.targets import adopt, spools_left
from store.wire import read_capacity

PATIENCE_S = 20.0
RSYNC = shutil.which("rsync") or "rsync"


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LOOK_S", 0.005)
    monkeypatch.setattr(spool, "PUBLISH_S", 0.0)


@pytest.fixture
def box(target: TargetConfig) -> Box:
    made = Box(Path(target.path))
    made.prepare()
    return made


@pytest.fixture
def taking(box: Box) -> Iterator[Spool]:
    made = Spool(box)
    yield made
    made.close()


@pytest.fixture
def taker(workshop) -> Taker:
    return Taker(workshop.home)


@pytest.fixture
def pull(workshop, target: TargetConfig) -> Gathering:
    return Gathering(workshop.home, road_to(target, workshop.home))


def publish(taking: Spool, *names: str) -> int:
    """A segment of these."""
    last = taking.append([signal(name) for name in names])
    wait_until(lambda: taking.published == last, "it is published")
    return last


def test_what_was_said_is_stored_acknowledged_and_deleted_on_both_sides(taking, taker, pull, box):
    pull.turn("", publish(taking, "a", "b"))
    assert taker.take() == 2
    assert taker.stored == ["a", "b"]
    last = publish(taking, "c")
    pull.turn("", last)
    assert taker.take() == 1
    taker.acknowledge()
    pull.turn("", last)
    assert segments_in(taker.mirror) == []
    wait_until(lambda: segments_in(box.spool) == [], "the box deletes them")
    assert publish(taking, "d") == 4
    pull.turn("", 4)
    taker.take()
    assert (taker.stored, taker.doubled) == (["a", "b", "c", "d"], [])


def test_what_was_acknowledged_does_not_come_back_while_the_box_still_has_it(taking, taker, pull):
    pull.turn("", publish(taking, "a", "b"))
    taker.take()
    last = publish(taking, "c")
    taking.close()  # it deletes nothing more
    taker.acknowledge()
    pull.turn("", last)
    assert [first for first, _ in segments_in(taker.mirror)] == [3]


def test_a_turn_of_the_link_brings_signals_also_while_a_release_cannot_go_over(workshop, taking, taker, far, delivery, wish):
    far.free_bytes = 1
    far.start()
    last = publish(taking, "a")
    known = read_capacity(far.box.capacity)
    codec.write(far.box.capacity, replace(known, spooled=last), durable=False)
    wish(workshop.release())
    assert delivery.turn().code == "TARGET_DISK_FULL"
    assert taker.take() == 1


def test_nothing_is_asked_of_the_box_while_it_has_nothing_new(taking, pull, monkeypatch):
    asked: list[list[str]] = []
    real = rsync._rsync
    monkeypatch.setattr(rsync, "_rsync", lambda road, words: (asked.append(words), real(road, words)))
    pull.turn("", 0)
    last = publish(taking, "a")
    pull.turn("", last)
    pull.turn("", last)
    assert len(asked) == 1


def test_another_training_box_does_not_acknowledge_what_it_does_not_own(workshop, taking, taker, far, delivery, clock, target, wish):
    far.start()
    wish(None)
    delivery.turn()
    far.live()
    delivery.turn()
    second = Home(workshop.root / "second")
    second.prepare()
    shutil.copytree(workshop.home.keys, second.keys, dirs_exist_ok=True)
    publish(taking, "a")
    stranger = Taker(second, box_id="far", number=99)
    second.target("near").mkdir(parents=True, exist_ok=True)
    stranger.acknowledge()
    assert Delivery(second, road_to(target, second), clock).turn().code == "FENCE_FOREIGN"
    assert not far.box.ack.exists()
    adopt(second, "near", clock())
    Delivery(second, road_to(target, second), clock).turn()
    assert far.box.ack.exists()


def test_a_segment_that_a_listing_missed_is_waited_for_and_one_that_never_comes_is_not(taking, taker, pull, box):
    """Numbers begin high on a box that was set up anew, or that another training box has asked before."""
    for name in "abc":
        last = publish(taking, name)
    missed = box.spool / f"{2:012d}.jsonl"
    aside = box.root / "aside.jsonl"
    missed.rename(aside)
    pull.turn("", last)
    assert taker.take() == 1, "behind the gap nothing may be read: it would be taken for all there is"
    aside.rename(missed)
    pull.turn("", last)
    assert taker.take() == 2
    assert taker.stored == ["a", "b", "c"]
    last = publish(taking, "d")
    (box.spool / f"{4:012d}.jsonl").unlink()
    last = publish(taking, "e")
    for _ in range(2):
        pull.turn("", last)
    assert taker.take() == 1
    assert taker.stored[-1] == "e"


def test_a_link_that_was_killed_is_followed_by_one_that_goes_on(workshop, target, taking, taker, box):
    road = road_to(target, workshop.home)
    last = publish(taking, "a", "b")
    Gathering(workshop.home, road).turn("", last)
    last = publish(taking, "c")
    coming = workshop.home.target("near") / COMING
    coming.mkdir(exist_ok=True)
    for _, path in segments_in(box.spool):  # rsync had brought all of it, and the link died before it moved it on
        shutil.copy2(path, coming / path.name)
    (coming / f".{last:012d}.jsonl.X1y2z3").write_bytes(b"half of")
    Gathering(workshop.home, road).turn("", last)
    assert taker.take() == 3
    taker.acknowledge()
    taker.forget_the_mirror()
    Gathering(workshop.home, road).turn("", last)
    assert taker.take() == 0
    assert publish(taking, "d") == 4
    Gathering(workshop.home, road).turn("", 4)
    assert taker.take() == 1
    assert taker.doubled == []


def test_two_pulls_at_once_bring_each_signal_once(workshop, target, taking, taker):
    road = road_to(target, workshop.home)
    for count in range(30):
        last = publish(taking, f"s{count}")
    pulls = [threading.Thread(target=_until_done, args=(Gathering(workshop.home, road), last)) for _ in range(2)]
    for one in pulls:
        one.start()
    while any(one.is_alive() for one in pulls):
        taker.take()
        time.sleep(0.001)
    taker.take()
    assert taker.stored == [f"s{count}" for count in range(30)]
    assert taker.doubled == []


def _until_done(pull: Gathering, last: int) -> None:
    """Again and again, as links do: of two at once one may lose a file under its hands."""
    while True:
        try:
            return pull.turn("", last)
        except (TransferError, OSError):
            continue


def test_pulls_that_are_cut_at_any_moment_lose_and_double_nothing(workshop, target, taking, taker, tmp_path, monkeypatch):
    """Twenty pulls, each killed a little later than the one before it, while signals come."""
    (tmp_path / "bin").mkdir()
    cutting = tmp_path / "bin" / "rsync"
    cutting.write_text(f'#!/bin/sh\nexec timeout -s KILL "$(cat {tmp_path}/left)" {RSYNC} "$@"\n')
    cutting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "left").write_text("20")
    began, sent, cut = time.monotonic(), 1, 0
    Gathering(workshop.home, road_to(target, workshop.home)).turn("", publish(taking, "s0"))
    whole_s = time.monotonic() - began
    for count in range(20):
        for _ in range(3):
            last = publish(taking, *(f"s{sent + place}" for place in range(20)))
            sent += 20
        (tmp_path / "left").write_text(f"{whole_s * (0.05 + 0.1 * count):.3f}")
        try:
            Gathering(workshop.home, road_to(target, workshop.home)).turn("", last)
        except TransferError:
            cut += 1
        taker.take(most=50)
        taker.acknowledge()
    (tmp_path / "left").write_text("20")
    Gathering(workshop.home, road_to(target, workshop.home)).turn("", last)
    while taker.take():
        pass
    assert cut > 0, "else nothing was tried"
    assert taker.stored == [f"s{place}" for place in range(sent)]
    assert taker.doubled == []


def test_when_this_box_s_disk_is_full_it_is_said_and_what_came_whole_stays(taking, taker, pull, monkeypatch):
    last = publish(taking, "a")

    def full(road, words):
        raise TransferError("rsync: write failed", hint="free space on the receiving box", code="TARGET_DISK_FULL")

    with monkeypatch.context() as patch:
        patch.setattr(rsync, "_rsync", full)
        with pytest.raises(TransferError) as told:
            pull.turn("", last)
    assert told.value.code == "DISK_FULL"
    pull.turn("", last)
    assert taker.take() == 1


def test_another_box_behind_the_same_target_has_numbers_of_its_own(workshop, target, taking, taker, tmp_path):
    road = road_to(target, workshop.home)
    pull, first = Gathering(workshop.home, road), Taker(workshop.home, box_id="first")
    pull.turn("first", publish(taking, "a", "b", "c"))
    first.take()
    first.acknowledge()
    taking.close()
    shutil.rmtree(Path(target.path) / "out" / "spool")
    shutil.rmtree(Path(target.path) / "spool")
    other = Spool(Box(Path(target.path)), "second")
    try:
        pull.turn("second", publish(other, "d"))
        assert not Box(Path(target.path)).ack.exists(), "what the first box sent was stored, not this"
        assert [one.signal.id for one in spooled_after(first.mirror, 0, 9)] == ["d"]
    finally:
        other.close()


def left(home: Home) -> list[list[str]]:
    """What was put aside of each box that was there before."""
    return [[one.signal.id for one in spooled_after(folder, 0, 99)] for folder in spools_left(home, "near")]


@pytest.mark.parametrize("was_acked", [True, False])
def test_lines_of_a_box_that_is_gone_are_put_aside_where_they_are_not_stored_yet(workshop, target, taking, tmp_path, was_acked):
    road, first = road_to(target, workshop.home), Taker(workshop.home, box_id="first")
    pull = Gathering(workshop.home, road)
    pull.turn("first", publish(taking, "a", "b"))
    if was_acked:
        first.take()
        first.acknowledge()
    pull.turn("first", publish(taking, "c"))
    behind_a_gap = workshop.home.target("near") / COMING / f"{9:012d}.jsonl"
    behind_a_gap.parent.mkdir(exist_ok=True)
    behind_a_gap.write_text(codec.dump(Spooled(number=9, signal=signal("i"))) + "\n")
    taking.close()
    shutil.rmtree(Path(target.path) / "out" / "spool")
    shutil.rmtree(Path(target.path) / "spool")
    other = Spool(Box(Path(target.path)), "second")
    try:
        last = publish(other, "d")
        for link in (pull, Gathering(workshop.home, road), Gathering(workshop.home, road)):  # also links that start while nothing is stored
            link.turn("second", last)
            assert left(workshop.home) == [["c", "i"] if was_acked else ["a", "b", "c", "i"]]
            assert [one.signal.id for one in spooled_after(first.mirror, 0, 9)] == ["d"]
        pull.turn("third", 0)
        assert left(workshop.home)[1:] == [["d"]], "each box for itself"
    finally:
        other.close()


def test_a_link_that_dies_while_it_puts_lines_aside_is_followed_by_one_that_does_it(workshop, target, taking, monkeypatch):
    road = road_to(target, workshop.home)
    Gathering(workshop.home, road).turn("first", publish(taking, "a", "b"))

    def dies(*given):
        raise KeyboardInterrupt

    for step in ("sync_dir", "replace_file"):
        with monkeypatch.context() as patch:
            patch.setattr(gathering, step, dies)
            with pytest.raises(KeyboardInterrupt):
                Gathering(workshop.home, road).turn("second", 0)
    Gathering(workshop.home, road).turn("second", 0)
    assert left(workshop.home) == [["a", "b"]]


@needs_sshd
def test_they_come_over_ssh_with_the_two_confined_keys(tmp_path, workshop):
    side = FarSide(tmp_path, workshop.home)
    try:
        taking, taker = Spool(side.box), Taker(side.home)
        pull = gathering.Gathering(side.home, road_to(side.target, side.home))
        pull.turn("", publish(taking, "a", "b"))
        assert taker.take() == 2
        taker.acknowledge()
        pull.turn("", 2)
        wait_until(lambda: segments_in(side.box.spool) == [], "the box deletes them")
        pull.turn("", publish(taking, "c"))
        assert taker.take() == 1
        assert taker.stored == ["a", "b", "c"]
        taking.close()
    finally:
        side.close()
