"""`lorad status` cannot be mistaken: a status that is old, of another daemon or of one that hangs says so first."""

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LORAD = Path(sys.executable).with_name("lorad")
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"home": "home"}')
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def leave(home: Path, *, age_s: float = 0.0, state: str = "running", instance: str = "one", **more: Any) -> None:
    """A status as a daemon left it so many seconds ago."""
    daemon = {"state": state, "pid": 4711, "instance": instance, "boot": BOOT, "beat_s": time.clock_gettime(time.CLOCK_BOOTTIME) - age_s}
    daemon |= {"backend": "stub", "base": "b", "home": str(home), "warnings": [], "log_lines_dropped": 0}
    values = {"format": 1, "at": "2026-03-01T00:00:00+00:00", "daemon": daemon, "queue": {}, "drops": {}, "current": None, "live": {}, "targets": []}
    values |= {"disk": {"free_bytes": 1, "total_bytes": 2}, "findings": [], "error": None}
    (home / "status.json").write_text(json.dumps(values | more))


@contextmanager
def held(home: Path, **text: Any) -> Iterator[None]:
    """The home as a living daemon holds it."""
    with (home / "lorad.lock").open("w") as lock:
        lock.write(json.dumps({"pid": 4711, "instance": "one", "since": time.time(), **text}))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def status(home: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([LORAD, "status", "--config", home.parent / "config.json", *words], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def told(home: Path) -> dict[str, Any]:
    code, text = status(home, "--format", "json")
    found: dict[str, Any] = json.loads(text)
    return {key: found[key] for key in ("running", "stale", "condition")} | {"code": code}


def test_a_daemon_that_ticks_runs(home: Path) -> None:
    leave(home)
    with held(home):
        assert told(home) == {"running": True, "stale": False, "condition": "runs", "code": 0}
        assert "lorad runs (pid 4711)" in status(home)[1]


def test_one_that_holds_the_home_and_does_not_tick_hangs(home: Path) -> None:
    leave(home, age_s=95)
    with held(home):
        assert told(home) == {"running": True, "stale": True, "condition": "hangs", "code": 1}
        code, text = status(home)
    assert code == 1
    assert "has NOT TICKED for 2 min" in text.splitlines()[0]
    assert "what to do" in text


def test_one_that_was_killed_is_not_running_since_and_did_not_say_so(home: Path) -> None:
    leave(home, age_s=3700)
    assert told(home) == {"running": False, "stale": True, "condition": "died", "code": 1}
    assert "NOT running since 1 h" in status(home)[1]


def test_one_that_was_stopped_is_not_running_and_nothing_is_wrong(home: Path) -> None:
    leave(home, age_s=5, state="stopped")
    assert told(home) == {"running": False, "stale": True, "condition": "stopped", "code": 0}


def test_the_status_of_an_earlier_daemon_is_not_taken_for_that_of_one_that_starts(home: Path) -> None:
    leave(home, instance="earlier")
    with held(home):
        assert told(home) == {"running": True, "stale": True, "condition": "starts", "code": 0}
        assert "lorad starts (pid 4711)" in status(home)[1]


def test_a_clock_that_was_set_makes_no_fresh_status_old(home: Path) -> None:
    leave(home, at="1999-01-01T00:00:00+00:00")
    with held(home):
        assert told(home)["condition"] == "runs"


def test_a_status_that_a_power_cut_has_spoilt_is_none(home: Path) -> None:
    (home / "status.json").write_bytes(b"\0" * 100)
    with held(home):
        assert "lorad starts" in status(home)[1]
    assert "has never run" in status(home)[1]


def test_pauses_windows_temperatures_alerts_and_channels_are_shown(home: Path) -> None:
    alert = {"severity": "critical", "title": "the disk is low", "reason": "no room", "next": "lorad gc --dry-run"}
    leave(
        home,
        schedule={"paused": "paused by ann: mine", "closed": "quiet hours 07:00-22:00, until Mon 22:00"},
        devices=[{"slot": 0, "name": "cuda:0 RTX 4090", "celsius": 91.0, "free_bytes": 2e9, "total_bytes": 24e9, "hot": "paused above 88", "foreign": ""}],
        alerts=[alert | {"open": True, "opened_at": "2026-03-01T00:00:00+00:00"}],
        notices={"failed": {"webhook": "the webhook answered 500"}, "waiting": 3, "given_up": 0},
    )
    with held(home):
        text = status(home)[1]
    for part in ("paused by ann: mine", "until Mon 22:00", "91 °C", "paused above 88", "critical: the disk is low", "next: lorad gc --dry-run"):
        assert part in text
    assert "do not get out by webhook: the webhook answered 500; 3 wait" in text
