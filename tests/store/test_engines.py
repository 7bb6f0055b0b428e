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
