"""The command line as a person and a script meet it: words, exit codes, exact JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LORAD = Path(sys.executable).with_name("lorad")
GOOD = '{"messages": [{"role": "user", "content": "What is %d?"}, {"role": "assistant", "content": "A number, %d."}]}\n'


def lorad(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LORAD, *words], capture_output=True, text=True, cwd=folder, env=os.environ | (env or {}), check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"home": "var", "backend": "stub"} // my config\n')
    return tmp_path


def test_init_writes_a_config_that_names_every_key_and_loads(tmp_path: Path) -> None:
    done = lorad(tmp_path, "init")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "config.json").read_text()
    for key in ("learning_rate", "lora.r", "training.epochs", "ranking.margin", "serving.host"):
        assert f'"{key}"' in text
    assert (tmp_path / "var" / "keys" / "release.pub").exists()
    assert (tmp_path / "var" / "serving" / "in").is_dir()
    again = lorad(tmp_path, "init")
    assert "kept" in again.stdout
    assert (tmp_path / "config.json").read_text() == text


def test_every_commented_key_of_the_written_config_can_be_uncommented(tmp_path: Path) -> None:
    lorad(tmp_path, "init")
    lines = (tmp_path / "config.json").read_text().splitlines()
    opened = [line.replace("// ", "", 1) if line.startswith('  // "') else line for line in lines]
    (tmp_path / "open.json").write_text("\n".join(opened))
    done = lorad(tmp_path, "models", "list", "--config", "open.json")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["jobs", "list", "--formt", "json"], 3, "--formt"),
        (["nonsense"], 3, "nonsense"),
        (["jobs", "show", "job-1"], 3, "JOB_UNKNOWN"),
        (["jobs", "cancel", "job-1"], 1, "DAEMON_DOWN"),
        (["adapters", "show", "no/such"], 3, "ADAPTER_UNKNOWN"),
        (["drop", "missing.jsonl"], 3, "FILE_MISSING"),
        (["drop", "--set", "lora.rr=3", "x.jsonl"], 3, "lora.r"),
        (["drop", "--set", "model_path=/x", "x.jsonl"], 3, "SIDECAR_FORBIDDEN_KEY"),
        (["drop", "--set", "nokey", "x.jsonl"], 3, "KEY=VALUE"),
        (["drop", "--adapter", "../x", "x.jsonl"], 3, "ADAPTER_NAME"),
        (["drop", "--not-before", "0001-01-01T00:00", "x.jsonl"], 3, "not_before"),
        (["drop", "--source", "\udcff", "x.jsonl"], 3, "NOT_UTF8"),
        (["jobs", "list", "--state", "waiting"], 3, "queued"),
        (["jobs", "logs", "job-1", "--lines", "-1"], 3, "--lines"),
        (["status", "--config", "none.json"], 3, "CONFIG_MISSING"),
        (["adapters", "rollback", "a/main", "--to", "v9"], 3, "RELEASE_UNKNOWN"),
    ],
)
def test_a_wrong_word_is_named_with_what_to_do(folder: Path, words: list[str], status: int, said: str) -> None:
    (folder / "x.jsonl").write_text(GOOD % (1, 1))
    done = lorad(folder, *words)
    assert done.returncode == status, done.stderr
    assert said in done.stderr


def test_an_empty_state_is_no_empty_queue(folder: Path) -> None:
    assert lorad(folder, "jobs", "list", "--state", "held").stdout == "no job is held\n"


def test_config_check_tells_what_a_reload_changes_from_what_waits_for_a_restart(folder: Path) -> None:
    from core.config import resolve
    from daemon.reload import write_in_force
    from store.locks import take_lock
    from store.paths import Home

    home = Home(folder / "var")
    home.prepare()
    write_in_force(home, resolve({"config.json": {"home": str(home.root), "backend": "stub"}}).config)
    (folder / "config.json").write_text('{"home": "var", "backend": "stub", "slots": 2, "batch_size": 8}')
    held = take_lock(home.lock, "{}", "a daemon", hint="")
    said = lorad(folder, "config", "check").stdout
    os.close(held)
    assert "`lorad reload` would change" in said.split("; ")[1]
    assert "batch_size" in said.split("; ")[1]
    assert "slots waits for a restart of lorad" in said
    assert "slots" not in said.split("; ")[1]


def test_a_typo_in_the_config_names_the_nearest_key(folder: Path) -> None:
    (folder / "config.json").write_text('{"learning_rat": 1}')
    done = lorad(folder, "daemon")
    assert done.returncode == 3
    assert "'learning_rat'" in done.stderr
    assert "'learning_rate'" in done.stderr


def test_the_config_is_found_by_option_by_environment_and_in_the_folder(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"home": "elsewhere"}')
    homes = [
        json.loads(lorad(folder, "status", "--format", "json").stdout),
        json.loads(lorad(folder, "status", "--format", "json", env={"LORAD_CONFIG": str(other)}).stdout),
        json.loads(lorad(folder, "status", "--format", "json", "--config", "other.json", env={"LORAD_CONFIG": "none"}).stdout),
    ]
    assert [Path(found["daemon"]["home"]).name for found in homes] == ["var", "elsewhere", "elsewhere"]
    assert not any(found["running"] for found in homes)


def test_check_needs_no_daemon_and_says_yes_or_no_by_its_exit_status(folder: Path) -> None:
    (folder / "good.jsonl").write_text("".join(GOOD % (n, n) for n in range(20)))
    (folder / "bad.jsonl").write_text("".join(GOOD % (n, n) for n in range(20)) + '{"messages": []}\n')
    assert lorad(folder, "check", "good.jsonl").returncode == 0
    done = lorad(folder, "check", "bad.jsonl", "--format", "json")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert report["verdict"] == "refused"
    assert report["findings"][0]["lines"] == [21]
    assert report["findings"][0]["hint"]
    assert lorad(folder, "check", "good.jsonl", "--schema", "chat_sft_v2").returncode != 0


def test_status_before_the_first_start_says_how_to_start(folder: Path) -> None:
    done = lorad(folder, "status")
    assert done.returncode == 0
    assert "lorad daemon" in done.stdout


def test_an_empty_queue_is_an_empty_array(folder: Path) -> None:
    assert json.loads(lorad(folder, "jobs", "list", "--format", "json").stdout) == []
    assert json.loads(lorad(folder, "adapters", "list", "--format", "json").stdout) == []
    assert json.loads(lorad(folder, "adapters", "history", "a/main", "--format", "json").stdout)["live"] == []


def test_dropping_without_a_daemon_puts_the_file_into_the_inbox(folder: Path) -> None:
    (folder / "x.jsonl").write_text(GOOD % (1, 1))
    done = lorad(folder, "drop", "x.jsonl", "--adapter", "support/tone", "--priority", "3", "--set", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    lying = folder / "var" / "inbox" / "support" / "tone"
    assert (lying / "x.jsonl").read_text() == GOOD % (1, 1)
    assert json.loads((lying / "x.job.json").read_text()) == {"training": {"epochs": 1}, "priority": 3}
    assert lorad(folder, "drop", "x.jsonl", "--wait").returncode == 1
