"""`lorad alerts`: what is open, what there is, and a try of every channel."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))
from receiver import receiver

LORAD = Path(sys.executable).with_name("lorad")


def lorad(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORAD, *words], capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"home": "home"}')
    (tmp_path / "hook.key").write_text("0123456789abcdef0123456789abcdef")
    return tmp_path


def test_without_a_channel_the_test_says_what_to_set(folder: Path) -> None:
    done = lorad(folder, "alerts", "test")
    assert done.returncode == 3
    assert "alerts.webhook" in done.stderr


def test_the_test_sends_one_through_each_channel_and_says_which_failed(folder: Path) -> None:
    with receiver() as good, receiver() as bad:
        bad.status = 403
        (folder / "urls").write_text(f"json://127.0.0.1:{bad.port}/x?key=s3cr3t\n")
        (folder / "config.json").write_text(json.dumps({"home": "home", "alerts": {"webhook": good.url, "webhook_key_file": "hook.key", "urls_file": "urls"}}))
        done = lorad(folder, "alerts", "test")
        told = lorad(folder, "alerts", "test", "--format", "json")
    assert (done.returncode, told.returncode) == (1, 1)
    assert "webhook: sent" in done.stdout
    assert "HTTP 403" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr + told.stdout
    assert json.loads(told.stdout)["sent"] == ["webhook"]
    assert len(good.got) == 2
    assert json.loads(good.got[0].body)["type"] == "alert.test"


def test_all_alerts_that_there_are_are_named(folder: Path) -> None:
    done = lorad(folder, "alerts", "list")
    assert done.returncode == 0
    assert "no alerts" in done.stdout
    assert "failed_job" in done.stdout
    assert json.loads(lorad(folder, "alerts", "list", "--format", "json").stdout) == {"alerts": [], "notices": {}}
