"""The real rsync, and what its failures mean."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.deployment import TargetConfig
from deploy.failures import TransferError, explain
from deploy.rsync import fetch, road_to, send_file, send_release
from store.paths import Home


@pytest.fixture
def road(tmp_path: Path):
    for folder in ("box/in/incoming", "box/out", "here"):
        (tmp_path / folder).mkdir(parents=True)
    return road_to(TargetConfig(name="near", path=str(tmp_path / "box")), Home(tmp_path / "home"))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch) -> Path:
    """A log of every rsync that is started; each is the real one."""
    real = next(Path(folder, "rsync") for folder in os.environ["PATH"].split(":") if Path(folder, "rsync").exists())
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "rsync"
    wrapper.write_text(
        f'#!/bin/sh\nls {tmp_path}/box/in/incoming/* 2>/dev/null | tr "\\n" " " >> "{tmp_path}/calls"\necho "$@" >> "{tmp_path}/calls"\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "calls"


def same_age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))


def test_a_release_arrives_whole_with_its_seal_in_a_second_call(road, tmp_path, calls):
    release = tmp_path / "here" / "release"
    release.mkdir()
    for name in ("SEALED", "adapter_model.safetensors", "manifest.json"):
        (release / name).write_text(name)
    send_release(road, release, "abc.7")
    first, second = calls.read_text().splitlines()
    assert "--exclude=/SEALED" in first
    assert "--inplace" in first
    assert second.startswith("adapter_model.safetensors manifest.json --archive")  # what was there when the seal was sent
    assert second.split()[-2].endswith("/SEALED")
    assert {path.name: path.read_text() for path in (tmp_path / "box/in/incoming/abc.7").iterdir()} == {path.name: path.name for path in release.iterdir()}


def test_a_wish_of_equal_size_and_time_still_arrives(road, tmp_path):
    wish, there = tmp_path / "here" / "desired.json", tmp_path / "box" / "in" / "desired.json"
    wish.write_text('{"fence": 1}')
    same_age(wish)
    send_file(road, wish)
    wish.write_text('{"fence": 2}')
    same_age(wish, there)
    send_file(road, wish)
    assert there.read_text() == '{"fence": 2}'


def test_a_word_of_the_box_of_equal_size_and_time_is_still_heard(road, tmp_path):
    said, mirror = tmp_path / "box" / "out" / "active.json", tmp_path / "here" / "out"
    for text in ("11", "22"):
        said.write_text(text)
        same_age(said, *mirror.glob("*"))
        fetch(road, ["active.json"], mirror)
    assert (mirror / "active.json").read_text() == "22"


def test_what_the_box_does_not_have_is_left_as_it_is(road, tmp_path):
    mirror = tmp_path / "here" / "out"
    (tmp_path / "box" / "out" / "active.json").write_text("1")
    fetch(road, ["active.json", "capacity.json"], mirror)
    (tmp_path / "box" / "out" / "active.json").unlink()
    fetch(road, ["active.json", "capacity.json"], mirror)
    assert [path.name for path in mirror.iterdir()] == ["active.json"]


def test_without_rsync_it_says_how_to_get_it(road, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(TransferError) as caught:
        fetch(road, ["active.json"], tmp_path / "here")
    assert caught.value.code == "RSYNC_MISSING"
    assert "apt-get install rsync" in caught.value.hint


def test_a_box_whose_folders_are_not_there_is_unreachable(tmp_path):
    road = road_to(TargetConfig(name="near", path=str(tmp_path / "nowhere")), Home(tmp_path / "home"))
    wish = tmp_path / "desired.json"
    wish.write_text("{}")
    for act in (lambda: fetch(road, ["active.json"], tmp_path / "here"), lambda: send_file(road, wish), lambda: send_release(road, tmp_path, "a.1")):
        with pytest.raises(TransferError) as caught:
            act()
        assert caught.value.code == "TARGET_UNREACHABLE"
        assert "lorad serve" in caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_from_the_rest(road, tmp_path):
    (tmp_path / "here" / "full").write_text("{}")
    full = replace(road, into="/dev/", into_options=("--inplace", "--write-devices"))
    with pytest.raises(TransferError) as caught:
        send_file(full, tmp_path / "here" / "full")
    assert caught.value.code == "TARGET_DISK_FULL"


@pytest.mark.parametrize(
    ("status", "stderr", "code"),
    [
        (11, 'rsync: [receiver] write failed on "/x": No space left on device (28)', "TARGET_DISK_FULL"),
        (11, "rsync: [receiver] write failed: Disk quota exceeded (122)", "TARGET_DISK_FULL"),
        (1, "rsync: --fsync: unknown option", "RSYNC_OLD"),
        (23, 'rsync: [Receiver] mkstemp "/x" failed: Permission denied (13)', "TARGET_DENIED"),
        (30, "rsync error: timeout in data send/receive (code 30)", "TARGET_SILENT"),
        (30, "", "TARGET_SILENT"),
        (255, "ssh: connect to host box port 22: Connection refused", "PORT_REFUSED"),
        (255, "ssh: connect to host box port 22: Connection timed out", "TARGET_SILENT"),
        (255, "Timeout, server 10.77.0.2 not responding.", "TARGET_SILENT"),
        (255, "ssh: Could not resolve hostname box: Name or service not known", "HOST_UNKNOWN"),
        (255, "@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.", "HOST_KEY_CHANGED"),
        (255, "No ED25519 host key is known for lorad-near and you have requested strict checking.", "HOST_KEY_CHANGED"),
        (255, "lorad@box: Permission denied (publickey).", "KEY_REFUSED"),
        (255, "ssh: connect to host 10.0.0.7 port 22: Operation not permitted", "NETWORK_DENIED"),
        (12, "sh: 1: rrsync: not found", "RSYNC_MISSING_THERE"),
        (12, "/usr/bin/rrsync error: Restricted directory does not exist!", "TARGET_PATH_MISSING"),
        (12, "/usr/bin/rrsync error: unrecognized arguments: -no-lock", "RSYNC_OLD"),
        (12, "rsync: connection unexpectedly closed", "TARGET_UNREACHABLE"),
        (23, "rsync: something new", "RSYNC_FAILED"),
        (20, "", "RSYNC_FAILED"),
    ],
)
def test_a_failure_gets_a_code_and_a_hint(status, stderr, code):
    error = explain("near", status, stderr)
    assert error.code == code
    assert error.hint
    assert "'near'" in error.what
