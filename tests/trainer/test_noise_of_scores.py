"""The noise floor: a model that is scored once more, in batches of another size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import Config
from core.tasks import RowsOf, ScoreModel, ScoreTask
from trainer.backends.peft import PeftBackend
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")


def test_a_model_that_asks_for_it_is_scored_twice(tiny_base: Path, train_drop: RowsOf, tiny_config: Config, run_in: Callable[..., RunFolder]) -> None:
    run = run_in("02-score")
    settings = tiny_config.model_dump(mode="json")
    models = (ScoreModel(id="base", adapter=None),)
    PeftBackend().score(ScoreTask(job="j", backend="peft", base=str(tiny_base), rows=(train_drop,), split="gate", models=models, settings=settings), run)
    assert not [key for key in run.scores if key.startswith("noise")]
    again = run_in("03-score")
    task = ScoreTask(job="j", backend="peft", base=str(tiny_base), rows=(train_drop,), split="gate", models=models, settings=settings, noise="base")
    PeftBackend().score(task, again)
    first, second = ([json.loads(line) for line in (again.root / again.scores[key]).read_text().splitlines()] for key in ("gate/base", "noise-gate/base"))
    assert first[0] == second[0]
    assert [row["line"] for row in first[1:]] == [row["line"] for row in second[1:]]
    assert [row["loss"] for row in first[1:]] == pytest.approx([row["loss"] for row in second[1:]], rel=1e-2)
