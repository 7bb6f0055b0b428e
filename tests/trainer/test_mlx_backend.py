"""MLX trains the same rows in the same order, and its adapters are PEFT folders."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_cases import note_of, progress_of

from core.config import Config
from core.tasks import RowsOf, TrainTask
from store.runs import write_spec
from trainer.run import RunFolder

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")


def task_of(config: Config, base: Path, rows: RowsOf, backend: str) -> TrainTask:
    return TrainTask(job="job-1", backend=backend, base=str(base), rows=(rows,), settings=config.model_dump(mode="json"))


@pytest.fixture
def config(tiny_config: Config) -> Config:
    training = tiny_config.training.model_copy(update={"boards": ()})
    return tiny_config.model_copy(update={"training": training, "lora": tiny_config.lora.model_copy(update={"r": 4, "alpha": 8})})


def test_an_adapter_of_mlx_gives_the_same_logits_in_peft(tmp_path: Path, tiny_base: Path, config: Config) -> None:
    from trainer.silence import hush

    hush()
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from store.bases import weights_folder
    from trainer.backends import mlxmodel

    model = mlxmodel.load_base(tiny_base)
    layers = mlxmodel.attach(model, config)
    drawn = [(name, mx.random.normal(array.shape) * 0.1) for name, array in mlxmodel.adapter_weights(model).items()]
    model.load_weights(drawn, strict=False)
    mlxmodel.write_adapter(model, layers, tmp_path, config, "tiny")
    base = AutoModelForCausalLM.from_pretrained(weights_folder(tiny_base), dtype=torch.float32)
    ids = [[1, 5, 7, 9, 20, 33, 8]]
    plain = base(torch.tensor(ids)).logits.detach().numpy()
    adapted = PeftModel.from_pretrained(base, str(tmp_path)).eval()(torch.tensor(ids)).logits.detach().numpy()
    ours = np.array(model(mx.array(ids)).astype(mx.float32))
    assert abs(ours - adapted).max() < 2e-5
    assert abs(adapted - plain).max() > 0.01  # it does something
    put_back = mlxmodel.from_peft(mx.load(str(tmp_path / mlxmodel.WEIGHTS)))
    assert all(mx.array_equal(put_back[name], array) for name, array in drawn)


def test_mlx_goes_through_the_same_steps_as_peft(config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder]) -> None:
    from trainer.backends.mlx import MlxBackend
    from trainer.backends.peft import PeftBackend

    runs = {}
    for name, backend in (("mlx", MlxBackend()), ("peft", PeftBackend())):
        task = task_of(config, tiny_base, train_drop, name)
        runs[name] = run_in(name, task)
        backend.train(task, runs[name])
    mlx, peft = (progress_of(runs[name]) for name in ("mlx", "peft"))
    assert [line["lr"] for line in mlx if line["step"] in (1, 6)] == [line["lr"] for line in peft if line["step"] in (1, 6)]
    # B is zero at first, so that the loss of step 1 is the base's, whatever was drawn for A.
    assert mlx[0]["loss"] == pytest.approx(peft[0]["loss"], rel=2e-3)
    dev = [progress_of(run, "dev")[-1]["dev_loss"] for run in runs.values()]
    assert dev[0] == pytest.approx(dev[1], rel=0.05)
    assert (runs["mlx"].root / "report.md").is_file()


def test_a_stopped_mlx_training_goes_on_to_the_same_adapter(config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder]) -> None:
    from dataclasses import replace

    from store.child import Stopped
    from trainer.backends.mlx import MlxBackend

    task = task_of(config, tiny_base, train_drop, "mlx")
    whole, first, second = run_in("whole", task), run_in("01-train", task), run_in("02-train")
    MlxBackend().train(task, whole)

    def stop_at_three(line: object) -> None:
        if isinstance(line, dict) and line["stage"] == "train":
            first.on_term(signal.SIGTERM, None)

    first.listeners.append(stop_at_three)
    with pytest.raises(Stopped):
        MlxBackend().train(task, first)
    resume = max((first.root / "resume").iterdir())
    assert json.loads((resume / "state.json").read_bytes())["step"] < 6
    again = replace(task, checkpoint=str(resume))
    write_spec(second.root, again)
    MlxBackend().train(again, second)
    ends = [max((run.root / "checkpoints").iterdir()) / "adapter_model.safetensors" for run in (whole, second)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_targets_that_match_nothing_are_named_with_what_there_is(tiny_base: Path, config: Config) -> None:
    from core.errors import ChildError
    from trainer.backends import mlxmodel

    wrong = config.model_copy(update={"lora": config.lora.model_copy(update={"targets": "query"})})
    with pytest.raises(ChildError, match="query") as caught:
        mlxmodel.attach(mlxmodel.load_base(tiny_base), wrong)
    assert "q_proj" in caught.value.hint


def test_the_child_trains_with_mlx(
    config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder], child: Callable[[RunFolder], object]
) -> None:
    run = run_in("child", task_of(config, tiny_base, train_drop, "mlx"))
    process = child(run)
    assert process.wait(120) == 0, (run.root / "log.txt").read_text()[-2000:]  # type: ignore[attr-defined]
    assert note_of(run).candidates[-1].step == 6


def test_pairs_are_refused_before_anything_is_loaded(config: Config, tiny_base: Path, train_drop: RowsOf, run_in: Callable[..., RunFolder]) -> None:
    from dataclasses import replace

    from core.errors import ChildError
    from trainer.engine import TrainerEngine

    task = task_of(config, tiny_base, replace(train_drop, schema_id="preference_v1"), "mlx")
    with pytest.raises(ChildError, match="objective = 'dpo'") as caught:
        TrainerEngine(task, run_in("pairs")).run()
    assert caught.value.code == "BACKEND_UNABLE"
