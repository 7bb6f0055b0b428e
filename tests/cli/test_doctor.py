"""`lorad doctor`: a sound home is sound, and each thing that is wrong is named with what to do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from cli import checkups
from cli.checkups import registry
from cli.checkups.registry import Answer, Level, Visit, examine
from cli.doctor import as_text, look, visit_of
from core.config import resolve
from store.keys import ensure_keys
from store.locks import take_lock
from store.paths import Box, Home
from store.seals import seal

LORAD = Path(sys.executable).with_name("lorad")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def sensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Made-up devices: a machine without a GPU, until a test says otherwise."""
    path = tmp_path / "sensors.json"
    monkeypatch.setenv("LORAD_SENSORS", str(path))

    def tell(values: dict[str, Any]) -> None:
        path.write_text(json.dumps(values))

    tell({"cpu": {"free_mb": 30_000, "total_mb": 32_000}})
    return tell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home as `lorad init` makes it, with the stub backend."""
    configure(tmp_path)
    home = Home(tmp_path / "var")
    home.prepare()
    ensure_keys(home.keys)
    Box(home.root / "serving").prepare()
    return tmp_path


def configure(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"home": "var", "backend": "stub", "models_dir": "models"} | values))
    return path


def codes(answer: Answer, level: Level | None = None) -> list[str]:
    return [one.code for one in answer.findings if level is None or one.level is level]


def doctor(folder: Path, **options: bool) -> Answer:
    return look(str(folder / "config.json"), **options)


# ---------------------------------------------------------------- a sound machine


def test_a_sound_home_has_no_problem(folder: Path) -> None:
    answer = doctor(folder)
    assert codes(answer, Level.PROBLEM) == []
    assert {"MEMORY", "GPU_NONE", "VERSIONS", "RSYNC", "CONFIG", "NETWORK_NONE", "HOME", "DISK", "WRITABLE", "KEYS", "TARGET"} <= set(codes(answer, Level.OK))
    assert "everything is as it should be" in as_text(answer)


def test_it_answers_at_once_without_torch_and_by_its_exit_status(folder: Path) -> None:
    words = "import sys; from cli.doctor import look; look('config.json'); sys.exit('torch' in sys.modules)"
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", words], cwd=folder, check=False).returncode == 0
    assert time.monotonic() - began < 10  # 1 s on an idle machine
    (folder / "var/keys/release.key").chmod(0o644)
    done = subprocess.run([LORAD, "doctor", "--format", "json"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["problems"] == 1
    assert next(one for one in told["findings"] if one["code"] == "KEY_OPEN")["todo"].startswith("chmod 0600")


def test_every_problem_and_note_with_a_cure_has_a_stable_code() -> None:
    checkups.load()
    names = [one.name for one in registry.CHECKS]
    assert len(names) == len(set(names))
    assert len(names) >= 18


def test_a_check_that_fails_is_a_line_and_not_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkups.load()

    def ill(visit: Visit) -> registry.Findings:
        raise ZeroDivisionError("of the check")
        yield

    monkeypatch.setattr(registry, "CHECKS", [registry.Check("ill", ill, frozenset()), *registry.CHECKS])
    answer = doctor(folder)
    assert answer.findings[0].code == "CHECK_FAILED"
    assert "ZeroDivisionError" in answer.findings[0].text
    assert "HOME" in codes(answer)


# ---------------------------------------------------------------- config


def test_a_wrong_config_is_named_with_the_nearest_key_and_the_rest_is_still_looked_at(folder: Path) -> None:
    configure(folder, learning_rat=1)
    answer = doctor(folder)
    first = next(one for one in answer.findings if one.code == "CONFIG_UNKNOWN_KEY")
    assert "'learning_rate'" in first.todo
    assert "HOME" in codes(answer), "the home is found in spite of it"


def test_a_config_with_a_torn_syntax_still_shows_its_home(folder: Path) -> None:
    (folder / "config.json").write_text('{"home": "var",\n "batch_size": }')
    assert {"CONFIG_SYNTAX", "HOME"} <= set(codes(doctor(folder)))


def test_no_config_at_all_says_init(tmp_path: Path) -> None:
    answer = doctor(tmp_path)
    assert "lorad init" in next(one for one in answer.findings if one.code == "CONFIG_MISSING").todo


def test_files_that_the_config_names_must_be_there(folder: Path) -> None:
    configure(folder, alerts={"urls_file": "urls.txt"}, validation={"references": ["eval.jsonl"]})
    assert {"SECRET_MISSING", "REFERENCE_MISSING"} <= set(codes(doctor(folder), Level.PROBLEM))


def test_closed_windows_and_wishes_for_the_network_are_notes(folder: Path) -> None:
    now = datetime.now().astimezone()
    later = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    configure(folder, schedule={"windows": [later]}, training={"network": True})
    assert {"CLOSED", "NETWORK"} <= set(codes(doctor(folder), Level.NOTE))


# ---------------------------------------------------------------- folders and keys


def test_a_missing_home_is_made_by_fix_and_said(tmp_path: Path) -> None:
    configure(tmp_path)
    assert "HOME_MISSING" in codes(doctor(tmp_path), Level.PROBLEM)
    assert not (tmp_path / "var").exists(), "without --fix nothing is made"
    answer = doctor(tmp_path, fix=True)
    assert "done: made" in click.unstyle(as_text(answer))
    assert codes(doctor(tmp_path), Level.PROBLEM) == []


def test_fix_closes_keys_to_others_and_leaves_their_bytes(folder: Path) -> None:
    (folder / "api.txt").write_text("a-key-of-a-client\n")
    configure(folder, alerts={"urls_file": "api.txt"})
    before = (folder / "var/keys/release.key").read_bytes()
    for path in (folder / "api.txt", folder / "var/keys/release.key"):
        path.chmod(0o644)
    assert codes(doctor(folder), Level.PROBLEM) == ["KEY_OPEN", "KEY_OPEN"]
    answer = doctor(folder, fix=True)
    assert answer.problems == 0
    assert (folder / "api.txt").stat().st_mode & 0o777 == 0o600
    assert (folder / "var/keys/release.key").read_bytes() == before


def test_a_lost_signing_key_is_never_replaced(folder: Path) -> None:
    (folder / "var/keys/release.key").unlink()
    answer = doctor(folder, fix=True)
    assert "KEY_LOST" in codes(answer, Level.PROBLEM)
    assert not (folder / "var/keys/release.key").exists(), "the boxes trust the old one"


def test_only_old_half_written_files_of_ours_are_deleted(folder: Path) -> None:
    home = folder / "var"
    old, new, theirs = home / "jobs/.x.json.1.part", home / "jobs/.y.json.1.part", home / "inbox/.upload.part"
    for path in (old, new, theirs):
        path.write_text("{")
    for path in (old, theirs):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert "PARTS_LEFT" in codes(doctor(folder), Level.NOTE)
    assert old.exists()
    doctor(folder, fix=True)
    assert (old.exists(), new.exists(), theirs.exists()) == (False, True, True)


def test_a_newer_home_and_a_folder_that_is_gone_are_problems(folder: Path) -> None:
    (folder / "var/slots").rmdir()
    assert "FOLDER_MISSING" in codes(doctor(folder), Level.PROBLEM)
    assert doctor(folder, fix=True).problems == 0
    (folder / "var/format.json").write_text('{"format": 99}')
    assert "HOME_NEWER" in codes(doctor(folder), Level.PROBLEM)


def test_a_disk_under_its_floor_is_a_problem(folder: Path) -> None:
    configure(folder, retention={"min_free_mb": 1 << 40})
    assert "DISK_LOW" in codes(doctor(folder), Level.PROBLEM)


# ---------------------------------------------------------------- model, machine


def a_base(folder: Path) -> Path:
    base = folder / "models" / "smollm2-135m-instruct"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    note = {"name": "smollm2", "source": "x", "source_sha256": "0", "tokenizer_sha256": "0", "template_sha256": "0", "weights": ".", "eos_token": "e"}
    (base / "base.json").write_text(json.dumps(note))
    seal(base)
    return base


def test_a_base_is_missing_then_sound_then_damaged_by_one_bit(folder: Path) -> None:
    configure(folder, backend="peft")
    assert "BASE_MISSING" in codes(doctor(folder), Level.PROBLEM)
    base = a_base(folder)
    assert "BASE" in codes(doctor(folder), Level.OK)
    (base / "model.safetensors").write_bytes(b"weighus")
    damaged = next(one for one in doctor(folder).findings if one.code == "BASE_DAMAGED")
    assert str(base / "model.safetensors") in damaged.text
    (base / "SEALED").unlink()
    assert "BASE_UNSEALED" in codes(doctor(folder), Level.PROBLEM)


def test_a_gpu_with_strangers_is_shown_with_their_pids(folder: Path, sensors: Callable[[dict[str, Any]], None]) -> None:
    sensors({"gpus": [{"name": "RTX 4090", "free_mb": 4000, "total_mb": 24564, "celsius": 61, "holders": [{"pid": 4711, "name": "game", "mb": 9000}]}]})
    answer = doctor(folder)
    assert "61 °C" in next(one for one in answer.findings if one.code == "GPU").text
    assert "pid 4711 (game)" in next(one for one in answer.findings if one.code == "GPU_SHARED").text


def test_a_clock_that_cannot_be_true_is_a_problem(folder: Path) -> None:
    checkups.load()
    home = Home(folder / "var")
    visit = visit_of(str(folder / "config.json"), full=False)
    for now in (datetime(1970, 1, 2, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)):
        broken = Visit(config_path=visit.config_path, now=now, config=resolve({}).config, home=home)
        assert "CLOCK_WRONG" in codes(examine(broken, fix=False), Level.PROBLEM)
    later = visit.now + timedelta(days=30)
    home.journal.write_text(json.dumps({"at": later.isoformat(), "action": "x"}) + "\n")
    assert "CLOCK_BACK" in codes(examine(visit, fix=False), Level.PROBLEM)


# ---------------------------------------------------------------- what runs


def test_a_daemon_that_holds_its_lock_and_says_nothing_is_a_problem(folder: Path) -> None:
    home = Home(folder / "var")
    assert "DAEMON_DOWN" in codes(doctor(folder), Level.NOTE)
    lock = take_lock(home.lock, json.dumps({"pid": 4711}), "home", hint="")
    try:
        assert "DAEMON_SILENT" in codes(doctor(folder), Level.PROBLEM)
        now = datetime.now(UTC)
        told: dict[str, Any] = {"at": now.isoformat(), "daemon": {"pid": 4711, "started_at": now.isoformat(), "warnings": []}, "error": None}
        home.status.write_text(json.dumps(told))
        assert "DAEMON" in codes(doctor(folder), Level.OK)
        home.status.write_text(json.dumps(told | {"error": {"code": "DISK_LOW", "what": "no room", "hint": "make some"}}))
        assert "DISK_LOW" in codes(doctor(folder), Level.PROBLEM)
        home.status.write_text(json.dumps(told | {"at": (now - timedelta(minutes=5)).isoformat()}))
        assert "DAEMON_SILENT" in codes(doctor(folder), Level.PROBLEM)
    finally:
        os.close(lock)


def test_a_child_that_outlived_its_daemon_is_noticed(folder: Path) -> None:
    lock = take_lock(folder / "var/slots/0.lock", "x", "slot", hint="")
    try:
        assert "ORPHAN" in codes(doctor(folder), Level.NOTE)
    finally:
        os.close(lock)


def test_a_target_without_a_folder_is_made_by_fix(folder: Path) -> None:
    configure(folder, deploy={"targets": [{"name": "box", "path": "elsewhere"}]})
    assert "TARGET_MISSING" in codes(doctor(folder), Level.PROBLEM)
    assert doctor(folder, fix=True).problems == 0
    assert (folder / "elsewhere" / "in").is_dir()


def test_a_program_that_lorad_starts_is_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert "RSYNC_MISSING" in codes(doctor(folder), Level.PROBLEM)


def test_a_home_that_is_a_file_is_said_and_no_check_falls_ill(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    found = codes(look(str(configure(tmp_path)), fix=True), Level.PROBLEM)
    assert "HOME_NO_FOLDER" in found
    assert not {"CHECK_FAILED", "HOME_MISSING"} & set(found)


def test_folders_that_anybody_may_write_to_are_closed_by_fix(folder: Path) -> None:
    for place in (folder / "var", folder / "var" / "keys"):
        place.chmod(0o777)
    assert codes(look(str(folder / "config.json")), Level.PROBLEM).count("FOLDER_OPEN") == 2
    assert look(str(folder / "config.json"), fix=True).problems == 0
    assert [(folder / name).stat().st_mode & 0o777 for name in ("var", "var/keys")] == [0o775, 0o775]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_of_another_owner_is_a_problem_also_for_root(folder: Path) -> None:
    os.chown(folder / "var" / "jobs", 65534, -1)
    answer = look(str(folder / "config.json"))
    (found,) = (one for one in answer.findings if one.code == "FOLDER_OWNER")
    assert "jobs" in found.text
    assert "chown" in found.todo


def test_a_cron_text_at_which_the_daemon_would_not_start_is_a_problem(folder: Path) -> None:
    configure(folder, schedule={"entries": {"x": {"does": "gc", "cron": "0 3 * * 9"}}})
    assert "CONFIG_VALUE" in codes(look(str(folder / "config.json")), Level.PROBLEM)


def test_a_missing_key_of_the_webhook_and_a_missing_model_path_are_named(folder: Path) -> None:
    configure(folder, backend="peft", model_path="nowhere", alerts={"webhook": "https://example.org", "webhook_key_file": "none.key"})
    found = look(str(folder / "config.json")).findings
    assert any(one.code == "SECRET_MISSING" and "webhook_key_file" in one.text for one in found)
    assert any(one.code == "MODEL_PATH_MISSING" and "nowhere" in one.text for one in found)


def test_a_job_whose_record_cannot_be_read_is_named(folder: Path) -> None:
    job = folder / "var" / "jobs" / "queued" / "job-torn"
    job.mkdir(parents=True)
    (job / "job.json").write_text("{")
    (found,) = (one for one in look(str(folder / "config.json")).findings if one.code == "RECORD_DAMAGED")
    assert "job-torn (queued)" in found.text
