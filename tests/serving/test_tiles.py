"""The engine's own form of a base in Q4_1: what differs from the base, when it is made, and when the base is mapped as it is."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

import gguf
import numpy as np
from engine_contract import say
from tiny_llama import make_gguf_adapter, make_gguf_base, open_llama

from serving.engines import tiles
from serving.engines.port import Sampling, only
from serving.engines.tiles import tiled
from store.bases import gguf_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

A = "a" * 64
EXACT = Sampling(temperature=0, repetition_penalty=1, max_tokens=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiles")
    make_gguf_adapter(make_gguf_base(root, q4_1=True), root / A, seed=1)
    return root


@pytest.fixture(scope="module")
def model(folders: Path) -> Path:
    found = gguf_of(folders / "tiny")
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _is_of_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles.platform, "machine", lambda: "x86_64")


def values(tensor: Any) -> Any:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def test_the_widest_matrices_move_by_a_thirtieth_of_a_step_and_the_rest_is_copied(model: Path, tmp_path: Path) -> None:
    made = gguf.GGUFReader(tiled(model, tmp_path / "forms"))
    of = gguf.GGUFReader(model)
    assert {name: field.contents() for name, field in made.fields.items()} == {name: field.contents() for name, field in of.fields.items()}
    assert [tensor.name for tensor in made.tensors] == [tensor.name for tensor in of.tensors]
    rewritten = []
    for new, old in zip(made.tensors, of.tensors, strict=True):
        if new.tensor_type == old.tensor_type:
            assert np.array_equal(new.data, old.data), new.name
            continue
        assert (old.tensor_type.name, new.tensor_type.name) == ("Q4_1", "Q8_0")
        rewritten.append(new.name.split(".", 2)[2])
        blocks = np.abs(values(old)).reshape(-1, 32).max(axis=1, keepdims=True)
        assert (np.abs(values(new) - values(old)).reshape(-1, 32) <= blocks / 230).all()
    assert set(rewritten) == {"ffn_gate.weight", "ffn_up.weight"}
    assert len(rewritten) == 2 * made.fields["llama.block_count"].contents()


def test_it_answers_as_the_base_does(folders: Path, tmp_path: Path) -> None:
    plain, fast = open_llama(folders / "tiny"), open_llama(folders / "tiny", forms=tmp_path / "forms")
    told = []
    for engine in (plain, fast):
        engine.load(A, folders / A)
        told.append((say(engine, only(A), sampling=EXACT), engine.logprobs(only(A), [5, 6, 7], [8, 9, 10, 11])))
        engine.close()
    assert (tmp_path / "forms").is_dir()
    assert told[0][0] == told[1][0]
    np.testing.assert_allclose(told[0][1], told[1][1], atol=0.1)


def test_it_is_made_once_and_made_again_where_the_disk_changed_it(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tiled(model, tmp_path / "forms")
    written = place.stat().st_mtime_ns
    assert tiled(model, tmp_path / "forms") == place
    assert place.stat().st_mtime_ns == written
    good = place.read_bytes()
    place.write_bytes(good[:-1] + b"?")
    with caplog.at_level(logging.WARNING):
        assert tiled(model, tmp_path / "forms").read_bytes() == good
    assert "made again" in caplog.text


def test_another_base_takes_the_place_of_the_first_and_what_a_kill_left_goes(model: Path, tmp_path: Path) -> None:
    forms = tmp_path / "forms"
    first = tiled(model, forms)
    (forms / "tmpkilled" / "form").mkdir(parents=True)
    other = Path(shutil.copy(model, tmp_path / "other.gguf"))
    second = tiled(other, forms)
    assert second.is_file()
    assert not first.exists()
    assert [path.name for path in forms.iterdir()] == ["other"]


def test_the_base_is_mapped_as_it_is_where_the_form_brings_nothing_or_cannot_be_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = gguf_of(make_gguf_base(tmp_path))
    assert whole is not None
    assert tiled(whole, tmp_path / "forms") == whole, "its matrices are no Q4_1"
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert tiled(model, tmp_path / "file" / "forms") == model
    assert os.strerror(20) in caplog.text
    monkeypatch.setattr(tiles.platform, "machine", lambda: "arm64")
    assert tiled(model, tmp_path / "forms") == model
    assert not (tmp_path / "forms").exists()
