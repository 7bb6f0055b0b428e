"""What a training leaves for people: report, picture, boards."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from trainer import boards
from trainer.boards import Boards
from trainer.curve import Curve, smoothed
from trainer.gauges import Gauges, idle_reason
from trainer.run import RunFolder
from trainer.runreport import Shown, Story, judgement, read_curve, write_report


def story(**changes: object) -> Story:
    told: dict[str, object] = {
        "base": "tiny",
        "backend": "peft",
        "why": "torch is installed",
        "path": "rows lie flat one after another",
        "device": "cpu",
        "train_rows": 40,
        "dev_rows": 4,
        "overlong": 1,
        "silent": 2,
        "supervised_share": 0.5,
        "longest": 99,
        "batch_size": 8,
        "micro_batch": 8,
        "memory_mb": 700,
    }
    return Story(**(told | changes))  # type: ignore[arg-type]


def trained(root: Path, dev: list[tuple[int, float]]) -> RunFolder:
    """A run folder whose progress tells of ten steps and these dev losses."""
    run = RunFolder(root)
    root.mkdir(exist_ok=True)
    for step in range(1, 11):
        run.report("train", last=True, step=step, total_steps=10, loss=3.0 - step / 10, lr=1e-4, tokens_per_s=100.0 * step, share_of_limit=0.52)
    for step, loss in dev:
        run.report("dev", last=True, step=step, total_steps=10, dev_loss=loss)
    return run


def test_a_newcomer_reads_what_happened(tmp_path: Path) -> None:
    trained(tmp_path, [(5, 2.5), (10, 2.1)])
    (tmp_path / "settings.json").write_text(
        json.dumps({"values": {"lora.r": {"value": 32, "origin": "lorad", "why": "much knowledge"}, "x": {"value": 1, "origin": "default"}}})
    )
    write_report(tmp_path, story(warnings=("10 steps are few",)))
    text = (tmp_path / "report.md").read_text()
    for wanted in (
        "10 of 10 steps",
        "fell from 2.500 to 2.100",
        "50% of the tokens are learnt",
        "52% of what",
        "10 steps are few",
        "| `lora.r` | 32 |",
        "600 tokens/s",
    ):
        assert wanted in text, wanted
    assert "`x`" not in text  # a default without a reason tells nobody anything


def test_the_picture_is_an_image_that_names_its_curves(tmp_path: Path) -> None:
    trained(tmp_path, [(5, 2.5), (10, 2.1)])
    write_report(tmp_path, story())
    drawn = ElementTree.fromstring((tmp_path / "loss.svg").read_text())  # noqa: S314 - our own file
    assert drawn.tag.endswith("svg")
    again = (tmp_path / "loss.svg").read_text()
    assert "Date" not in again or "20" not in again.split("Date")[1][:40]


def test_learnt_text_lies_below_samples_and_nowhere_else(tmp_path: Path) -> None:
    trained(tmp_path, [(10, 2.1)])
    write_report(tmp_path, story(shown=(Shown(drop="d1", line=7, spans=("a secret answer<end>",)),)))
    assert "a secret answer<end>" in (tmp_path / "samples/supervised.md").read_text()
    for path in tmp_path.iterdir():
        assert path.is_dir() or "secret" not in path.read_text(), path


def test_a_dev_loss_that_rises_again_is_called_learning_by_heart() -> None:
    assert "by heart" in judgement(Curve(dev=[(5, 2.0), (10, 1.5), (15, 1.7)]))
    assert "best at the end" in judgement(Curve(dev=[(5, 2.0), (10, 1.5)]))
    assert "hardly moved" in judgement(Curve(dev=[(5, 2.0), (10, 1.999)]))
    assert "too few" in judgement(Curve(dev=[(5, 2.0)]))


def test_a_line_torn_by_a_crash_costs_that_line_only(tmp_path: Path) -> None:
    trained(tmp_path, [])
    with open(tmp_path / "progress.jsonl", "ab") as file:
        file.write(b'{"stage": "train", "step": 11, "lo\n{"stage": "dev", "step": 12, "dev_loss": 1.0}\n')
    curve = read_curve(tmp_path)
    assert [step for step, _ in curve.losses] == list(range(1, 11))
    assert curve.dev == [(12, 1.0)]


def test_the_smoothed_curve_is_the_mean_of_the_last_tenth() -> None:
    points = [(step, float(step)) for step in range(1, 21)]
    assert smoothed(points)[-1] == (20, 19.5)
    assert smoothed(points)[0] == (1, 1.0)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder(tmp_path)
    told = Boards(("tensorboard",), tmp_path, "job-1")
    run.listeners.append(told.hear)
    for step in (1, 2):
        run.report("train", last=True, step=step, total_steps=2, loss=2.0 / step, lr=1e-4)
    run.report("dev", last=True, step=2, total_steps=2, dev_loss=0.75)
    told.close()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("train/dev_loss")] == [(2, 0.75)]


def test_a_board_that_is_missing_or_fails_is_named_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __init__(self, root: Path, job: str) -> None:
            pass

        def add(self, step: int, values: object) -> None:
            raise ConnectionError("no route")

        def close(self) -> None:
            pass

    def missing(root: Path, job: str) -> Broken:
        raise ModuleNotFoundError(name="wandb")

    monkeypatch.setitem(boards.BOARDS, "mlflow", Broken)
    monkeypatch.setitem(boards.BOARDS, "wandb", missing)
    told = Boards(("mlflow", "wandb"), tmp_path, "job-1")
    for step in (1, 2):
        told.hear({"stage": "train", "step": step, "loss": 1.0})
    told.close()
    assert caplog.text.count("no route") == 1  # then it is left out
    assert "pip install wandb" in caplog.text


def test_a_gauge_that_cannot_be_read_is_no_reason_to_stop() -> None:
    assert "gpu_use" not in Gauges().read("cpu")
    assert Gauges().read("NVIDIA Something") == {}  # no driver here


def test_a_gpu_that_waits_is_told_with_its_cause() -> None:
    assert idle_reason(0.9, micro_batch=1, batch_size=16, checkpointing=False) == ""
    assert "raise training.micro_batch" in idle_reason(0.5, micro_batch=1, batch_size=16, checkpointing=False)
    assert "computed twice" in idle_reason(0.5, micro_batch=16, batch_size=16, checkpointing=True)


def test_the_limit_counts_the_products_of_a_token() -> None:
    from trainer.silence import hush

    hush()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainer.backends.limit import flops_per_token, product_flops

    shape = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=300, tie_word_embeddings=True)
    base = LlamaForCausalLM(shape)
    base.requires_grad_(False)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    blocks, head, adapter = 2 * (4 * 64 * 64 + 3 * 64 * 128), 300 * 64, 2 * (4 * 64 + 64 * 4)
    assert flops_per_token(model, 0.5) == 4 * blocks + 4 * head * 0.5 + 6 * adapter
    assert product_flops(torch.device("cpu"), torch.float32) > 1e8
