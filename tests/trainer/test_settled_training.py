"""A training settles what nobody set, writes down why, and can find its learning rate by itself."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from trainer_cases import progress_of, questions, results_of

from core.config import Config, resolve
from core.errors import ChildError
from core.exits import ChildExit
from core.hyperparameters import limit_of
from core.tasks import RowsOf, TrainTask
from store.runs import read_settings
from trainer import TrainerEngine
from trainer.backends.ratetrial import Trial, choose
from trainer.run import RunFolder
from trainer.settings import config_of
from trainer.settling import Device, Encoded, facts_of, shape_of_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]


@pytest.fixture
def task(tiny_config: Config, tiny_base: Path, train_drop: RowsOf) -> Callable[..., TrainTask]:
    """A training of 12 rows whose config was resolved as the daemon does it, so that origins are known."""

    def make(rows: RowsOf = train_drop, **said: Any) -> TrainTask:
        said = {"model_path": tiny_config.model_path, "training": {"max_steps": 4, "threads": 1, "checkpoints": 1} | said.pop("training", {})} | said
        record = resolve({"config.json": said}).record()
        return TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(rows,), settings=record["values"], origins=record["origins"])

    return make


def test_the_run_says_what_each_value_became_and_the_adapter_is_of_that_shape(task: Any, run_in: RunIn) -> None:
    run = run_in("01-train")
    note = TrainerEngine(task(profile={"name": "plain"}), run).run()
    settings = read_settings(run.root)
    values = settings["values"]
    assert (values["lora.r"]["value"], values["lora.r"]["origin"]) == (16, "settled")
    assert values["max_length"] == {"value": 256, "origin": "settled", "why": "the base reads at most 256 tokens"}
    assert values["training.max_steps"]["origin"] == "config.json"
    assert any("3 steps are few" in warning for warning in settings["warnings"])
    assert settings["backend"]["name"] == "peft"
    assert settings["data"]["num_rows"] == 12
    assert note.code == ChildExit.DONE
    assert json.loads((run.root / note.candidates[-1].path / "adapter_config.json").read_text())["lora_alpha"] == 32


def test_an_adapter_to_go_on_from_gives_its_shape(task: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 12}')
    assert shape_of_adapter(str(tmp_path)) == (4, 12)
    assert shape_of_adapter(None) == shape_of_adapter(str(tmp_path / "none")) == (0, 0)
    going_on = replace(task(), start=str(tmp_path))
    facts = facts_of(going_on, config_of(going_on), Encoded(rows=(), num_dev=0), Device())
    assert (facts.from_incumbent, facts.start_rank, facts.start_alpha) == (True, 4, 12)


def test_a_training_goes_on_from_an_adapter_and_refuses_one_of_another_base(task: Any, run_in: RunIn, tmp_path: Path) -> None:
    first, second = run_in("first"), run_in("second")
    anew = task(learning_rate=2e-2, batch_size=4, lora={"r": 4}, training={"max_steps": 6})
    note = TrainerEngine(anew, first).run()
    start = first.root / note.candidates[-1].path
    TrainerEngine(replace(anew, start=str(start)), second).run()
    began, went_on = (progress_of(run)[0]["loss"] for run in (first, second))
    assert went_on < began - 0.1
    assert read_settings(second.root)["values"]["lora.r"]["why"] == "that of the adapter that it goes on from"

    shutil.copytree(start, tmp_path / "other")
    save_file({"base_model.model.strange.lora_A.weight": torch.zeros(4, 9)}, tmp_path / "other" / "adapter_model.safetensors")
    with pytest.raises(ChildError) as caught:
        TrainerEngine(replace(anew, start=str(tmp_path / "other")), run_in("third")).run()
    assert (caught.value.code, caught.value.exit_code) == ("ADAPTER_UNFIT", ChildExit.BAD_SPEC)


def test_scoring_reads_rows_no_longer_than_training_did(task: Any, tiny_base: Path) -> None:
    assert config_of(task()).max_length == 256, "of both, by the base"
    assert config_of(task(max_length=64)).max_length == 64
    assert (limit_of({"n_positions": 8}), limit_of({"text_config": {"max_position_embeddings": 9}}), limit_of({})) == (8, 9, 0)


def test_a_job_that_the_backend_cannot_do_is_refused_before_anything_is_loaded(task: Any, run_in: RunIn) -> None:
    run = run_in("01-train")
    with pytest.raises(ChildError, match=r"method = 'full'") as caught:
        TrainerEngine(replace(task(method="full"), backend="mlx"), run).run()
    assert (caught.value.code, caught.value.exit_code) == ("BACKEND_UNABLE", ChildExit.BAD_SPEC)
    assert not progress_of(run, "load")


def test_the_engine_makes_its_folder_and_peft_loads_what_it_leaves(task: Any, tiny_folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    note = TrainerEngine(task(), tmp_path / "new" / "run").run()
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = base(ids).logits.clone()
        after = PeftModel.from_pretrained(base, str(tmp_path / "new" / "run" / note.candidates[-1].path))(ids).logits
    assert not torch.equal(before, after)


def test_auto_rate_tries_three_rates_and_trains_with_the_best(task: Any, run_in: RunIn) -> None:
    run = run_in("01-train")
    TrainerEngine(task(learning_rate=1e-2, batch_size=4, training={"auto_rate": True, "max_steps": 2}), run).run()
    rate = read_settings(run.root)["values"]["learning_rate"]
    assert rate["value"] in (0.00333333, 0.01, 0.03)
    assert all(word in rate["why"] for word in ("0.00333333: ", "0.01: ", "0.03: "))
    assert not (run.root / "trials").exists()
    assert max(line["lr"] for line in progress_of(run)) <= rate["value"]
    assert results_of(run).steps == 2, "the trials are no steps of the training"

    again = run_in("02-train")
    resumed = replace(task(learning_rate=1e-2, batch_size=4, training={"auto_rate": True, "max_steps": 2}), checkpoint=str(run.root / "resume/step_000002"))
    TrainerEngine(resumed, again).run()
    assert read_settings(again.root)["values"]["learning_rate"] == rate, "a resumed training tries nothing"
    assert not progress_of(again), "it was done already"


def test_without_dev_rows_the_rate_stays_and_a_warning_says_so(task: Any, drop: Any, run_in: RunIn) -> None:
    run = run_in("01-train")
    TrainerEngine(task(drop(questions(8), name="small"), learning_rate=1e-2, training={"auto_rate": True, "max_steps": 1}), run).run()
    settings = read_settings(run.root)
    assert settings["values"]["learning_rate"]["value"] == 1e-2
    assert any("auto_rate has no effect" in warning for warning in settings["warnings"])


def test_of_the_rates_tried_the_least_loss_wins_and_failures_never_do() -> None:
    inf = float("inf")
    assert choose([Trial(rate=1e-4, dev_loss=2.0), Trial(rate=3e-4, dev_loss=1.5), Trial(rate=9e-4, dev_loss=inf)], 3e-4)[0] == 3e-4
    assert choose([Trial(rate=1e-4, dev_loss=1.5), Trial(rate=3e-4, dev_loss=1.5)], 3e-4)[0] == 1e-4
    rate, why = choose([Trial(rate=1e-4, dev_loss=inf), Trial(rate=3e-4, dev_loss=inf)], 3e-4)
    assert rate == 3e-4
    assert "none of the rates" in why
