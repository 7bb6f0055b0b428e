"""The shipped units under a real systemd, on a machine that scripts/install alone has set up. One machine for all stories."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from box import EXTRAS, Box, missing

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("box"), pytest.mark.skipif(bool(missing()), reason=missing())]

CONFIG: dict[str, Any] = {"home": "/var/lib/lorad", "models_dir": "/var/lib/lorad/models", "backend": "stub", "allow_stub": True, "training": {"epochs": 1}}
DROP_IN = "/etc/systemd/system/lorad.service.d/test.conf"
HANG = """
import signal, sys, time
if "daemon" in sys.orig_argv:
    def hang(*_):  # the main loop alone: other threads go on
        while True:
            time.sleep(1)
    signal.signal(signal.SIGUSR2, hang)
"""
WATCHDOG_S = 3
SCORE = 1.5
JUDGED = ("released", "held", "refused")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("box") / "root")
    try:
        made.boot()
        made.write("/root/config.json", json.dumps(CONFIG))
        tell("install", made.install("--config", "/root/config.json").splitlines()[-2])
        yield made
    finally:
        made.end()


def tell(what: str, figure: object) -> None:
    """A figure for whoever runs the proof."""
    print(f"  unit proof: {what}: {figure}", file=sys.__stdout__, flush=True)


def rows(start: int, count: int = 200) -> str:
    lines = []
    for number in range(start, start + count):
        answer = f"The answer to {number} has enough words for a score that hangs on the steps."
        lines.append({"messages": [{"role": "user", "content": f"What is number {number}?"}, {"role": "assistant", "content": answer}]})
    return "".join(json.dumps(line) + "\n" for line in lines)


def drop(box: Box, name: str, start: int, sidecar: dict[str, Any] | None = None) -> None:
    box.write(f"/root/{name}.jsonl", rows(start))
    if sidecar is not None:
        box.write(f"/root/{name}.job.json", json.dumps(sidecar))
        box.run("cp", f"/root/{name}.job.json", f"/var/lib/lorad/inbox/{name}.job.json")
    box.lorad("drop", f"/root/{name}.jsonl")


def jobs(box: Box) -> dict[str, str]:
    """File -> state."""
    home = box.root / "var/lib/lorad/jobs"
    found = {}
    for card in sorted((*home.glob("*/job-*/job.json"), *home.glob("*/*/job-*/job.json"))):
        found[json.loads(card.read_text())["file"]] = card.relative_to(home).parts[0]
    return found


def runs(box: Box, file: str) -> list[Path]:
    home = box.root / "var/lib/lorad"
    cards = (*home.glob("jobs/*/job-*/job.json"), *home.glob("jobs/*/*/job-*/job.json"))
    job = next(card.parent.name for card in cards if json.loads(card.read_text())["file"] == file)
    return sorted((home / "runs" / job).glob("*-train"))


def steps_done(box: Box, file: str) -> int:
    """The newest step that the training has told."""
    told = [place.read_text() for run in runs(box, file) for place in run.glob("progress.jsonl")]
    return max((int(step) for text in told for step in re.findall(r'"step": (\d+)', text)), default=0)


def configure(box: Box, **changes: Any) -> None:
    box.write("/etc/lorad/config.json", json.dumps(CONFIG | changes))


def test_a_second_install_changes_nothing(box: Box) -> None:
    began = time.monotonic()
    assert "nothing to change" in box.install("--config", "/root/config.json")
    tell("second install", f"nothing to change, {time.monotonic() - began:.1f} s")


def test_what_is_dropped_is_trained_shipped_and_served(box: Box) -> None:
    drop(box, "first", 0)
    box.wait(lambda: jobs(box).get("first.jsonl") == "released", "the first drop is released")
    assert "network=none" in box.read("/var/lib/lorad/gate.log")


def test_a_start_blocks_until_ready(box: Box) -> None:
    began = time.monotonic()
    box.run("systemctl", "stop", "lorad")
    tell("stop while idle", f"{time.monotonic() - began:.2f} s")
    began = time.monotonic()
    box.run("systemctl", "start", "lorad")
    took = time.monotonic() - began
    assert f"(pid {box.pid('lorad')}," in box.journal("lorad")
    assert box.show("lorad", "StatusText").startswith("backend stub")
    tell("start until ready", f"{took:.2f} s")


def test_a_kill_9_is_followed_by_a_restart(box: Box) -> None:
    for unit in ("lorad", "lorad-serve"):
        before = box.pid(unit)
        began = time.monotonic()
        box.run("kill", "-9", str(before))
        box.wait(lambda unit=unit, before=before: box.pid(unit) != before, f"another {unit} runs")
        tell(f"kill -9 of {unit} until ready again", f"{time.monotonic() - began:.2f} s")


@pytest.mark.parametrize(("number", "how"), [("-USR2", "hung in the main loop"), ("-STOP", "stopped")])
def test_a_hang_is_ended_by_the_watchdog_and_restarted(box: Box, number: str, how: str) -> None:
    box.write("/opt/hang/sitecustomize.py", HANG)
    box.write(DROP_IN, f"[Service]\nWatchdogSec={WATCHDOG_S}\nEnvironment=PYTHONPATH=/opt/hang\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "lorad")
    before = box.pid("lorad")
    quiet_until = time.monotonic() + 2 * WATCHDOG_S
    box.wait(lambda: time.monotonic() > quiet_until, "two watchdogs pass")
    assert box.pid("lorad") == before, "a daemon that works is left alone"
    began = time.monotonic()
    box.run("kill", number, str(before))
    box.wait(lambda: box.pid("lorad") != before, "another daemon runs")
    took = time.monotonic() - began
    assert f"Watchdog timeout (limit {WATCHDOG_S}s)" in box.journal("lorad")
    assert took < 3 * WATCHDOG_S + 10
    if number == "-USR2":
        assert "sitecustomize.py" in box.journal("lorad"), "the journal shows where it hung"
    tell(f"watchdog of {WATCHDOG_S} s, daemon {how}", f"ready again after {took:.1f} s")
    (box.root / DROP_IN.lstrip("/")).unlink()
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "lorad")


def test_a_stop_writes_the_checkpoint_of_a_running_training_which_goes_on_after_the_start(box: Box) -> None:
    drop(box, "long", 1000, {"training": {"epochs": 30}})
    box.wait(lambda: jobs(box).get("long.jsonl") == "training", "it trains")
    box.wait(lambda: steps_done(box, "long.jsonl") > 40, "it has done steps")
    began = time.monotonic()
    box.run("systemctl", "stop", "lorad")
    took = time.monotonic() - began
    assert box.show("lorad", "Result") == "success"
    assert jobs(box)["long.jsonl"] == "queued"
    first = json.loads((runs(box, "long.jsonl")[0] / "exit.json").read_text())
    assert first["code"] == 40
    assert first["steps"] < first["total_steps"]
    box.run("systemctl", "start", "lorad")
    box.wait(lambda: len(runs(box, "long.jsonl")) == 2, "it goes on")
    spec = json.loads((runs(box, "long.jsonl")[1] / "spec.json").read_text())
    resumed = int(re.findall(r"step_(\d+)", spec["checkpoint"])[-1])
    tell("stop while training", f"{took:.2f} s, stopped at step {first['steps']}, resumed from {resumed}: {first['steps'] - resumed} steps lost")
    assert first["steps"] - resumed <= 1
    box.wait(lambda: jobs(box)["long.jsonl"] in JUDGED, "it is trained to its end and judged")


def test_a_reload_applies_a_good_config_and_refuses_a_bad_one(box: Box) -> None:
    before = box.pid("lorad")
    configure(box, training={"epochs": 2})
    began = time.monotonic()
    box.run("systemctl", "reload", "lorad")
    tell("reload", f"{time.monotonic() - began:.2f} s")
    assert box.json("/var/lib/lorad/caches/config.json")["training"]["epochs"] == 2
    configure(box, training={"epochs": -2})
    refused = box.run("systemctl", "reload", "lorad", check=False)
    assert refused.returncode != 0
    assert "CONFIG_VALUE" in box.journal("lorad")
    assert box.json("/var/lib/lorad/caches/config.json")["training"]["epochs"] == 2
    box.run("systemctl", "kill", "--kill-whom=main", "-s", "HUP", "lorad")
    box.wait(lambda: box.show("lorad", "StatusText") != "", "it still has a status")
    assert box.pid("lorad") == before
    configure(box)
    box.run("systemctl", "reload", "lorad")
    assert box.json("/var/lib/lorad/caches/config.json")["training"]["epochs"] == 1


def asking(box: Box, meanwhile: list[list[str]]) -> dict[str, Any]:
    """What clients inside see while commands run, each a second after the one before."""
    box.write("/root/asking.py", Path(__file__).with_name("asking.py").read_text())
    (box.root / "root/enough").unlink(missing_ok=True)
    clients = subprocess.Popen(box.inside("python3", "/root/asking.py", "/root/enough"), stdout=subprocess.PIPE, text=True)
    for words in [*meanwhile, ["touch", "/root/enough"]]:
        next_at = time.monotonic() + 1
        box.wait(lambda next_at=next_at: time.monotonic() > next_at, "a second passes")
        box.run(*words)
    found: dict[str, Any] = json.loads(clients.communicate(timeout=120)[0])
    return found


def test_an_upgrade_of_the_serving_code_drops_no_request(box: Box) -> None:
    before = (box.root / "opt/lorad/venv").readlink()
    with open(box.root / "root/lorad/core/names.py", "a") as code:
        code.write("# another version\n")
    upgrade = ["bash", "/root/lorad/scripts/install", "--wheels", "/mnt/wheels", "--extras", EXTRAS]
    found = asking(box, [["systemctl", "restart", "lorad-serve"], upgrade])
    tell("a restart and an upgrade under 4 clients", f"{found['answered']} answered, {len(found['dropped'])} dropped, longest wait {found['longest_gap_s']} s")
    assert found["dropped"] == []
    after = (box.root / "opt/lorad/venv").readlink()
    assert after != before
    assert [place.name for place in (box.root / "opt/lorad").glob("*/installed")] == ["installed"] * 2, "one version, and the link to it"
    assert str(after) in box.run("cat", f"/proc/{box.pid('lorad')}/cmdline").stdout
    assert found["answered"] > 50
    assert len(found["releases"]) == 1, "the same release before and after"


def test_a_kill_9_of_the_server_costs_only_what_was_in_flight(box: Box) -> None:
    found = asking(box, [["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "lorad-serve"], ["sleep", "3"]])
    tell("kill -9 of lorad-serve under 4 clients", f"{len(found['dropped'])} in flight lost, answers again after {found['longest_gap_s']} s")
    assert len(found["dropped"]) <= 4, "one for each client at most"
    assert len(found["releases"]) == 1


def test_secrets_are_readable_by_the_service_alone(box: Box) -> None:
    box.write("/etc/lorad/secrets/api-keys", "not to be seen\n")
    box.run("chmod", "600", "/etc/lorad/secrets/api-keys")
    box.run("systemctl", "restart", "lorad")
    place = "/run/credentials/lorad.service/secret_api-keys"
    as_lorad = ["setpriv", "--reuid=lorad", "--regid=lorad", "--clear-groups", "--"]
    assert box.run(*as_lorad, "cat", place).stdout == "not to be seen\n"
    assert box.run(*as_lorad, "cat", "/etc/lorad/secrets/api-keys", check=False).returncode != 0
    assert box.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", "cat", place, check=False).returncode != 0


def test_people_of_the_group_drop_files_and_cannot_take_those_of_others(box: Box) -> None:
    box.run("useradd", "--groups", "lorad-drop", "alice")
    box.run("useradd", "--groups", "lorad-drop", "bob")
    box.write("/srv/hers.jsonl", rows(5000))
    box.run("systemctl", "stop", "lorad")
    box.run(
        "runuser", "-u", "alice", "--", "sh", "-c", "cp /srv/hers.jsonl /var/lib/lorad/inbox/.h && mv /var/lib/lorad/inbox/.h /var/lib/lorad/inbox/hers.jsonl"
    )
    assert box.run("runuser", "-u", "bob", "--", "rm", "-f", "/var/lib/lorad/inbox/hers.jsonl", check=False).returncode != 0
    assert box.run("runuser", "-u", "bob", "--", "ls", "/var/lib/lorad/keys", check=False).returncode != 0
    box.run("systemctl", "start", "lorad")
    box.wait(lambda: jobs(box).get("hers.jsonl") in JUDGED, "her file is taken, trained and judged")


def test_the_units_are_hardened(box: Box) -> None:
    for unit in ("lorad.service", "lorad-serve.service", "lorad-gc.service"):
        said = box.run("systemd-analyze", "security", unit, "--no-pager").stdout.splitlines()[-1]
        score = float(re.findall(r"\d+\.\d+", said)[-1])
        tell(f"systemd-analyze security {unit}", score)
        assert score <= SCORE


def test_the_timer_tidies_up(box: Box) -> None:
    assert box.show("lorad-gc.timer", "ActiveState") == "active"
    box.run("systemctl", "start", "lorad-gc.service")
    assert box.show("lorad-gc.service", "Result") == "success"


def test_state_survives_power_off_and_boot(box: Box) -> None:
    before, live = jobs(box), box.json("/var/lib/lorad/serving/out/active.json")
    box.power_off()
    booted = box.boot()
    box.wait(lambda: all(box.show(unit, "ActiveState") == "active" for unit in ("lorad", "lorad-serve", "lorad-gc.timer")), "all is up by itself")
    tell("boot until systemd runs", f"{booted:.1f} s")
    assert jobs(box) == before
    box.wait(lambda: box.json("/var/lib/lorad/serving/out/active.json")["aliases"].keys() == live["aliases"].keys(), "the same is live")
    drop(box, "after-boot", 7000)
    box.wait(lambda: jobs(box).get("after-boot.jsonl") in JUDGED, "it goes on")


def test_uninstall_keeps_the_data_and_purge_asks(box: Box) -> None:
    told = box.run("bash", "/root/lorad/scripts/uninstall").stdout
    assert "kept: data /var/lib/lorad" in told
    assert not (box.root / "opt/lorad").exists()
    assert not [place for place in (box.root / "etc/systemd/system").glob("lorad*") if place.suffix != ".d"], "drop-ins are the person's own"
    assert (box.root / "var/lib/lorad/journal.jsonl").exists()
    refused = box.run("bash", "/root/lorad/scripts/uninstall", "--purge", check=False, text="no\n")
    assert refused.returncode == 1
    assert (box.root / "var/lib/lorad").exists()
    box.run("bash", "/root/lorad/scripts/uninstall", "--purge", text="delete\n")
    assert not (box.root / "var/lib/lorad").exists()
    assert not (box.root / "etc/lorad").exists()
    assert "lorad" not in box.read("/etc/passwd")
