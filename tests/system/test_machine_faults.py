"""What a machine may lack or do: a clear message with what to do, nothing lost, and lorad goes on once it is mended."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from circle import Circle, chat_rows, read_json, read_lines
from ends import assert_one_release
from stages import CONTENT


@pytest.mark.parametrize("verb", ["daemon", "serve"])
def test_a_config_with_a_typo_names_the_nearest_key(circle: Circle, verb: str) -> None:
    circle.configure(learning_rat=1e-4)
    done = circle.lorad(verb)
    assert done.returncode == 3
    assert "CONFIG_UNKNOWN_KEY: unknown key 'learning_rat' in config.json" in done.stderr
    assert "did you mean 'learning_rate'?" in done.stderr


def test_a_second_daemon_and_a_second_server_of_one_home_are_refused(circle: Circle) -> None:
    circle.start_both()
    second = circle.lorad("daemon")
    assert second.returncode == 75
    assert f"another lorad daemon runs on {str(circle.home)!r}: pid {circle.daemon.pid}" in second.stderr
    assert "lorad status" in second.stderr
    server = circle.lorad("serve")
    assert server.returncode == 75
    assert f"pid {circle.serving.pid}" in server.stderr
    assert circle.daemon.lives()
    assert circle.is_ready()


def test_a_port_in_use_is_named(circle: Circle, tmp_path: Path) -> None:
    circle.start_serving()
    other = Circle(tmp_path / "other")
    other.configure(serving={"port": circle.port})
    done = other.lorad("serve")
    assert done.returncode == 1
    assert f"PORT_IN_USE: port {circle.port} on 127.0.0.1 is in use" in done.stderr
    assert "serving.port" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_no_disk_space_at_the_start(circle: Circle, small_disk: Path) -> None:
    circle.configure(home=str(small_disk / "home"))
    done = circle.lorad("daemon")
    assert done.returncode == 1
    assert "DISK_FULL" in done.stderr
    assert "MiB free; lorad needs 64 MiB to keep its state" in done.stderr
    assert "free some space" in done.stderr
    assert list(small_disk.iterdir()) == [], "nothing was begun"


def test_without_a_base_model_drops_wait_and_are_taken_up_once_one_can_be_used(circle: Circle) -> None:
    circle.configure(backend="peft", models_dir="nothing here")
    circle.start_daemon()
    circle.drop(CONTENT)
    circle.wait(lambda: [folder for folder in circle.drops("settling") if (folder / "original").exists()], "the drop waits")
    error = circle.wait(lambda: circle.status()["error"], "status tells")
    assert error["code"] == "BASE_MISSING"
    assert "smollm2-135m-instruct" in error["what"]
    assert "lorad models pull" in error["hint"]
    circle.wait(lambda: circle.status()["drops"] == {"waiting": 0, "settling": 1, "gating": 0}, "status counts it")
    assert (circle.drops("settling")[0] / "original").read_bytes() == CONTENT
    circle.daemon.stop()
    circle.configure()
    circle.start_both()
    assert_one_release(circle, CONTENT)


def test_without_rsync_a_job_waits_in_releasing_until_it_is_there(circle: Circle, tmp_path: Path) -> None:
    rsync = shutil.which("rsync")
    assert rsync is not None, "these tests need rsync"
    programs = tmp_path / "bin"
    programs.mkdir()
    circle.env["PATH"] = str(programs)
    circle.start_both()
    assert circle.wait(lambda: (read_json(circle.home / "status.json") or {}).get("error"), "status tells at the start")["code"] == "RSYNC_MISSING"
    circle.drop(CONTENT)
    job = circle.wait_state("releasing")
    circle.wait(lambda: "rsync is not on PATH" in circle.facts(job)["reason"], "the job says why it waits")
    observed = circle.wait(lambda: read_json(circle.home / "targets" / "local" / "observed.json"), "the link tells")
    assert observed["code"] == "RSYNC_MISSING"
    assert "apt-get install rsync" in observed["hint"]
    (programs / "rsync").symlink_to(rsync)
    assert_one_release(circle, CONTENT)


@pytest.mark.full
def test_where_rsync_vanishes_later_the_next_job_waits_and_says_so(circle: Circle, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    rsync = programs / "rsync"
    rsync.symlink_to(shutil.which("rsync") or "missing")
    circle.env["PATH"] = str(programs)
    circle.start_both()
    circle.drop(CONTENT)
    first = assert_one_release(circle, CONTENT)
    rsync.rename(programs / "elsewhere")
    circle.drop(chat_rows(start=1000), "second.jsonl", sidecar={"training": {"epochs": 5}})
    job = circle.wait_state("releasing", 1)
    circle.wait(lambda: "rsync is not on PATH" in circle.facts(job)["reason"], "the job says why it waits", 10)
    assert circle.ask().headers["x-lorad-release"] == first
    (programs / "elsewhere").rename(rsync)
    circle.wait_state("released", 1)
    assert circle.went_live() == [first, circle.facts(job)["release"]]


def test_while_serving_is_down_a_job_waits_and_the_old_release_stays_live(circle: Circle) -> None:
    circle.start_both()
    circle.drop(CONTENT)
    first = assert_one_release(circle, CONTENT)
    circle.daemon.stop()
    circle.serving.stop()
    let_a_minute_pass(circle)
    circle.start_daemon()
    circle.drop(chat_rows(start=1000), "second.jsonl", sidecar={"training": {"epochs": 5}})
    job = circle.wait_state("releasing", 1)
    circle.wait(lambda: "`lorad serve` is not running" in circle.facts(job)["reason"], "the job says why it waits")
    target = circle.wait(lambda: next((target for target in circle.status()["targets"] if target["code"]), None), "status tells")
    assert target["code"] == "TARGET_UNREACHABLE"
    assert "start `lorad serve`" in target["hint"]
    assert json.loads(circle.lorad("adapters", "list", "--format", "json").stdout)[0]["version"] == 2
    assert circle.status()["live"]["default/main"]["release"] == first
    circle.start_serving()
    circle.wait_state("released", 1)
    release = circle.facts(job)["release"]
    assert circle.ask().headers["x-lorad-release"] == release
    assert circle.went_live() == [first, release]
    assert [line["event"] for line in read_lines(circle.home / "live.jsonl")] == ["live", "restored", "live"]


def let_a_minute_pass(circle: Circle) -> None:
    """Make the box's last sign of life a minute old: it counts as awake for half of one."""
    capacity = circle.box / "out" / "capacity.json"
    values = json.loads(capacity.read_text())
    values["at"] = (datetime.fromisoformat(values["at"]) - timedelta(minutes=1)).isoformat()
    capacity.write_text(json.dumps(values))
