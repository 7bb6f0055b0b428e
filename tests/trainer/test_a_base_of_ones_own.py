"""`lorad models init`: a base with more tokens, on which a plain LoRA trains and serves like on any other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from trainer_cases import chat, results_of

from cli.models import models as command
from core.config import Config
from core.errors import BaseMissingError, LoradError, UsageError
from core.tasks import RowsOf, TrainTask
from rendering.specs import Message
from rendering.tokens import Renderer
from store.bases import read_base
from store.seals import check_seal
from trainer.backends.peft import PeftBackend
from trainer.newbase import init_base, tokens_of
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = ("<context>", "<response>")


@pytest.fixture
def models(tiny_base: Path, tmp_path: Path) -> Config:
    """A config whose models_dir holds the tiny base alone."""
    shutil.copytree(tiny_base, tmp_path / "models" / tiny_base.name)
    return Config(models_dir=str(tmp_path / "models"), model_name="mine")


def make(models: Config, tiny_base: Path, name: str = "mine", tokens: tuple[str, ...] = TOKENS) -> Path:
    return init_base(models, name, tiny_base.name, tokens, lambda text: None)


def test_the_new_base_is_sealed_and_knows_each_token_as_one(models: Config, tiny_base: Path) -> None:
    folder = make(models, tiny_base)
    check_seal(folder)
    parent, base = read_base(tiny_base), read_base(folder)
    assert (base.name, base.licence, base.eos_token, base.template_sha256) == ("mine", parent.licence, parent.eos_token, parent.template_sha256)
    assert parent.source_sha256 in base.source
    assert '["<context>", "<response>"]' in base.source
    assert base.source_sha256 != parent.source_sha256
    renderer, before = Renderer.load(folder), Renderer.load(tiny_base)
    ids = renderer.tokenizer.encode("a<context>b", add_special_tokens=False).ids
    assert [renderer.tokenizer.id_to_token(number) for number in ids][1] == "<context>"
    plain = [Message("user", "What is 2 + 2?"), Message("assistant", "It is 4.")]
    assert renderer.encode(plain).ids == before.encode(plain).ids, "other text is cut as before"
    assert [path.name for path in folder.parent.iterdir() if path.name == ".making"] == []


def test_old_weights_stay_and_new_embeddings_lie_at_the_mean_of_the_old_ones(models: Config, tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make(models, tiny_base)
    old = AutoModelForCausalLM.from_pretrained(read_base(tiny_base).weights, local_files_only=True)
    new = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    vocabulary = Renderer.load(folder).tokenizer.get_vocab()
    places, used = [vocabulary[token] for token in TOKENS], len(Renderer.load(tiny_base).tokenizer.get_vocab())
    for kind in ("get_input_embeddings", "get_output_embeddings"):
        before, after = getattr(old, kind)().weight, getattr(new, kind)().weight
        assert torch.equal(after[:used], before[:used])
        mean = before[:used].mean(0)
        assert float((after[places] - mean).abs().max()) < 0.1 * float(before.std()), "near the mean"
        assert not torch.equal(after[places[0]], after[places[1]]), "and not the same"
    assert new.config.vocab_size == new.get_input_embeddings().weight.shape[0] > max(places)
    for name, param in old.named_parameters():
        if "embed" not in name and "lm_head" not in name:
            assert torch.equal(param, new.get_parameter(name)), name


def test_the_same_parent_and_tokens_give_the_same_base(models: Config, tiny_base: Path) -> None:
    one, other = make(models, tiny_base), make(models, tiny_base, "other")
    assert read_base(one).source_sha256 == read_base(other).source_sha256
    assert read_base(one).source_sha256 != read_base(make(models, tiny_base, "third", ("<context>",))).source_sha256


def test_a_plain_adapter_on_it_trains_and_serves(models: Config, tiny_base: Path, drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder]) -> None:
    from serving.engines.adapter_files import read_adapter
    from serving.engines.port import only
    from serving.engines.torch_model import Placing, TorchModel

    folder = make(models, tiny_base)
    rows = drop([chat(f"<context>{number}<response>", f"It is {number}.") for number in range(8)])
    settings = models.model_dump(mode="json") | {"batch_size": 4, "learning_rate": 5e-3, "max_length": 128}
    run = run_in("01-train")
    PeftBackend().train(TrainTask(job="job-1", backend="peft", base=str(folder), rows=(rows,), settings=settings), run)
    adapter = run.root / results_of(run).candidates[-1].path
    assert json.loads((adapter / "adapter_config.json").read_bytes())["base_model_name_or_path"] == "mine"
    served = TorchModel(folder, Placing(threads=1))
    served.adapters.add("release", *read_adapter(adapter))
    prompt = Renderer.load(folder).prompt([Message("user", "<context>3<response>")])
    assert served.teach(only("release"), prompt, [5]) != served.teach((), prompt, [5])


def test_what_cannot_be_is_refused_and_leaves_nothing(models: Config, tiny_base: Path) -> None:
    folder = make(models, tiny_base)
    seal = (folder / "SEALED").read_bytes()
    for name, tokens, code in (
        ("mine", TOKENS, "BASE_EXISTS"),
        ("other", ("<|im_end|>",), "TOKEN_KNOWN"),
        ("../other", TOKENS, "BASE_NAME"),
        ("smollm2-135m-instruct", TOKENS, "BASE_NAME"),
    ):
        with pytest.raises(UsageError) as caught:
            make(models, tiny_base, name, tokens)
        assert caught.value.code == code
    with pytest.raises(BaseMissingError):
        init_base(models, "other", "nowhere", TOKENS, lambda text: None)
    assert (folder / "SEALED").read_bytes() == seal
    assert {path.name for path in folder.parent.iterdir() if not path.name.startswith(".")} == {"mine", tiny_base.name}


def test_a_quantised_parent_is_refused_with_the_reason(models: Config, tiny_base: Path, tmp_path: Path) -> None:
    parent = Path(models.models_dir) / tiny_base.name
    weights = tmp_path / "weights"
    shutil.copytree(read_base(tiny_base).weights, weights)
    shape = json.loads((weights / "config.json").read_bytes())
    (weights / "config.json").write_text(json.dumps(shape | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    described = json.loads((parent / "base.json").read_bytes())
    (parent / "base.json").write_text(json.dumps(described | {"weights": str(weights)}))
    with pytest.raises(LoradError, match="its weights are quantised") as caught:
        make(models, tiny_base)
    assert caught.value.code == "BASE_UNFIT"


@pytest.mark.parametrize(("text", "code"), [("", "TOKEN_EMPTY"), ("<a>,,<b>", "TOKEN_EMPTY"), ("<a>,<b>,<a>", "TOKEN_TWICE")])
def test_a_list_of_tokens_without_sense_is_refused(text: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        tokens_of(text)
    assert caught.value.code == code
    assert tokens_of(" <context>, <response> ") == TOKENS


def test_the_command_says_what_to_train_with(models: Config, tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"home": "home", "models_dir": models.models_dir}))
    words = ["init", "mine", "--from", tiny_base.name, "--add-tokens", "<context>,<response>", "--config", str(tmp_path / "config.json")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "model_name = 'mine'" in done.output
    again = CliRunner().invoke(command, words)
    assert isinstance(again.exception, UsageError)
