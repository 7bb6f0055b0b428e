"""FAULT-F22 to F28 over the real ssh road: whatever breaks, the old adapter serves, the cause is told, and it goes on by itself."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from processes import wait_until
from roadpair import RoadPair

from core.wire import Observed
from store.seals import SEAL

MB = 1 << 20
WEIGHTS_BYTES = 2 * MB
RATE = "8mbit"  # 2 MB take two seconds
THIRD = WEIGHTS_BYTES // 3
UNREACHED = {"TARGET_SILENT", "TARGET_UNREACHABLE", "PORT_REFUSED"}


def arrived(pair: RoadPair, release: str) -> int:
    """Bytes of the weights of a release that lie on the far side."""
    return max((path.stat().st_size for path in pair.far.box.incoming.glob(f"{release}.*/adapter_model.safetensors")), default=0)


def live_then_on_its_way(pair: RoadPair) -> tuple[str, str]:
    """A first release is live; a second one is wished for."""
    first = pair.release()
    pair.wish(first, None)
    pair.settle(first)
    second = pair.release(version=2, weights_bytes=WEIGHTS_BYTES)
    pair.wish(second, first)
    return first, second


def broken_in_the_middle(pair: RoadPair, second: str, what: str) -> Observed:
    """The turn in which the second release is on its way, and what broke it once a third was there."""
    pair.hosts.slow(RATE)
    turning = pair.hosts.near.start(pair.delivery.turn)
    wait_until(lambda: arrived(pair, second) > THIRD, "a third of the release is there", 20)
    pair.beat()
    {"cut": pair.hosts.cut, "swallow": pair.hosts.swallow, "reboot": pair.keys.stop, "far rsync": lambda: kill_far_rsync(pair)}[what]()
    seen = turning.result(40)
    assert not any((folder / SEAL).exists() for folder in pair.arrivals(second)), "what is half is not called whole"
    return seen


def kill_far_rsync(pair: RoadPair) -> None:
    for pid in pair.hosts.far.pids("rsync"):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("what", ["cut", *(pytest.param(what, marks=pytest.mark.full) for what in ("far rsync", "swallow", "reboot"))])
def test_broken_in_the_middle_the_old_one_serves_and_it_goes_on_by_itself(pair: RoadPair, what: str) -> None:
    first, second = live_then_on_its_way(pair)
    seen = broken_in_the_middle(pair, second, what)
    pair.beat()
    assert pair.live == first
    assert seen.code in UNREACHED, seen
    assert seen.hint
    seen = pair.turn()
    assert what == "far rsync" or seen.code in UNREACHED, "it is still told while it lasts"
    {"cut": pair.hosts.mend, "swallow": pair.hosts.let_through, "reboot": pair.keys.start, "far rsync": lambda: None}[what]()
    pair.hosts.hurry()
    pair.pass_s(5)  # the pause after a failure
    seen = pair.settle(second)
    assert pair.live == second
    assert (seen.code, seen.reachable) == ("", True)
    assert pair.arrivals(second) == [], "what was left of the broken attempt is swept"


@pytest.mark.full
def test_a_slow_and_lossy_road_only_takes_longer(pair: RoadPair) -> None:
    _, second = live_then_on_its_way(pair)
    if shutil.which("nft") is None:
        pytest.skip("needs nft: packets are lost by a rule of it")
    pair.hosts.slow("20mbit")
    pair.hosts.lose(2)
    pair.settle(second, timeout_s=30)
    assert pair.live == second


@pytest.mark.full
def test_a_link_that_is_killed_leaves_nothing_that_disturbs_the_next(pair: RoadPair) -> None:
    _, second = live_then_on_its_way(pair)
    pair.hosts.slow(RATE)
    turning = pair.hosts.near.start(pair.delivery.turn)
    wait_until(lambda: arrived(pair, second) > THIRD, "a third of the release is there", 20)
    for pid in pair.hosts.near.pids("rsync"):
        os.kill(pid, signal.SIGKILL)
    turning.result(40)
    pair.hosts.hurry()
    pair.delivery = pair.link()
    pair.settle(second)
    assert pair.live == second
    assert pair.arrivals(second) == []


# The far side


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "serving"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,nr_inodes=500", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("lack", ["bytes", pytest.param("inodes", marks=pytest.mark.full)])
def test_a_full_far_disk_is_told_and_the_old_one_serves(small_disk: Path, pair: RoadPair, lack: str) -> None:
    first, second = live_then_on_its_way(pair)
    filler = small_disk / "filler"
    filler.mkdir()
    if lack == "bytes":
        (filler / "bytes").write_bytes(bytes(60 * MB))
    else:
        for number in range(os.statvfs(small_disk).f_favail - 20):
            (filler / str(number)).touch()
    pair.beat()
    seen = pair.turn()
    assert seen.code == "TARGET_DISK_FULL", seen
    assert lack == "bytes" or "inodes" in seen.reason
    assert pair.arrivals(second) == [], "nothing is sent that cannot be kept"
    assert pair.live == first
    for path in filler.iterdir():
        path.unlink()
    pair.beat()
    pair.settle(second)


@pytest.mark.parametrize("days", [-1, pytest.param(30, marks=pytest.mark.full)])
def test_a_far_clock_that_is_wrong_changes_nothing(pair: RoadPair, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = pair.clock.now
    near = pair.link()
    monkeypatch.setattr(type(pair.clock), "now", lambda self: now() + timedelta(days=days))
    pair.start_box()
    pair.delivery = near
    release = pair.release()
    pair.wish(release, None)
    assert pair.settle(release).reachable


def test_a_key_that_the_box_does_not_know_is_refused_and_told(pair: RoadPair) -> None:
    first, second = live_then_on_its_way(pair)
    pair.hang_up()
    allowed = pair.keys.folder / "authorized_keys"
    lines = allowed.read_text()
    allowed.write_text("")
    assert pair.turn().code == "KEY_REFUSED"
    assert pair.live == first
    allowed.write_text(lines)
    pair.pass_s(5)
    pair.settle(second)


def test_another_host_key_is_never_taken_by_itself(pair: RoadPair) -> None:
    """ATTACK-S30: somebody stands between the two and answers in the box's place."""
    first, second = live_then_on_its_way(pair)
    pinned = pair.target.known_host
    pair.hang_up()
    pair.keys.stop()
    pair.keys.make("host")
    pair.keys.start()
    for _ in range(3):
        assert pair.turn().code == "HOST_KEY_CHANGED"
        pair.pass_s(40)
    assert pair.arrivals(second) == [], "nothing is sent to a stranger"
    assert all(pinned in path.read_text() for path in pair.home.root.rglob("known_hosts"))
    assert pair.live == first
