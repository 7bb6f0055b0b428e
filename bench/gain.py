"""What 500 rows give, and how soon: the whole loop with the real model, then base and release on rows that nobody used.

500 training rows of GSM8K, one epoch, from the rename into inbox/ to the box's own ledger line. Then both answer for 500 test
rows that took no part: completion loss and token accuracy, paired and clustered by conversation, with 95 % intervals.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bench.circle import entry, home, running, wait

REAL = Path(__file__).parents[1] / "tests" / "data" / "real"
ROWS = 500
BELOW_S = 600  # the figure for drop to served


def measure(rows: int = ROWS) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents): the base is the opponent."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home(folder, training={"epochs": 1.0})
        with running(folder, "serve"), running(folder, "daemon"):
            wait(lambda: (folder / "var" / "status.json").exists())
            hidden = folder / "var" / "inbox" / ".rows"
            hidden.write_bytes(b"".join((REAL / "gsm8k_train_chat.jsonl").read_bytes().splitlines(keepends=True)[:rows]))
            dropped = time.time()
            os.rename(hidden, folder / "var" / "inbox" / "rows.jsonl")
            wait(lambda: (ended(folder) or "") != "")
        figures = times(folder, dropped) | {"rows": rows, "outcome": ended(folder), "drop_to_served_below_s": BELOW_S}
        return figures | gains(folder), {"base": "SmolLM2-135M-Instruct without an adapter, the same 500 test rows"}


def ended(folder: Path) -> str | None:
    """How the job ended or where it waits for a person; None while it goes on."""
    return next((action for action in ("job.released", "job.held", "job.refused", "job.failed") if entry(folder, action)), None)


def times(folder: Path, dropped: float) -> dict[str, Any]:
    """Seconds from the drop to each transition of its job, and to the box's ledger line."""
    lines = [json.loads(line) for line in (folder / "var" / "journal.jsonl").read_text().splitlines()]
    found = {f"{line['action']}_s": round(datetime.fromisoformat(line["at"]).timestamp() - dropped, 1) for line in lines if line["action"].startswith("job.")}
    ledger = folder / "var" / "serving" / "out" / "activations.jsonl"
    live = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    served = round(datetime.fromisoformat(live[0]["at"]).timestamp() - dropped, 1) if live else "not served"
    return {"drop_to_served_s": served, "steps": found}


def gains(folder: Path) -> dict[str, Any]:
    """Loss per token and token accuracy of base and newest checkpoint or release on the test rows, with the interval of the difference."""
    from core.config import Config
    from core.tasks import RowsOf, ScoreModel, ScoreTask
    from ranking.scores import read_scores
    from ranking.statistics import paired_bootstrap
    from store import codec
    from store.bases import base_folder

    adapter = next(iter(sorted((folder / "var" / "adapters").glob("*/*/v*"))), None)
    adapter = adapter or sorted((folder / "var" / "runs").glob("*/*-train/checkpoints/step_*"))[-1]
    text = (REAL / "gsm8k_test_chat.jsonl").read_bytes()
    test, run = folder / "test", folder / "score"
    test.mkdir()
    run.mkdir()
    (test / "rows.jsonl.zst").write_bytes(zstandard.compress(text))
    places = ({"line": line, "group": f"{line:064x}", "split": "gate"} for line in range(1, text.count(b"\n") + 1))
    (test / "index.jsonl").write_text("".join(json.dumps(place) + "\n" for place in places))
    taken = RowsOf(drop="test", sha256=hashlib.sha256(text).hexdigest(), folder=str(test), schema_id="chat_sft_v1")
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id="release", adapter=str(adapter)))
    settings = Config().model_dump(mode="json")
    base = str(base_folder(Config()))
    codec.write(run / "spec.json", ScoreTask(job="gain", backend="peft", base=base, rows=(taken,), split="gate", models=models, settings=settings))
    subprocess.run([sys.executable, "-m", "trainer", str(run)], check=True, capture_output=True)
    before, after = (read_scores(f"gate/{model.id}", run / "scores" / f"gate-{model.id}.jsonl") for model in models)
    figures: dict[str, Any] = {"test_rows": len(before.rows)}
    sides = {"loss": (before.loss, after.loss)}
    if before.correct is not None and after.correct is not None:
        sides["token_accuracy"] = (before.correct, after.correct)
    for name, (old, new) in sides.items():
        found = paired_bootstrap(new - old, before.tokens, before.groups, resamples=10_000, seed=0)
        figures |= {f"{name}_base": mean(old, before.tokens), f"{name}_release": mean(new, before.tokens)}
        figures[f"{name}_gain"] = [round(value, 4) for value in (found.mean, found.low, found.high)]
    return figures


def mean(values: Any, tokens: Any) -> float:
    """Of the tokens."""
    return round(float(np.sum(values) / np.sum(tokens)), 4)
