"""The form of an adapter that llama.cpp loads: in a release where the base has a GGUF file, and left out where it cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

pytest.importorskip("gguf")

from deploy import ggufform
from store.bases import GGUF_FOLDER
from store.wire import check_release

FAMILY = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 8, "hidden_act": "silu"}


@pytest.fixture
def gguf_workshop(workshop):
    """A training box whose base was made of a GGUF file; pack reads no more of the base than its config."""
    folder = workshop.base.parent / GGUF_FOLDER
    folder.mkdir()
    (folder / f"{'b' * 64}.gguf").write_bytes(b"GGUF")
    (workshop.base / "config.json").write_text(json.dumps(FAMILY))
    rng = np.random.default_rng(0)
    shapes = {"lora_A.weight": (4, 8), "lora_B.weight": (8, 4)}
    layer = "base_model.model.model.layers.1.self_attn.v_proj"
    workshop.write_checkpoint(save({f"{layer}.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}))
    return workshop


def test_both_forms_are_hashed_and_signed_and_hold_the_same_numbers(gguf_workshop):
    import gguf

    _, folder = gguf_workshop.pack()
    _, manifest = check_release(folder, gguf_workshop.home.keys)
    assert {"adapter.gguf", "adapter_model.safetensors"} <= set(manifest.files)
    tensors = gguf.GGUFReader(folder / "adapter.gguf").tensors
    weights = load_file(folder / "adapter_model.safetensors")
    for tensor in tensors:
        wanted = next(array for name, array in weights.items() if f".lora_{tensor.name[-1].upper()}." in name)
        np.testing.assert_allclose(tensor.data, wanted, rtol=1e-3)
    assert {tensor.name for tensor in tensors} == {"blk.1.attn_v.weight.lora_a", "blk.1.attn_v.weight.lora_b"}


def test_no_weights_lie_open_where_the_release_is_encrypted(gguf_workshop, tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    _, folder = gguf_workshop.pack(encryption_key=str(key))
    names = {path.name for path in folder.iterdir()}
    assert {"adapter.gguf.enc", "adapter_model.safetensors.enc"} <= names
    assert not {"adapter.gguf", "adapter_model.safetensors"} & names


def test_an_adapter_that_has_no_such_form_is_packed_without_it(gguf_workshop, caplog: pytest.LogCaptureFixture):
    (gguf_workshop.base / "config.json").write_text(json.dumps(FAMILY | {"model_type": "mamba"}))
    _, folder = gguf_workshop.pack()
    assert not (folder / "adapter.gguf").exists()
    assert "FORM_UNFIT" in caplog.text


def test_a_base_without_a_gguf_file_asks_no_child(workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ggufform.subprocess, "Popen", lambda *words, **more: pytest.fail("a child was started"))
    _, folder = workshop.pack()
    assert not (folder / "adapter.gguf").exists()
