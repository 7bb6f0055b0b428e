"""What this machine can run is found without importing it, and trainer and serving follow one rule."""

from pathlib import Path

import pytest

from core.config import Config
from store import engines


@pytest.mark.parametrize(("flags", "has"), [("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("fpu avx2 avx512f", False)])
def test_bf16_is_used_where_the_cpu_multiplies_it_itself(tmp_path: Path, flags: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert engines.cpu_has_bf16(tmp_path / "cpuinfo") is has
    assert not engines.cpu_has_bf16(tmp_path / "none")


def test_without_torch_auto_falls_to_the_stub_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "torch" else object())
    chosen = engines.choose_backend(Config())
    assert chosen.name == "stub"
    assert "torch not installed" in chosen.why
    assert engines.choose_backend(Config(backend="peft")).name == "peft"


PACKAGES = {"torch", "transformers", "peft", "safetensors"}


@pytest.mark.parametrize(
    ("installed", "cuda", "apple", "name", "why"),
    [
        ({"unsloth"}, True, False, "unsloth", "unsloth is installed"),
        (set(), True, False, "peft", "a CUDA GPU is here"),
        ({"unsloth"}, False, False, "peft", "the CPU trains"),
        ({"mlx", "mlx_lm"}, False, True, "mlx", "Apple"),
        ({"mlx", "mlx_lm"}, False, False, "peft", "the CPU trains"),
        (set(), False, True, "peft", "the CPU trains"),
    ],
)
def test_auto_takes_the_fastest_that_runs_here_and_says_why(
    installed: set[str], cuda: bool, apple: bool, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda package: object() if package in PACKAGES | installed else None)
    monkeypatch.setattr(engines, "has_cuda", lambda: cuda)
    monkeypatch.setattr(engines, "is_apple", lambda: apple)
    chosen = engines.choose_backend(Config())
    assert chosen.name == name
    assert why in chosen.why


@pytest.mark.parametrize(("visible", "driver", "has"), [(None, True, True), ("0,1", True, True), ("", True, False), ("-1", True, False), (None, False, False)])
def test_a_gpu_that_is_hidden_or_has_no_driver_is_none(visible: str | None, driver: bool, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nvidiactl"
    if driver:
        file.touch()
    monkeypatch.setattr(engines, "GPU_FILES", (file,))
    monkeypatch.delenv(engines.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(engines.VISIBLE, visible)
    assert engines.has_cuda() is has
