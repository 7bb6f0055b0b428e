"""Adapters that were trained alike but for their seed, and their score files: what A/A comparisons are made of."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

REPO = Path(__file__).parents[1]
ROWS_FILE = REPO / "examples" / "devils_dictionary.jsonl"
THIS, EARLIER = "drop-2", "drop-1"
TRAIN_OF_FIVE = 2  # of each five rows so many are trained on; the rows of a comparison are drawn from the others
STEPS, BATCH = 20, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Score files (gate and shift split) of several adapters by model id, and the sealed folders and probes that they are of."""

    scores: dict[str, str]
    candidates: tuple[Any, ...]
    folders: dict[str, str]
    probes: dict[str, str]
    rows: tuple[Any, ...]
    backend: str


def train_alike(root: Path, count: int, steps: int = STEPS) -> Seeds:
    """`count` adapters of the real base on the same rows in an order of their own seed, scored on the same held-out rows."""
    from core.config import Config
    from core.records import Candidate
    from core.tasks import ScoreModel, ScoreTask, TrainTask
    from store.bases import base_folder
    from store.seals import seal_hash
    from trainer.backends.peft import PeftBackend
    from trainer.run import RunFolder

    base, rows = str(base_folder(Config())), _drops(root)
    scores, candidates, folders, probes = dict[str, str](), [], dict[str, str](), dict[str, str]()
    for seed in range(count):
        settings = _settings(seed, steps)
        run = RunFolder(_folder(root, f"{seed}-train"))
        PeftBackend().train(TrainTask(job="bench", backend="peft", base=base, rows=rows, settings=settings, this_drop=THIS), run)
        (checkpoint,) = (run.root / "checkpoints").iterdir()
        one = Candidate(step=steps, path=str(checkpoint), sha256=seal_hash(checkpoint))
        scored = RunFolder(_folder(root, f"{seed}-score"))
        task = ScoreTask(
            job="bench",
            backend="peft",
            base=base,
            rows=rows,
            split="gate",
            models=(ScoreModel(id=one.id, adapter=str(checkpoint)),),
            settings=_settings(0, steps),
            probe=one.id,
            shift=one.id,
            this_drop=THIS,
        )
        PeftBackend().score(task, scored)
        scores |= {key: str(scored.root / path) for key, path in scored.scores.items()}
        candidates.append(one)
        folders[one.id], probes[one.id] = str(checkpoint), str(scored.root / "probe.jsonl")
    return Seeds(scores=scores, candidates=tuple(candidates), folders=folders, probes=probes, rows=rows, backend="peft")


def _settings(seed: int, steps: int) -> dict[str, Any]:
    from core.config import Config

    training = {"max_steps": steps, "checkpoints": 1, "seed": seed, "patience": 0, "boards": []}
    config = Config.model_validate({"learning_rate": 4e-4, "batch_size": BATCH, "max_length": 256, "training": training})
    found: dict[str, Any] = config.model_dump(mode="json")
    return found


def _drops(root: Path) -> tuple[Any, ...]:
    from core.tasks import RowsOf

    with ROWS_FILE.open() as file:
        lines = sorted(file, key=len)
    found = []
    for place, drop in enumerate((EARLIER, THIS)):
        folder = root / drop
        folder.mkdir()
        own = lines[place::2]
        raw = "".join(own).encode()
        (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
        (folder / "report.json").write_text(json.dumps({"findings": []}))
        groups = [hashlib.sha256(line.encode()).hexdigest() for line in own]
        entries = [{"line": n + 1, "group": group, "split": "train" if n % 5 < TRAIN_OF_FIVE else "gate"} for n, group in enumerate(groups)]
        (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        found.append(RowsOf(drop=drop, sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1"))
    return tuple(found)


def _folder(root: Path, name: str) -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    return folder
