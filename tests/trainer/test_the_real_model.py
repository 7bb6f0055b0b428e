"""The embedded base itself: converted weights make sense, train and score."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_cases import chat, progress_of, results_of

from core.config import Config
from core.tasks import RowsOf, ScoreModel, ScoreTask, TrainTask
from rendering.tokens import Renderer
from store.bases import read_base
from store.seals import check_seal
from trainer import run as run_module
from trainer.backends.peft import PeftBackend
from trainer.run import RunFolder

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")]

PEOPLE = ["baker", "smith", "judge", "miner", "nurse", "pilot", "tailor", "farmer"]


def test_the_embedded_base_trains_scores_and_knows_paris(
    real_base: Path, drop: Callable[..., RowsOf], run_in: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)
    check_seal(real_base)
    assert read_base(real_base).licence == "Apache-2.0"
    rows = drop([chat(f"What does a {word} say?", f"A {word} says: quack.") for word in PEOPLE], ["train"] * 6 + ["gate"] * 2)
    settings = Config.model_validate({"batch_size": 6, "learning_rate": 1e-3, "training": {"epochs": 4.0, "checkpoints": 1}}).model_dump(mode="json")
    trained = run_in("01-train")
    PeftBackend().train(TrainTask(job="job-1", backend="peft", base=str(real_base), rows=(rows,), settings=settings), trained)
    losses = [line["loss"] for line in progress_of(trained)]
    assert losses[0] < 6  # a base that was dequantised wrongly starts far above
    assert losses[-1] < losses[0] - 0.3
    (kept,) = results_of(trained).candidates
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id=kept.id, adapter=str(trained.root / kept.path)))
    scored = run_in("02-score")
    task = ScoreTask(job="job-1", backend="peft", base=str(real_base), rows=(rows,), split="gate", models=models, settings=settings, probe=kept.id)
    PeftBackend().score(task, scored)
    sums = [sum(json.loads(line)["loss"] for line in (scored.root / path).read_text().splitlines()[1:]) for path in scored.scores.values()]
    assert sums[1] < sums[0]
    france = json.loads((scored.root / "probe.jsonl").read_text().splitlines()[0])
    assert "Paris" in Renderer.load(real_base).decode(france["base"]["ids"])
