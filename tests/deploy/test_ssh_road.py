"""The ssh road against a real sshd on loopback, with the two confined keys."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from loopback_sshd import FarSide, needs_sshd

from core.exits import ChildExit
from deploy.failures import TransferError
from deploy.rsync import fetch, road_to, send_file, send_release
from deploy.ssh import key_path, shell_words
from store.targets import mirror, observed_of

pytestmark = needs_sshd


@pytest.fixture
def side(tmp_path, workshop) -> Iterator[FarSide]:
    found = FarSide(tmp_path, workshop.home)
    yield found
    found.close()


@pytest.fixture
def road(side):
    return road_to(side.target, side.home)


def caught(act) -> TransferError:
    with pytest.raises(TransferError) as found:
        act()
    return found.value


def test_a_release_and_a_wish_arrive_and_the_box_is_heard(side, road, tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    for name in ("SEALED", "adapter_model.safetensors"):
        (release / name).write_text(name)
    send_release(road, release, "abc.7")
    (tmp_path / "desired.json").write_text("{}")
    send_file(road, tmp_path / "desired.json")
    side.box.active.write_text('{"said": 1}')
    fetch(road, ["active.json", "capacity.json"], mirror(side.home, "near"))
    assert {path.name for path in (side.box.incoming / "abc.7").iterdir()} == {"SEALED", "adapter_model.safetensors"}
    assert side.box.desired.read_text() == "{}"
    assert (mirror(side.home, "near") / "active.json").read_text() == '{"said": 1}'


def test_each_key_does_its_half_and_no_more(side, road, tmp_path):
    (tmp_path / "x").write_text("x")
    side.box.active.write_text("{}")
    crossed = replace(road, into_options=road.out_options, out_options=road.into_options)
    assert caught(lambda: send_file(crossed, tmp_path / "x")).code == "KEY_CONFINED"
    assert caught(lambda: fetch(crossed, ["active.json"], tmp_path / "got")).code == "KEY_CONFINED"
    caught(lambda: send_file(road, tmp_path / "x", "../releases/x"))
    assert not (side.box.releases / "x").exists()
    for way in ("in", "out"):
        words = shell_words(side.target, side.home, way, shared=False)
        shell = subprocess.run([*words, f"{side.target.user}@127.0.0.1", "id"], capture_output=True, text=True, check=False)
        assert shell.returncode == 1
        assert "uid" not in shell.stdout


def test_the_connection_stays_open_between_transfers(side, road, tmp_path):
    fetch(road, ["active.json"], mirror(side.home, "near"))
    side.sshd.stop()  # nobody new gets in
    side.box.active.write_text("2")
    fetch(road, ["active.json"], mirror(side.home, "near"))
    assert (mirror(side.home, "near") / "active.json").read_text() == "2"


@contextmanager
def link(side: FarSide) -> Iterator[subprocess.Popen[bytes]]:
    """The link process of this target, as the daemon starts it; it has looked once when this goes on."""
    config = side.home.root.parent / "config.json"
    target = side.target.model_dump(include={"name", "kind", "host", "user", "port", "path"})
    config.write_text(json.dumps({"home": str(side.home.root), "deploy": {"targets": [target]}}))
    process = subprocess.Popen([sys.executable, "-m", "deploy", "link", str(config), "near"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while observed_of(side.home, "near") is None:
            assert time.monotonic() < until, "the link has not looked"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def test_a_link_that_ends_leaves_no_connection_behind(side):
    folder = side.home.target("near")
    with link(side) as process:
        assert observed_of(side.home, "near").code == "TARGET_UNREACHABLE", "it was heard, and nobody serves there"
        assert (folder / "out.ssh").is_socket()
        process.terminate()
        assert process.wait(30) == ChildExit.STOPPED
    assert not (folder / "out.ssh").exists()


def test_a_link_of_a_target_that_was_not_set_up_says_so_and_lives(side):
    key_path(side.home, "near", "out").unlink()
    with link(side) as process:
        seen = observed_of(side.home, "near")
        assert (seen.reachable, seen.code) == (False, "SSH_KEY_MISSING")
        assert "lorad deploy setup near" in seen.hint
        assert process.poll() is None
