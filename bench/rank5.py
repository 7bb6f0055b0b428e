"""How long it takes to score five checkpoints, and the base, of the real model on 200 dev rows, and to order them: as the daemon asks for it,
each a process of its own that starts cold."""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

from bench.train import DATA

CHECKPOINTS, DEV_ROWS, TRAIN_ROWS = 5, 200, 40


def rank5_s() -> float:
    """Seconds for the score child and the ranking child together; the training that leaves the checkpoints does not count."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shared = _shared(root)
        candidates = _train(root, shared)
        began = time.monotonic()
        scores = _score(root, shared, candidates)
        _order(root, shared, candidates, scores)
        return time.monotonic() - began


def _shared(root: Path) -> dict[str, Any]:
    from core.config import Config
    from core.tasks import RowsOf
    from store.bases import base_folder

    raw = b"".join(DATA.read_bytes().splitlines(keepends=True)[: TRAIN_ROWS + DEV_ROWS])
    folder = root / "drop"
    folder.mkdir()
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    entries = [
        {"line": n + 1, "group": hashlib.sha256(str(n).encode()).hexdigest(), "split": "train" if n < TRAIN_ROWS else "dev"}
        for n in range(TRAIN_ROWS + DEV_ROWS)
    ]
    (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    rows = (RowsOf(drop="bench", sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1"),)
    training = {"max_steps": CHECKPOINTS, "checkpoints": CHECKPOINTS, "patience": 0, "boards": []}
    settings = Config.model_validate({"batch_size": 4, "max_length": 512, "training": training}).model_dump(mode="json")
    return {"job": "bench", "backend": "peft", "rows": rows, "settings": settings, "this_drop": "bench", "base": str(base_folder(Config()))}


def _child(module: str, run: Path, task: Any) -> Any:
    """The note of a child that carried out the task. Raises RuntimeError with the end of what it said."""
    from core.tasks import ExitNote
    from store import codec

    run.mkdir(parents=True)
    codec.write(run / "spec.json", task)
    done = subprocess.run([sys.executable, "-m", module, str(run)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-500:]}")
    return codec.read(ExitNote, run / "exit.json")


def _train(root: Path, shared: dict[str, Any]) -> tuple[Any, ...]:
    from core.tasks import TrainTask

    found: tuple[Any, ...] = _child("trainer", root / "01-train", TrainTask(**shared)).candidates
    return found


def _score(root: Path, shared: dict[str, Any], candidates: tuple[Any, ...]) -> dict[str, str]:
    from core.tasks import ScoreModel, ScoreTask

    models = (*(ScoreModel(id=one.id, adapter=str(root / "01-train" / one.path)) for one in candidates), ScoreModel(id="base", adapter=None))
    note = _child("trainer", root / "02-score", ScoreTask(**shared, split="dev", models=models))
    return {key: str(root / "02-score" / path) for key, path in note.scores.items()}


def _order(root: Path, shared: dict[str, Any], candidates: tuple[Any, ...], scores: dict[str, str]) -> None:
    from core.tasks import RankTask

    own = {key: value for key, value in shared.items() if key != "base"}
    _child("ranking", root / "03-rank", RankTask(**own, purpose="order", candidates=candidates, incumbent="base", scores=scores))
