"""One training on a tiny model, in this process."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_cases import chat, progress_of, questions, results_of

from core.config import Config
from core.errors import ChildError, LoradError
from core.exits import ChildExit
from core.tasks import RowsOf, TrainTask
from store import codec
from store.child import Stopped
from store.seals import SEAL, check_seal
from trainer import run as run_module
from trainer import space
from trainer.backends import training
from trainer.backends.peft import PeftBackend
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]
Change = Callable[..., TrainTask]


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, train_drop: RowsOf) -> Change:
    """A training of 12 rows, 6 steps; changes are keys of the config or of the task."""

    def make(rows: RowsOf = train_drop, config: dict[str, Any] | None = None, **changes: Any) -> TrainTask:
        settings = tiny_config.model_dump(mode="json")
        for key, value in (config or {}).items():
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
        return TrainTask(**{"job": "job-1", "backend": "peft", "base": str(tiny_base), "rows": (rows,), "settings": settings, **changes})

    return make


class StopAfter(RunFolder):
    """Asks for a stop once so many steps were reported."""

    def __init__(self, root: Path, step: int) -> None:
        super().__init__(root)
        self.stop_at = step

    def report(self, stage: Any, *, last: bool = False, **values: object) -> None:
        super().report(stage, last=last, **values)
        if stage == "train" and values["step"] == self.stop_at:
            self.stopping = True


def losses_of(run: RunFolder) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in progress_of(run)}


def weights_of(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.root / f"checkpoints/step_{step:06d}/adapter_model.safetensors")


def test_a_training_ends_with_sealed_checkpoints_and_says_how_it_went(task: Change, run_in: RunIn) -> None:
    run = run_in("01-train")
    PeftBackend().train(task(), run)
    note = results_of(run)
    assert (note.steps, note.total_steps, note.checkpoint) == (6, 6, "resume/step_000006")
    assert [candidate.path for candidate in note.candidates] == ["checkpoints/step_000003", "checkpoints/step_000006"]
    for candidate in note.candidates:
        folder = run.root / candidate.path
        assert check_seal(folder) == candidate.sha256
        assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "checkpoint.json", SEAL}
        shape = json.loads((folder / "adapter_config.json").read_text())
        assert (shape["peft_type"], shape["r"], shape["base_model_name_or_path"]) == ("LORA", 16, codec.read(dict, Path(task().base) / "base.json")["name"])
    lines = progress_of(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"at", "loss", "lr", "tokens_per_s", "supervised_share", "eta_s", "memory_mb", "total_steps"} <= lines[0].keys()
    assert lines[-1]["eta_s"] == 0
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert progress_of(run, "dev")[-1]["dev_loss"] == pytest.approx(note.candidates[-1].dev_loss, rel=1e-5)
    assert sorted(path.name for path in (run.root / "resume").iterdir()) == ["step_000003", "step_000006"], "the newest, and the one before"


def test_adapter_weights_are_fp32_and_start_from_the_seed(task: Change, run_in: RunIn) -> None:
    runs = [run_in("01-train"), run_in("02-train"), run_in("03-train")]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        PeftBackend().train(task(config={"training": {"seed": seed, "max_steps": 1}}), run)
    first, again, other = (weights_of(run, 1) for run in runs)
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("stop_at", [2, 3, 5])
def test_stop_and_resume_make_the_steps_of_an_uninterrupted_training(stop_at: int, task: Change, run_in: RunIn) -> None:
    """With dropout, so that the random state counts too."""
    change = {"lora": {"dropout": 0.1}}
    whole = run_in("whole")
    PeftBackend().train(task(config=change), whole)
    stopped = StopAfter(run_in("01-train").root, stop_at)
    with pytest.raises(Stopped):
        PeftBackend().train(task(config=change), stopped)
    checkpoint = results_of(stopped).checkpoint
    assert checkpoint == f"resume/step_{stop_at:06d}"
    resumed = run_in("02-train")
    PeftBackend().train(task(config=change, checkpoint=str(stopped.root / checkpoint)), resumed)
    assert list(losses_of(resumed)) == list(range(stop_at + 1, 7))
    assert losses_of(stopped) | losses_of(resumed) == pytest.approx(losses_of(whole), abs=1e-6)
    assert [candidate.step for candidate in results_of(resumed).candidates] == [3, 6]
    for name, tensor in weights_of(whole, 6).items():
        torch.testing.assert_close(weights_of(resumed, 6)[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_a_stop_during_the_dev_loss_makes_up_for_the_checkpoint_later(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = run_in("01-train")
    real = training.Training._dev_loss

    def stop_first(self: training.Training) -> Any:
        self.run.stopping = True
        return real(self)

    monkeypatch.setattr(training.Training, "_dev_loss", stop_first)
    with pytest.raises(Stopped):
        PeftBackend().train(task(), stopped)
    note = results_of(stopped)
    assert (note.candidates, note.checkpoint) == ((), "resume/step_000003")
    monkeypatch.setattr(training.Training, "_dev_loss", real)
    resumed = run_in("02-train")
    PeftBackend().train(task(checkpoint=str(stopped.root / "resume/step_000003")), resumed)
    assert [candidate.step for candidate in results_of(resumed).candidates] == [3, 6]


@pytest.mark.parametrize("damage", ["bytes", "other settings", "gone"])
def test_a_resume_point_that_does_not_fit_is_left_alone(damage: str, task: Change, run_in: RunIn, caplog: pytest.LogCaptureFixture) -> None:
    stopped = StopAfter(run_in("01-train").root, 2)
    with pytest.raises(Stopped):
        PeftBackend().train(task(), stopped)
    folder = stopped.root / "resume/step_000002"
    if damage == "bytes":
        (folder / "optimizer.safetensors").write_bytes(b"torn")
    if damage == "gone":
        shutil.rmtree(folder)
    change = {"learning_rate": 1e-3} if damage == "other settings" else {}
    anew = run_in("02-train")
    PeftBackend().train(task(config=change, checkpoint=str(folder)), anew)
    assert list(losses_of(anew)) == [1, 2, 3, 4, 5, 6]
    assert "starting anew" in caplog.text


def test_a_rotten_resume_point_gives_way_to_the_one_before(task: Change, run_in: RunIn, caplog: pytest.LogCaptureFixture) -> None:
    stopped = StopAfter(run_in("01-train").root, 4)
    with pytest.raises(Stopped):
        PeftBackend().train(task(), stopped)
    newest = stopped.root / "resume/step_000004"
    weights = bytearray((newest / "optimizer.safetensors").read_bytes())
    weights[-1] ^= 1
    (newest / "optimizer.safetensors").write_bytes(weights)
    resumed = run_in("02-train")
    PeftBackend().train(task(checkpoint=str(newest)), resumed)
    assert list(losses_of(resumed)) == [4, 5, 6], "after step 3, the one before"
    assert [candidate.step for candidate in results_of(resumed).candidates] == [3, 6]
    assert "has other bytes than were sealed" in caplog.text


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_micro_batch_does_not_change_the_training(micro_batch: int, task: Change, run_in: RunIn) -> None:
    whole, cut = run_in("01-train"), run_in("02-train")
    PeftBackend().train(task(), whole)
    PeftBackend().train(task(micro_batch=micro_batch), cut)
    # bf16 products of other shapes round at other places
    assert losses_of(cut) == pytest.approx(losses_of(whole), rel=5e-3)


def test_a_torn_checkpoint_is_not_a_candidate(task: Change, run_in: RunIn) -> None:
    run = run_in("01-train")
    PeftBackend().train(task(), run)
    (run.root / "checkpoints/step_000003" / SEAL).unlink()
    (run.root / "resume/step_000006" / SEAL).unlink()
    assert [candidate.step for candidate in results_of(run).candidates] == [6]
    assert results_of(run).checkpoint == "resume/step_000003", "the one before is kept for that"


def test_a_few_overlong_rows_are_left_out(task: Change, run_in: RunIn, drop: Callable[..., RowsOf], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = run_in("01-train")
    rows = drop([*questions(11), chat("Go on", "and on " * 100)], name="long")
    PeftBackend().train(task(rows, config={"training": {"max_overlong_share": 0.1, "epochs": 1.0}}), run)
    assert run.total_steps == 3  # 11 rows
    assert "train: 11 rows, 1 over max_length" in caplog.text


@pytest.mark.parametrize(
    ("rows", "splits", "code", "word"),
    [
        ([*questions(3), chat("Go on", "and on " * 100)], [], "TOO_MANY_OVERLONG", "1 of 4 train rows (25.0%)"),
        ([{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "weight": 0}]}], [], "NOTHING_TO_LEARN", "none of 1"),
        ([chat("Hi", "Ho", weight=0)], [], "NOTHING_TO_LEARN", "none of 1"),
        (questions(4), ["dev", "dev", "gate", "gate"], "NO_TRAIN_ROWS", "no row of the train split"),
    ],
)
def test_rows_that_cannot_be_trained_on_end_the_job(
    rows: list[dict[str, Any]], splits: list[str], code: str, word: str, task: Change, run_in: RunIn, drop: Callable[..., RowsOf]
) -> None:
    with pytest.raises(ChildError) as caught:
        PeftBackend().train(task(drop(rows, splits, name="bad")), run_in("01-train"))
    assert (caught.value.exit_code, caught.value.code) == (ChildExit.BAD_DATA, code)
    assert word in caught.value.what
    assert caught.value.hint


def test_a_target_that_the_base_does_not_have_is_a_bad_spec(task: Change, run_in: RunIn) -> None:
    with pytest.raises(ChildError, match="nose") as caught:
        PeftBackend().train(task(config={"lora": {"targets": "nose"}}), run_in("01-train"))
    assert (caught.value.exit_code, caught.value.code) == (ChildExit.BAD_SPEC, "LORA_TARGETS")


def test_settings_of_another_lorad_are_a_bad_spec(task: Change, run_in: RunIn) -> None:
    with pytest.raises(ChildError, match="nose") as caught:
        PeftBackend().train(replace(task(), settings={"nose": 1}), run_in("01-train"))
    assert caught.value.exit_code is ChildExit.BAD_SPEC


def test_a_full_disk_is_noticed_before_a_checkpoint_is_written(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    run = run_in("01-train")
    with pytest.raises(LoradError, match="no room for a checkpoint") as caught:
        PeftBackend().train(task(), run)
    assert caught.value.code == "DISK_FULL"
    assert results_of(run).candidates == ()


def test_rows_without_a_dev_split_train_without_a_dev_loss(task: Change, run_in: RunIn, drop: Callable[..., RowsOf]) -> None:
    run = run_in("01-train")
    PeftBackend().train(task(drop(questions(4), name="small"), config={"training": {"epochs": 1.0}}), run)
    assert [candidate.dev_loss for candidate in results_of(run).candidates] == [None]


def test_without_bf16_the_base_computes_in_fp32(task: Change, run_in: RunIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from trainer.backends import model

    caplog.set_level("INFO")
    monkeypatch.setattr(model, "cpu_has_bf16", lambda: False)
    PeftBackend().train(task(config={"training": {"max_steps": 1}}), run_in("01-train"))
    assert "llama, float32" in caplog.text
