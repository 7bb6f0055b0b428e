"""`lorad train FILE`: from a file to an adapter without a daemon, a home or a config, with the stub for a trainer."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.train import train, words_of
from core.errors import LoradError
from core.records import Candidate
from trainer.backends import stub

LORAD = Path(sys.executable).with_name("lorad")
ROW = '{"messages": [{"role": "user", "content": "What is number %d?"}, {"role": "assistant", "content": "It is the number %d, as you know."}]}\n'
DEADLINE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    (tmp_path / "rows.jsonl").write_text("".join(ROW % (n, n) for n in range(60)))
    return tmp_path


@pytest.fixture
def trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Train with the stub: (exit status, what it says as JSON)."""

    def run(*words: str, file: str = "rows.jsonl") -> tuple[int, dict[str, Any]]:
        status = train.main([file, "--format", "json", *words], standalone_mode=False)
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return int(status or 0), told

    return run


def test_a_file_becomes_a_peft_folder_with_settings_that_say_why(trained: Any, folder: Path) -> None:
    status, told = trained("--set", "backend=stub", "--set", "num_train_epochs=1", "--set", "lora_rank=4", "--out", "made")
    assert (status, told["state"]) == (0, "trained")
    assert json.loads((folder / "made" / "adapter_config.json").read_text())["r"] == 4
    assert (folder / "made" / "adapter_model.safetensors").is_file()
    assert not {"SEALED", "checkpoint.json"} & {path.name for path in (folder / "made").iterdir()}
    values = told["settings"]["values"]
    assert values["lora.r"]["origin"] == "command line"
    assert values["batch_size"] == {"value": 4, "origin": "settled", "why": "16 rows a step would make fewer than 100 steps"}
    assert told["rows"] == 51, "of 60, nine are dev: no row waits for a verdict that does not come"
    assert told["chosen"]["dev_loss"] is not None
    assert not (folder / "config.json").exists()
    assert {path.name for path in folder.iterdir()} == {"rows.jsonl", "made"}, "no home is made"


def test_a_config_of_another_tool_names_the_rows(trained: Any, folder: Path) -> None:
    (folder / "run.yaml").write_text("datasets:\n  - path: rows.jsonl\nbackend: stub\nlora_r: 4\nnum_epochs: 1\nlearning_rate: 2e-4\nmicro_batch_size: 2\n")
    status, told = trained("--out", "made", file="run.yaml")
    values = told["settings"]["values"]
    assert (status, values["lora.r"]["value"], values["training.micro_batch"]["value"]) == (0, 4, 2)


def interrupted(folder: Path) -> subprocess.CompletedProcess[str]:
    """A training of many steps that got Ctrl-C once it had told of a step."""
    words = [str(LORAD), "train", "rows.jsonl", "--set", "backend=stub", "--set", "epochs=20", "--set", "training.checkpoints=8", "--out", "made"]
    child = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not list(folder.glob("made/work/runs/train/01-train/resume/*/SEALED")):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline, "no resume point came"
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE_S)
    finally:
        if child.poll() is None:
            child.kill()
    return subprocess.CompletedProcess(words, child.returncode, out, err)


def test_ctrl_c_seals_a_resume_point_and_says_how_to_go_on(folder: Path, trained: Any) -> None:
    done = interrupted(folder)
    assert done.returncode == 130, done.stderr
    assert "stopped after step" in done.stdout
    assert "lorad train rows.jsonl --out" in done.stdout
    assert "--resume" in done.stdout
    assert not (folder / "made" / "adapter_config.json").exists()

    with pytest.raises(LoradError) as taken:
        trained("--out", "made")
    assert taken.value.code == "OUT_TAKEN"
    with pytest.raises(LoradError) as changed:
        trained("--out", "made", "--resume", "--set", "lora_rank=2")
    assert changed.value.code == "RESUME_CHANGED"
    rows = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(rows + ROW % (99, 99))
    with pytest.raises(LoradError) as other:
        trained("--out", "made", "--resume")
    assert other.value.code == "RESUME_OTHER_ROWS"

    (folder / "rows.jsonl").write_text(rows)
    stopped_at = int(done.stdout.split("step ")[1].split(" ")[0])
    status, told = trained("--out", "made", "--resume")
    assert (status, told["steps"], told["steps"] == told["total_steps"]) == (0, told["total_steps"], True)
    assert told["seconds"] == pytest.approx((told["total_steps"] - stopped_at) * stub.STEP_S, abs=0.05), "only the steps that were left"
    assert (folder / "made" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("none.jsonl",), "FILE_MISSING"),
        (("rows.jsonl", "--set", "lora_rnak=3"), "CONFIG_UNKNOWN_KEY"),
        (("rows.jsonl", "--set", "train_on_inputs=true"), "CONFIG_FOREIGN"),
        (("rows.jsonl", "--set", "backend=mlx", "--set", "method=full"), "BACKEND_UNABLE"),
        (("rows.jsonl", "--resume"), "NOTHING_TO_RESUME"),
        (("bad.jsonl", "--set", "backend=stub"), "ROWS_REFUSED"),
        (("unnamed.yaml",), "ROWS_UNNAMED"),
        (("missing.yaml",), "FILE_MISSING"),
        (("rows.jsonl", "--set", "backend=stub", "--continue-from", "nowhere"), "ADAPTER_MISSING"),
        (("unnamed.yaml", "--config", "missing.yaml"), "TWO_CONFIGS"),
    ],
)
def test_what_is_wrong_is_said_before_anything_trains(words: tuple[str, ...], code: str, folder: Path) -> None:
    (folder / "bad.jsonl").write_text('{"messages": 3}\n')
    (folder / "unnamed.yaml").write_text("backend: stub\n")
    (folder / "missing.yaml").write_text("train_file: nothing.jsonl\nbackend: stub\n")
    with pytest.raises(LoradError) as caught:
        train.main(list(words), standalone_mode=False)
    assert caught.value.code == code
    assert not list(folder.glob("*/work/runs"))


def test_a_child_that_fails_says_why_in_its_own_words(folder: Path) -> None:
    (folder / "one.jsonl").write_text("".join(ROW % (n, n) for n in range(3)))
    with pytest.raises(LoradError) as caught:
        train.main(["one.jsonl", "--set", "backend=stub", "--set", "distributed.processes=99999"], standalone_mode=False)
    assert caught.value.hint


def test_the_best_checkpoint_is_that_of_the_least_dev_loss() -> None:
    from cli.foreground import best_of

    made = [Candidate(step=step, path=str(step), sha256="", dev_loss=loss) for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5))]
    assert best_of(tuple(made)).step == 2
    assert best_of((Candidate(step=1, path="", sha256=""), Candidate(step=2, path="", sha256=""))).step == 2
    with pytest.raises(LoradError):
        best_of(())


def test_what_was_settled_is_told_with_its_reason_and_what_nobody_touched_is_not() -> None:
    from cli.jobs import settings_lines

    values = {
        "lora.r": {"value": 8, "origin": "settled", "why": "style needs few directions"},
        "batch_size": {"value": 4, "origin": "sidecar", "why": "set by sidecar"},
        "training.seed": {"value": 0, "origin": "default", "why": "lorad's default"},
    }
    told = settings_lines({"values": values, "warnings": ["few steps"], "backend": {"name": "peft", "why": "no GPU is here"}})
    assert told == [
        *("backend peft: no GPU is here", "lora.r = 8  (settled: style needs few directions)", "batch_size = 4  (sidecar)", "warning: few steps"),
    ]
    assert settings_lines({}) == []


def test_progress_is_one_line_for_people() -> None:
    line = {"step": 12, "total_steps": 105, "loss": 1.23456, "tokens_per_s": 1812.4, "eta_s": 120.0}
    assert words_of(line, 1.5) == "step 12 of 105  loss 1.2346  dev 1.5000  1,812 tokens/s  about 2 min left"
    assert words_of({"step": 1, "total_steps": 2}, None) == "step 1 of 2"
