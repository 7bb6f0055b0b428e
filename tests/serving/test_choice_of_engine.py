"""Which engine serves a config by itself."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.config import Config
from core.wire import Active, AliasState
from serving.engines import registry
from store import codec
from store.bases import BASE, GGUF_FOLDER, Base
from store.paths import Box
from store.seals import seal

RELEASE = "c" * 64


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Of a box without a GPU whose base has a GGUF file."""
    monkeypatch.setattr(registry, "has_cuda", lambda: False)
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    codec.write(folder / BASE, Base(name="tiny", source="x", source_sha256="1" * 64, tokenizer_sha256="2", template_sha256="3", weights=".", eos_token="e"))
    seal(folder)
    (tmp_path / "models" / GGUF_FOLDER).mkdir()
    gguf(tmp_path).write_bytes(b"GGUF")
    values = {"model_name": "tiny", "models_dir": str(tmp_path / "models"), "backend": "peft", "serving": {"home": str(tmp_path / "box")}}
    return Config.model_validate(values)


def gguf(root: Path) -> Path:
    return root / "models" / GGUF_FOLDER / f"{'1' * 64}.gguf"


def changed(config: Config, **values: object) -> Config:
    return Config.model_validate({**config.model_dump(), **values})


def live(config: Config, *files: str) -> None:
    """Make a release with these files the live one."""
    box = Box(Path(config.serving.home))
    box.prepare()
    folder = box.releases / "ada" / "main" / f"v1-{RELEASE[:12]}"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_bytes(b"x")
    state = AliasState(release=RELEASE, version=1, fence=1)
    codec.write(box.active, Active(box="b", sequence=1, fence_seen=1, at=datetime(2026, 1, 1, tzinfo=UTC), aliases={"ada/main": state}))


def test_a_cpu_with_a_gguf_base_is_served_by_llama_cpp(config: Config) -> None:
    assert registry.engine_name(config) == "llamacpp"


def test_without_the_file_or_the_wheel_transformers_serves(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "xllamacpp" else object())
    assert registry.engine_name(config) == "transformers"
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    gguf(tmp_path).unlink()
    assert registry.engine_name(config) == "transformers"


def test_what_the_config_names_is_taken_and_the_stub_stays_the_stub(config: Config) -> None:
    assert registry.engine_name(changed(config, serving={**config.serving.model_dump(), "engine": "transformers"})) == "transformers"
    assert registry.engine_name(changed(config, backend="stub")) == "stub"


@pytest.mark.parametrize("name", ["adapter.gguf", "adapter.gguf.enc"])
def test_a_live_release_in_both_forms_is_served_by_llama_cpp(config: Config, name: str) -> None:
    live(config, "adapter_model.safetensors", name)
    assert registry.engine_name(config) == "llamacpp"


def test_a_live_release_of_before_keeps_the_engine_that_can_load_it(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    live(config, "adapter_model.safetensors")
    assert registry.engine_name(config) == "transformers"
    assert "until a release that has one is live" in caplog.text
