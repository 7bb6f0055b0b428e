"""The link as the daemon starts it: a process of its own, one a target, that ends with its daemon."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.exits import ChildExit
from store.targets import observed_of

ALIAS = "default/main"
PATIENCE_S = 30.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition of another process, with a deadline."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


@pytest.fixture
def config(workshop, target) -> Path:
    path = workshop.root / "config.json"
    path.write_text(json.dumps({"home": str(workshop.home.root), "deploy": {"targets": [{"name": "near", "path": target.path}]}}))
    return path


@contextmanager
def link(config: Path, target: str = "near") -> Iterator[subprocess.Popen[bytes]]:
    with open(config.parent / "link.log", "ab") as logfile:
        process = subprocess.Popen([sys.executable, "-m", "deploy", "link", str(config), target], stdin=subprocess.PIPE, stdout=logfile, stderr=logfile)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def observed(workshop):
    return observed_of(workshop.home, "near")


def test_a_release_reaches_a_living_box_and_the_answer_comes_back(workshop, config, far, wish):
    far.clock = lambda: datetime.now(UTC)
    far.start()
    release = workshop.release()
    with link(config):
        wait_until(lambda: observed(workshop) and observed(workshop).reachable, "the link to look")
        wish(release)

        def is_live() -> bool:
            far.live()
            active = observed(workshop).active
            return active is not None and ALIAS in active.aliases and active.aliases[ALIAS].release == release

        wait_until(is_live, "the release to go live")


def test_a_second_link_of_a_target_ends_with_75(workshop, config):
    with link(config):
        wait_until(lambda: observed(workshop), "the first link to hold its lock")
        with link(config) as second:
            assert second.wait(PATIENCE_S) == 75
    assert "LOCK_HELD" in (config.parent / "link.log").read_text()


def test_it_ends_on_term(workshop, config):
    with link(config) as process:
        wait_until(lambda: observed(workshop), "the first turn")
        process.terminate()
        assert process.wait(PATIENCE_S) == ChildExit.STOPPED


def test_it_ends_when_its_daemon_is_gone(workshop, config):
    with link(config) as process:
        wait_until(lambda: observed(workshop), "the first turn")
        process.stdin.close()
        assert process.wait(PATIENCE_S) == ChildExit.STOPPED


def test_it_ends_at_once_although_rsync_hangs(workshop, config, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    hanging = tmp_path / "bin" / "rsync"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with link(config) as process:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "rsync to start")
        process.terminate()
        assert process.wait(PATIENCE_S) == ChildExit.STOPPED
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the hanging rsync to end")


def test_after_a_kill_the_next_link_starts(workshop, config):
    with link(config) as first:
        wait_until(lambda: observed(workshop), "the first turn")
        first.kill()
        first.wait()
        before = observed(workshop).at
        with link(config):
            wait_until(lambda: observed(workshop).at > before, "a turn of the next link")


@pytest.mark.parametrize("words", [["nowhere.json", "near"], ["config.json", "elsewhere"]])
def test_a_wrong_config_or_target_is_a_wrong_usage(workshop, config, words):
    name, target = words
    with link(config.parent / name, target) as process:
        assert process.wait(PATIENCE_S) == 3
