"""`lorad adapters export` through the real child: what it prints, what it leaves, how it ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import peft_model, write_loud_adapter

from cli.exporting import export
from core.config import Config
from core.errors import BaseMissingError, RefusedError, UsageError
from core.wire import Manifest
from deploy.foreign import Rules, stage
from store.bases import read_base
from store.keys import ensure_keys
from store.seals import hash_file
from store.wire import write_manifest

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def home(tiny_config: Config, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with its config and one release, default/main v1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORAD_CONFIG", str(tmp_path / "config.json"))
    config = {"home": "home", "model_path": tiny_config.model_path, "models_dir": tiny_config.models_dir, "backend": "peft"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    release = tmp_path / "home" / "adapters" / "default" / "main" / "v1"
    release.parent.mkdir(parents=True)
    write_loud_adapter(tiny_base, release)
    ensure_keys(tmp_path / "home" / "keys")
    write_manifest(release, manifest_of(tiny_base), tmp_path / "home" / "keys")
    return tmp_path / "home"


def manifest_of(base: Path, **more: Any) -> Manifest:
    made = Manifest(
        format=1,
        adapter="default/main",
        version=1,
        job="job-1",
        backend="peft",
        base_sha256=read_base(base).source_sha256,
        tokenizer_sha256="t",
        template_sha256="c",
        parent=None,
        checkpoint_sha256="k",
        verdict_sha256="v",
        drops=(),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        files={},
    )
    return replace(made, **more)


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """What the command says as JSON."""

    def run(*words: str) -> dict[str, Any]:
        assert export.main([*words, "--format", "json"], standalone_mode=False) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_a_release_becomes_a_merged_folder_that_says_what_it_is_of(home: Path, asked: Any, tmp_path: Path) -> None:
    told = asked("default/main@v1", "--form", "merged", "--out", str(tmp_path / "out" / "deep"), "--dtype", "f16")
    assert (told["of"], told["dtype"], told["check"]["prompts"]) == ("default/main@v1", "f16", 10)
    weights = tmp_path / "out" / "deep" / "model.safetensors"
    assert told["files"]["model.safetensors"] == {"sha256": hash_file(weights), "size_bytes": weights.stat().st_size}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["deep"]


def test_the_size_is_told_before_and_the_comparison_after(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    export.main(["default/main", "--form", "peft", "--out", "out"], standalone_mode=False)
    said = capsys.readouterr()
    assert said.err.startswith("peft in f32: about 16 MB in ")
    assert "peft in f32" in said.out
    assert (tmp_path / "out" / "adapter_config.json").is_file()


def test_a_package_goes_round_and_answers_the_same(home: Path, tiny_base: Path, asked: Any, tmp_path: Path) -> None:
    told = asked("default/main", "--form", "package", "--edition", "lite", "--edition", "plus=default/main@v1", "--label", "v1.3.0", "--out", "pack")
    assert told["editions"] == ["lite", "plus"]
    rules = Rules(base=tiny_base, base_sha256=read_base(tiny_base).source_sha256, max_rank=64, edition="lite")
    staged = stage(tmp_path / "pack", tmp_path / "into", rules)
    assert staged.label == "v1.3.0"
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.inference_mode():
        before = peft_model(tiny_base, home / "adapters" / "default" / "main" / "v1")(ids).logits
        assert torch.equal(peft_model(tiny_base, tmp_path / "into" / "adapter")(ids).logits, before)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["default/main", "--form", "peft", "--out", "home"], "OUT_TAKEN"),
        (["default/main", "--form", "peft", "--out", "out", "--dtype", "q8_0"], "DTYPE_UNKNOWN"),
        (["default/main", "--form", "peft", "--out", "out", "--edition", "lite"], "OPTION_UNFIT"),
        (["default/main", "--form", "package", "--out", "out", "--dtype", "f16"], "OPTION_UNFIT"),
        (["default/main", "--form", "package", "--out", "out", "--edition", "Lite!"], "EDITION_NAME"),
        (["default/main@v9", "--form", "peft", "--out", "out"], "RELEASE_UNKNOWN"),
    ],
)
def test_wrong_words_are_named_before_a_child_starts(words: list[str], code: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.foreground.run_child", lambda *args: pytest.fail("a child was started"))
    with pytest.raises(UsageError) as caught:
        export.main(words, standalone_mode=False)
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_what_the_child_refuses_ends_with_status_two(home: Path, tmp_path: Path) -> None:
    adapter = home / "adapters" / "default" / "main" / "v1"
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(RefusedError, match="use_dora") as caught:
        export.main([str(adapter), "--form", "gguf", "--out", "out"], standalone_mode=False)
    assert caught.value.exit_status == 2
    assert not (tmp_path / "out").exists()


def test_a_release_of_a_base_that_is_not_here_is_never_merged_with_another(home: Path, tiny_base: Path) -> None:
    release = home / "adapters" / "default" / "main" / "v1"
    write_manifest(release, manifest_of(tiny_base, base_sha256="ff" * 32), home / "keys")
    with pytest.raises(BaseMissingError, match="ffffffffffff"):
        export.main(["default/main", "--form", "merged", "--out", "out"], standalone_mode=False)
