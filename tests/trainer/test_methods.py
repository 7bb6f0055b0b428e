"""What is trained beside plain LoRA: a 4-bit base, DoRA, rsLoRA, every weight; and that each loads where it is to be used."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_cases import progress_of, results_of

from core.config import Config
from core.errors import ChildError
from core.exits import ChildExit
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from store.bases import read_base
from store.child import Stopped
from trainer import run as run_module
from trainer.backends import methods
from trainer.backends.model import choose_place, load_base, new_adapter, read_adapter
from trainer.backends.peft import PeftBackend
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")
RunIn = Callable[..., RunFolder]


@pytest.fixture
def train(tiny_config: Config, tiny_base: Path, train_drop: RowsOf, run_in: RunIn, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)

    def start(name: str = "01-train", run: RunFolder | None = None, checkpoint: str | None = None, **config: Any) -> RunFolder:
        settings = tiny_config.model_dump(mode="json")
        for key, value in config.items():
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
        origins = {"method": "config.json", "learning_rate": "config.json", "batch_size": "config.json", "training.epochs": "config.json"}
        run = run or run_in(name)
        task = TrainTask(job="job-1", backend="peft", base=str(tiny_base), rows=(train_drop,), settings=settings, origins=origins, checkpoint=checkpoint)
        PeftBackend().train(task, run)
        return run

    return start


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in progress_of(run)]


def last_of(run: RunFolder) -> Path:
    return run.root / results_of(run).candidates[-1].path


def gate_loss(folder: Path, base: Path, config: Config, rows: RowsOf, run: RunFolder) -> tuple[float, float]:
    """Loss per token of the base and of an adapter on it, unquantised, on the gate split."""
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id="own", adapter=str(folder)))
    settings = config.model_dump(mode="json")
    PeftBackend().score(ScoreTask(job="job-1", backend="peft", base=str(base), rows=(rows,), split="gate", models=models, settings=settings), run)
    found = []
    for model in models:
        lines = [json.loads(line) for line in (run.root / run.scores[f"gate/{model.id}"]).read_text().splitlines()[1:]]
        found.append(sum(line["loss"] for line in lines) / sum(line["tokens"] for line in lines))
    return found[0], found[1]


# --- 4 bits


def test_an_adapter_learnt_on_a_4_bit_base_is_scored_on_the_unquantised_one(
    train: Callable[..., RunFolder], tiny_base: Path, tiny_config: Config, train_drop: RowsOf, run_in: RunIn
) -> None:
    run = train(method="qlora", training={"epochs": 4.0})
    told = losses(run)
    assert told[-1] < told[0] - 0.2
    base, own = gate_loss(last_of(run), tiny_base, tiny_config, train_drop, run_in("02-score"))
    assert own < base - 0.2


def test_its_base_lies_in_nf4_twice_quantised_and_its_adapter_in_fp32(tiny_base: Path, tiny_config: Config) -> None:
    model = methods.new_trainee(tiny_base, choose_place(), tiny_config.model_copy(update={"method": "qlora"}))
    weight = model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert (type(weight).__name__, weight.dtype, weight.quant_state.quant_type, weight.quant_state.nested) == ("Params4bit", torch.uint8, "nf4", True)
    before = weight.data.clone()
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    assert torch.equal(weight.data, before), "an evaluation leaves the base as it is"
    assert {param.dtype for param in model.parameters() if param.requires_grad} == {torch.float32}
    assert all("lora_" in name for name, param in model.named_parameters() if param.requires_grad)


def test_without_bitsandbytes_the_package_to_install_is_named(tiny_base: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    with pytest.raises(ChildError, match="'bitsandbytes'") as caught:
        methods.new_trainee(tiny_base, choose_place(), tiny_config.model_copy(update={"method": "qlora"}))
    assert (caught.value.code, caught.value.exit_code) == ("METHOD_NOT_INSTALLED", ChildExit.BAD_SPEC)
    assert "pip install 'lorad[qlora]'" in caught.value.hint


def test_a_base_that_is_quantised_already_is_refused(tiny_base: Path, tiny_config: Config, tmp_path: Path) -> None:
    base, weights = tmp_path / "base", tmp_path / "weights"
    shutil.copytree(tiny_base, base)
    shutil.copytree(read_base(tiny_base).weights, weights)
    for path, more in (
        (base / "base.json", {"weights": str(weights)}),
        (weights / "config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    ):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | more))
    with pytest.raises(ChildError, match=r"quantised already \(gptq\)") as caught:
        methods.new_trainee(base, choose_place(), tiny_config.model_copy(update={"method": "qlora"}))
    assert (caught.value.code, caught.value.exit_code) == ("BASE_QUANTISED", ChildExit.BAD_SPEC)


# --- other shapes of an adapter


def trained_a_bit(base: Path, config: Config) -> Any:
    """An adapter of the config's shape with weights that are not 0."""
    model = new_adapter(load_base(base, choose_place()), config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.normal_(std=0.02)
    return model


def test_dora_and_rslora_train_by_pefts_own_forward_and_load_again(
    train: Callable[..., RunFolder], tiny_base: Path, tiny_config: Config, train_drop: RowsOf, run_in: RunIn
) -> None:
    for name, lora in (("dora", {"use_dora": True}), ("rslora", {"use_rslora": True})):
        run = train(name, lora=lora)
        assert losses(run)[-1] < losses(run)[0] - 0.1
        shape = json.loads((last_of(run) / "adapter_config.json").read_bytes())
        assert {key: shape[key] for key in lora} == lora
        base, own = gate_loss(last_of(run), tiny_base, tiny_config, train_drop, run_in(f"{name}-score"))
        assert own < base - 0.1


def test_rslora_scales_by_the_root_of_the_rank_in_training_and_on_the_server(tiny_base: Path, tiny_config: Config, tmp_path: Path) -> None:
    from peft.tuners.lora.layer import LoraLayer

    from serving.engines.adapter_files import read_adapter as read_served
    from serving.engines.port import only
    from serving.engines.torch_model import Placing, TorchModel
    from trainer.backends.model import write_adapter

    config = tiny_config.model_copy(update={"lora": tiny_config.lora.model_copy(update={"r": 9, "alpha": 6, "use_rslora": True})})
    model = trained_a_bit(tiny_base, config)
    write_adapter(model, tmp_path, "tiny")
    trained = read_adapter(load_base(tiny_base, choose_place()), tmp_path)
    served = TorchModel(tiny_base, Placing(threads=1))
    served.adapters.add("release", *read_served(tmp_path))
    for layers in (model.modules(), trained.modules(), served._model.modules()):
        scales = {scale for layer in layers if isinstance(layer, LoraLayer) for scale in layer.scaling.values()}
        assert scales == {6 / math.sqrt(9)}
    prompt, answer = [5, 9, 30, 7], [11, 12, 2]
    with torch.no_grad():
        logits = trained(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    assert served.teach(only("release"), prompt, answer) == pytest.approx([float(logits[place, token]) for place, token in enumerate(answer)], abs=1e-6)


# --- every weight


def test_full_training_leaves_a_model_that_transformers_loads(train: Callable[..., RunFolder], tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train(method="full", learning_rate=2e-3)
    assert losses(run)[-1] < losses(run)[0] - 0.1
    folder = last_of(run)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    before = load_base(tiny_base, choose_place())
    changed = [name for name, param in model.named_parameters() if not torch.equal(param.float(), before.get_parameter(name).float())]
    assert len(changed) == len(list(model.named_parameters())), "every weight was trained, embeddings and norms too"
    assert AutoTokenizer.from_pretrained(folder, local_files_only=True).chat_template


def test_full_training_goes_on_to_the_same_weights(train: Callable[..., RunFolder], run_in: RunIn) -> None:
    class StopAfterTwo(RunFolder):
        def report(self, stage: Any, *, last: bool = False, **values: object) -> None:
            super().report(stage, last=last, **values)
            self.stopping = self.stopping or (stage == "train" and values["step"] == 2)

    whole = train("whole", method="full")
    halved = StopAfterTwo(run_in("halved").root)
    with pytest.raises(Stopped):
        train(run=halved, method="full")
    resumed = train("resumed", method="full", checkpoint=str(halved.root / str(results_of(halved).checkpoint)))
    assert (last_of(resumed) / "model.safetensors").read_bytes() == (last_of(whole) / "model.safetensors").read_bytes()
