"""The contract suite over the engines that run here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_contract import Case, EngineContract

from serving.engines.stub import StubEngine

A, B = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tiny_torch import make_adapter, make_base

    root = tmp_path_factory.mktemp("torch")
    base = make_base(root / "base")
    make_adapter(base, root / A, seed=1)
    make_adapter(base, root / B, seed=2, r=2, target_modules=["q_proj", "down_proj"])
    (make_adapter(base, root / "broken", seed=3) / "adapter_model.safetensors").write_bytes(b"torn")
    return root


class TestStub(EngineContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[Case]:
        engine = StubEngine("tiny", max_new_tokens=24)
        engine.open()
        for name in (A, B):
            (tmp_path / name).mkdir()
            (tmp_path / name / "adapter_config.json").write_text(json.dumps({"seed": name[0]}))
            (tmp_path / name / "adapter_model.safetensors").write_bytes(name[:8].encode())
        (tmp_path / "broken").mkdir()
        yield Case(engine=engine, adapters={A: tmp_path / A, B: tmp_path / B}, broken=tmp_path / "broken")
        engine.close()


class TestTransformers(EngineContract):
    @pytest.fixture
    def case(self, folders: Path) -> Iterator[Case]:
        from tiny_torch import open_engine

        engine = open_engine(folders / "base", streams=4)
        yield Case(engine=engine, adapters={A: folders / A, B: folders / B}, broken=folders / "broken")
        engine.close()
