"""A base that also sees is trained by its text tower alone, and its adapter works on the whole model, in vLLM's naming too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_cases import DELTA, SMALL, example
from peft import PeftModel
from safetensors.torch import load_file
from trainer_cases import questions, results_of, write_tokenizer

from core.config import Config
from core.errors import ChildError
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from serving.engines.adapter_files import read_adapter as read_served
from serving.engines.adapter_layers import AdapterLayers
from serving.engines.port import only
from trainer.backends.families import forward_for
from trainer.backends.model import Place, load_base, new_adapter, put_adapter_weights, read_adapter, write_adapter
from trainer.backends.peft import PeftBackend
from trainer.convert import pull
from trainer.run import RunFolder

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),
    pytest.mark.filterwarnings("ignore:.*was renamed from.*:UserWarning"),  # PEFT names the base by its path
]

CPU = Place(device="cpu", dtype=torch.float32)
QWEN_EYE = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64, "num_position_embeddings": 16, "patch_size": 4}
GEMMA_EYE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
WHOLE: dict[str, dict[str, Any]] = {
    "qwen3_5": {"text_config": SMALL | DELTA, "vision_config": QWEN_EYE},
    "gemma3": {"text_config": SMALL, "vision_config": GEMMA_EYE, "mm_tokens_per_image": 4},
}
CLASSES = {"qwen3_5": "Qwen3_5ForConditionalGeneration", "gemma3": "Gemma3ForConditionalGeneration"}


@pytest.fixture(scope="module", params=WHOLE)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A whole random model with a vision tower, and its registered base."""
    folder = tmp_path_factory.mktemp("hf") / request.param
    torch.manual_seed(1)
    model = getattr(transformers, CLASSES[request.param])(transformers.AutoConfig.for_model(request.param, **WHOLE[request.param])).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model, pull(Config.model_validate({"model_path": str(folder), "models_dir": str(folder.parent / "models")}), lambda line: None)


def adapted(base: Any) -> Any:
    model = new_adapter(base, Config.model_validate({"lora": {"r": 4}}))
    torch.manual_seed(6)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    return model.eval()


def losses(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return forward_for(model, Config()).token_losses([example(20, range(1, 20)), example(7, [5])])


def test_only_the_text_tower_is_loaded_and_it_is_the_whole_models(whole: tuple[Any, Path]) -> None:
    model, folder = whole
    tower = load_base(folder, CPU)
    assert not [name for name, _ in tower.named_modules() if "vis" in name]
    ids = torch.tensor([list(example(20, [1]).ids)])
    with torch.no_grad():
        torch.testing.assert_close(tower(ids).logits, model(input_ids=ids).logits, atol=1e-6, rtol=1e-6)


def test_the_adapter_works_on_the_whole_model_and_in_serving(whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = whole
    trained = adapted(load_base(folder, CPU))
    write_adapter(trained, tmp_path, "a-base")
    names = list(load_file(tmp_path / "adapter_model.safetensors"))
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["exclude_modules"]
    ids = torch.tensor([list(example(20, [1]).ids)])
    with torch.no_grad():
        wanted = trained(ids).logits
        on_whole = PeftModel.from_pretrained(model, str(tmp_path))
        torch.testing.assert_close(on_whole(input_ids=ids).logits, wanted, atol=1e-6, rtol=1e-6)
        assert not [name for name, _ in on_whole.named_parameters() if "lora" in name and "language_model" not in name]
        on_whole.unload()
        served = load_base(folder, CPU)
        layers = AdapterLayers(served)
        layers.add("r1", *read_served(tmp_path))
        with layers.using([only("r1")]):
            torch.testing.assert_close(served(ids).logits, wanted, atol=1e-6, rtol=1e-6)


def test_the_adapter_comes_back_to_the_text_tower(whole: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = whole
    trained = adapted(load_base(folder, CPU))
    wanted = losses(trained)
    write_adapter(trained, tmp_path, "a-base")
    torch.testing.assert_close(losses(read_adapter(load_base(folder, CPU), tmp_path)), wanted)
    again = new_adapter(load_base(folder, CPU), Config.model_validate({"lora": {"r": 4}}))
    put_adapter_weights(again, tmp_path)
    torch.testing.assert_close(losses(again.eval()), wanted)


def test_an_adapter_with_the_text_towers_own_names_is_read_too(whole: tuple[Any, Path], tmp_path: Path) -> None:
    """As other trainers write it."""
    _, folder = whole
    trained = adapted(load_base(folder, CPU))
    wanted = losses(trained)
    trained.save_pretrained(str(tmp_path))
    torch.testing.assert_close(losses(read_adapter(load_base(folder, CPU), tmp_path)), wanted)


def test_a_job_on_such_a_base_trains_and_scores(whole: tuple[Any, Path], drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]) -> None:
    _, folder = whole
    rows = drop(questions(8), ["train"] * 6 + ["gate"] * 2)
    settings = {"batch_size": 3, "max_length": 128, "training": {"epochs": 2.0, "checkpoints": 1, "threads": 1}}
    task = TrainTask(job="job-1", backend="peft", base=str(folder), rows=(rows,), settings=Config.model_validate(settings).model_dump(mode="json"))
    trained = run_in("01-train")
    PeftBackend().train(task, trained)
    (kept,) = results_of(trained).candidates
    adapter = trained.root / kept.path
    assert all(".language_model." in name for name in load_file(adapter / "adapter_model.safetensors"))
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id=kept.id, adapter=str(adapter)))
    scored = run_in("02-score")
    PeftBackend().score(ScoreTask(job="job-1", backend="peft", base=str(folder), rows=(rows,), split="gate", models=models, settings=task.settings), scored)
    base, after = (sum(json.loads(line)["loss"] for line in (scored.root / path).read_text().splitlines()[1:]) for path in scored.scores.values())
    assert after != base


def test_a_whole_model_without_a_text_tower_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "eye"
    folder.mkdir()
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}))
    (folder / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    base = pull(Config.model_validate({"model_path": str(folder), "models_dir": str(tmp_path / "models")}), lambda line: None)
    with pytest.raises(ChildError, match="cannot load the text part") as caught:
        load_base(base, CPU)
    assert caught.value.code == "BASE_UNREADABLE"
