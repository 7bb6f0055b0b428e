"""`lorad train FILE` with a config of stages, and on from an adapter: what is carried out, and what is refused before anything trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.train import train
from core.errors import LoradError

BARE = [{"name": "facts", "where": {"kind": "fact"}, "epochs": 2}, {"name": "rest", "learning_rate": 1e-4}]
LAYERS = [{"name": "facts", "where": {"kind": "fact"}, "layer": "knowledge", "r": 8}, {"name": "rest", "layer": "skill", "r": 4}]
BASIC = {"backend": "stub", "batch_size": 4, "training": {"epochs": 1, "checkpoints": 2}}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Train with the stub by a config of its own, 20 facts of 60 rows: what it says as JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    rows = []
    for number in range(60):
        messages = [{"role": "user", "content": f"What is number {number}?"}, {"role": "assistant", "content": f"It is the number {number}, as you know."}]
        rows.append(json.dumps({"messages": messages, "metadata": {"kind": "fact" if number % 3 == 0 else "style"}}) + "\n")
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 6}))

    def run(*words: str, **config: Any) -> dict[str, Any]:
        (tmp_path / "own.json").write_text(json.dumps(BASIC | config))
        assert not train.main(["rows.jsonl", "--config", "own.json", "--out", "made", "--format", "json", *words], standalone_mode=False)
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    return run


def shape(folder: Path) -> tuple[int, int]:
    found = json.loads((folder / "made" / "adapter_config.json").read_text())
    return found["r"], found["lora_alpha"]


def test_stages_go_on_from_an_adapter_in_its_own_shape(trained: Any, tmp_path: Path) -> None:
    told = trained("--continue-from", "before", stages=BARE)
    spec = json.loads((Path(told["run"]) / "spec.json").read_text())
    assert spec["start"] == str(tmp_path / "before")
    index = [json.loads(line) for line in (tmp_path / "made" / "work" / "drop" / "index.jsonl").read_text().splitlines()]
    facts = sum(line["split"] == "train" and (line["line"] - 1) % 3 == 0 for line in index)
    rest = sum(line["split"] == "train" for line in index) - facts
    assert told["total_steps"] == -(-2 * facts // 4) + -(-rest // 4)
    assert shape(tmp_path) == (4, 6)
    assert told["settings"]["values"]["learning_rate"]["value"] == 1e-4, "on from an adapter that already knows something"


def test_layers_make_one_adapter_of_their_ranks(trained: Any, tmp_path: Path) -> None:
    trained(stages=LAYERS)
    assert shape(tmp_path) == (12, 24)


@pytest.mark.parametrize(
    ("words", "config", "code", "said"),
    [
        (("--continue-from", "before"), {"stages": LAYERS}, "START_UNFIT", "begin on the base"),
        (("--continue-from", "rows.jsonl"), {"stages": BARE}, "ADAPTER_MISSING", "no adapter"),
        ((), {"stages": [*LAYERS, {"name": "more"}]}, "CONFIG_VALUE", "'more' has no layer"),
        ((), {"stages": [{"name": "facts", "shrae": 0.5}]}, "CONFIG_VALUE", "shrae"),
        ((), {"stages": [{"name": "facts", "share": 1.5}]}, "CONFIG_VALUE", "stages.0.share"),
        ((), {"stages": LAYERS, "backend": "mlx"}, "BACKEND_UNABLE", "stages"),
    ],
)
def test_what_cannot_be_is_said_before_anything_trains(
    words: tuple[str, ...], config: dict[str, Any], code: str, said: str, trained: Any, tmp_path: Path
) -> None:
    with pytest.raises(LoradError, match=said) as caught:
        trained(*words, **config)
    assert caught.value.code == code
    assert not list(tmp_path.glob("*/work/runs"))


@pytest.mark.parametrize(
    ("config", "code"),
    [({"stages": LAYERS, "serving": {"max_rank": 11}}, "LAYERS_TOO_LARGE"), ({"stages": [{"name": "dates", "where": {"kind": "date"}}]}, "STAGE_EMPTY")],
)
def test_what_only_the_rows_or_the_settled_ranks_tell_ends_the_training_at_once(config: dict[str, Any], code: str, trained: Any) -> None:
    with pytest.raises(LoradError) as caught:
        trained(**config)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
