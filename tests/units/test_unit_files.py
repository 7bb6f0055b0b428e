"""The unit files and scripts as they lie here, looked at by systemd itself where it is installed."""

import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
UNITS = sorted((PROJECT / "systemd").glob("lorad*.*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def value(unit: Path, key: str) -> str:
    """The last value of a key."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)[-1]


@has_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/lorad/venv/bin/lorad", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "lorad" in line and "Failed to connect" not in line]
    assert ours == []


@has_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_scores_at_most_1_5(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_a_stop_and_a_hang_are_given_the_time_that_the_programs_take() -> None:
    from serving.handover import LINGER_S
    from serving.main import AGENT_STOP_S, GRACE_S

    seconds = {"lorad": 120, "lorad-serve": 60}
    assert value(PROJECT / "systemd/lorad.service", "TimeoutStopSec") == "2min"
    assert value(PROJECT / "systemd/lorad-serve.service", "TimeoutStopSec") == "1min"
    assert seconds["lorad-serve"] > LINGER_S + GRACE_S + AGENT_STOP_S
    assert all(value(unit, "WatchdogSec") == "60" for unit in SERVICES if unit.stem != "lorad-gc")


def test_every_service_has_the_same_hardening() -> None:
    blocks = {unit.read_text().partition("# --- hardening")[2].partition("[Install]")[0].strip() for unit in SERVICES}
    assert len(blocks) == 1


def test_the_launchd_file_is_whole_and_says_that_it_was_never_run() -> None:
    place = PROJECT / "launchd/org.lorad.daemon.plist"
    assert plistlib.loads(place.read_bytes())["ProgramArguments"][1] == "daemon"
    assert "never run" in place.read_text()


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_a_script_says_what_it_takes_and_refuses_the_rest(script: str) -> None:
    path = PROJECT / "scripts" / script
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    done = subprocess.run(["bash", str(path), "--everything"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "Usage: scripts/" in done.stderr
