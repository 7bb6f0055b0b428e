"""Every form of an adapter answers as base and adapter do, once it is loaded again by whoever reads that form."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cases import export_task, note_in, peft_model, run_folder, silenced, write_loud_adapter
from trainer_cases import progress_of

from core.errors import ChildError, LoradError
from core.forms import FORMS
from rendering.tokens import Renderer
from trainer import export as export_module
from trainer import space
from trainer.backends.exports import merged as merged_module
from trainer.export import export

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_loud_adapter(tiny_base, tmp_path_factory.mktemp("adapters") / "loud")


@pytest.mark.parametrize("form", [name for name in FORMS if name not in ("peft", "gguf")])
def test_a_merged_form_answers_as_base_and_adapter_do(form: str, tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = run_folder(tmp_path / "run")
    export(export_task(form, tiny_base, adapter, out), run)
    note = note_in(out)
    check = note["check"]
    assert check["prompts"] == 10
    assert check["tokens"] == 160
    assert check["equal_tokens"] >= 155
    assert set(note["files"]) == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {"export.json"}
    assert not (tmp_path / ".making").exists()
    told = [line["doing"] for line in progress_of(run, "export")]
    assert told[0].startswith(f"{form} in {FORMS[form].dtypes[0]}: about ")  # the size is said before anything is written


def test_the_adapter_is_in_what_was_merged(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    quiet = silenced(adapter, tmp_path / "quiet")
    ids = torch.tensor([[5, 9, 40, 7]])
    made = {}
    for name, folder in (("loud", adapter), ("quiet", quiet)):
        export(export_task("merged", tiny_base, folder, tmp_path / f"out-{name}", "f32"), run_folder(tmp_path / f"run-{name}"))
        with torch.inference_mode():
            made[name] = AutoModelForCausalLM.from_pretrained(tmp_path / f"out-{name}")(ids).logits
    with torch.inference_mode():
        wanted = peft_model(tiny_base, adapter)(ids).logits
    assert torch.allclose(made["loud"], wanted, atol=1e-4)
    assert not torch.allclose(made["loud"], made["quiet"], atol=0.1)


def test_a_peft_folder_is_the_adapter_with_what_its_base_speaks(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    export(export_task("peft", tiny_base, adapter, tmp_path / "out"), run_folder(tmp_path / "run"))
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (adapter / name).read_bytes()
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.inference_mode():
        assert torch.equal(peft_model(tiny_base, tmp_path / "out")(ids).logits, peft_model(tiny_base, adapter)(ids).logits)


@pytest.mark.parametrize("dtype", ["f32", "q8_0", "bf16"])
def test_a_gguf_file_holds_tokenizer_template_and_shape(dtype: str, tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    export(export_task("merged-gguf", tiny_base, adapter, tmp_path / "out", dtype), run_folder(tmp_path / "run"))
    reader = GGUFReader(tmp_path / "out" / "model.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = Renderer.load(tiny_base).tokenizer
    assert found["general.architecture"] == "llama"
    assert found["tokenizer.ggml.tokens"] == [tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size())]
    assert found["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert found["tokenizer.ggml.pre"] == "gpt-2"
    assert found["tokenizer.ggml.eos_token_id"] == tokenizer.token_to_id("<|im_end|>")
    assert found["tokenizer.chat_template"] == (tiny_base / "chat_template.jinja").read_text()
    assert found["llama.attention.head_count_kv"] == 2
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["output_norm.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == {"f32": "F32", "q8_0": "Q8_0", "bf16": "BF16"}[dtype]
    assert kinds["blk.0.ffn_down.weight"] == {"f32": "F32", "q8_0": "F16", "bf16": "BF16"}[dtype]  # 48 columns are no whole blocks of 32


def test_a_gguf_adapter_scales_as_peft_does_whatever_its_ranks(tiny_base: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 12}, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]}
    adapter = write_loud_adapter(tiny_base, tmp_path / "adapter", **patterns)
    export(export_task("gguf", tiny_base, adapter, tmp_path / "out"), run_folder(tmp_path / "run"))
    reader = GGUFReader(tmp_path / "out" / "adapter.gguf")
    alpha = reader.fields["adapter.lora.alpha"].contents()
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    model = peft_model(tiny_base, adapter)
    for layer, name in (("self_attn.q_proj", "attn_q"), ("mlp.down_proj", "ffn_down")):
        a, b = tensors[f"blk.1.{name}.weight.lora_a"], tensors[f"blk.1.{name}.weight.lora_b"]
        made = alpha / b.shape[1] * (b @ a)  # llama.cpp's own rule
        wanted = model.get_submodule(f"base_model.model.model.layers.1.{layer}").get_delta_weight("default").detach().numpy()
        if name == "attn_q":  # 4 heads of 8 rows, whose halves are paired
            wanted = wanted.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
        assert np.allclose(made, wanted, atol=1e-5)


# ---------------------------------------------------------------- what is refused, and what is left then


def refused(tmp_path: Path, *words: object, dtype: str = "") -> LoradError:
    form, base, adapter = words
    out = tmp_path / "out"
    before = set(tmp_path.iterdir()) | {tmp_path / "run"}
    with pytest.raises(LoradError) as caught:
        export(export_task(str(form), Path(str(base)), Path(str(adapter)), out, dtype), run_folder(tmp_path / "run"))
    assert set(tmp_path.iterdir()) == before  # nothing half made is left
    assert caught.value.hint
    return caught.value


def test_an_existing_folder_is_never_touched(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert refused(tmp_path, "peft", tiny_base, adapter).code == "OUT_TAKEN"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_full_disk_refuses_before_anything_is_written(tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: usage(0, 0, 1 << 20))
    monkeypatch.setattr(export_module, "_write", lambda *args: pytest.fail("it began to write"))
    assert refused(tmp_path, "merged", tiny_base, adapter).code == "DISK_FULL"


def test_too_little_memory_refuses_before_the_base_is_loaded(tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(export_module.psutil, "virtual_memory", lambda: memory(1000))
    error = refused(tmp_path, "merged", tiny_base, adapter)
    assert error.code == "MEMORY_SHORT"
    assert "--form peft" in error.hint


def test_a_missing_package_is_named(tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxruntime" else object())
    error = refused(tmp_path, "onnx", tiny_base, adapter)
    assert error.code == "FORM_NOT_INSTALLED"
    assert "onnxruntime" in error.what
    assert "lorad[export]" in error.hint


def test_what_answers_otherwise_is_never_left(tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = merged_module.save

    def broken(model: torch.nn.Module, *rest: object) -> None:
        with torch.no_grad():
            model.get_submodule("model.layers.1.mlp.down_proj").weight.mul_(-3)
        save(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(merged_module, "save", broken)
    assert refused(tmp_path, "merged", tiny_base, adapter).code == "EXPORT_DIFFERS"


def test_a_form_that_the_base_has_not_is_refused_before_it_is_loaded(tiny_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = json.loads((_weights(tiny_base) / "config.json").read_text())
    monkeypatch.setattr(merged_module, "load_base", lambda *args: pytest.fail("it loaded the base"))
    for change, says in (
        ({"model_type": "gemma3_text"}, "'gemma3_text' is not of the families"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "the base is quantised (bitsandbytes)"),
    ):
        monkeypatch.setattr(export_module, "_described", lambda folder, change=change: described | change)
        error = refused(tmp_path, "merged-gguf", tiny_base, adapter)
        assert error.code == "FORM_UNFIT"
        assert says in error.what
        shutil.rmtree(tmp_path / "run")


def test_an_adapter_that_llama_cpp_does_not_know_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    adapter = write_loud_adapter(tiny_base, tmp_path / "dora", use_dora=True)
    error = refused(tmp_path, "gguf", tiny_base, adapter)
    assert isinstance(error, ChildError)
    assert "use_dora" in error.what


def test_a_format_that_a_form_has_not_is_refused(tiny_base: Path, adapter: Path, tmp_path: Path) -> None:
    assert refused(tmp_path, "merged", tiny_base, adapter, dtype="q8_0").code == "DTYPE_UNKNOWN"


def _weights(base: Path) -> Path:
    from store.bases import weights_folder

    return weights_folder(base)
