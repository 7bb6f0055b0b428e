"""A desk on which score files are laid out the way a trainer child writes them."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.records import Candidate
from core.tasks import RankTask, RowsOf
from ranking.evidence import Rules
from store.seals import seal

THIS, EARLIER = "drop-2", "drop-1"


def losses(key: str, rows: list[dict[str, object]], per_token: list[float]) -> list[float]:
    """Loss of each row: what is hard is hard for every model (a noise that all share), and a little noise of the file's own."""
    shared, own = np.random.default_rng(2), np.random.default_rng(zlib.crc32(key.encode()))
    noise = shared.normal(0, 0.3, len(rows)) + own.normal(0, 0.05, len(rows))
    return [(level + extra) * int(str(row["tokens"])) for row, level, extra in zip(rows, per_token, noise, strict=True)]


class Desk:
    """Writes score files and the task that names them, beside a sealed checkpoint, its probe and the gate's report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        checkpoint, drop = folder / "checkpoint", folder / "drop"
        checkpoint.mkdir()
        (checkpoint / "adapter_config.json").write_text('{"r": 8}')
        (folder / "probe.jsonl").write_text(json.dumps({"prompt": "Hi", "base": {"ids": [1]}, "adapter": {"ids": [2]}}) + "\n")
        drop.mkdir()
        self.report()
        self.candidate = Candidate(step=30, path="01-train/checkpoints/step_000030", sha256=seal(checkpoint))
        self.task = RankTask(
            job="job-7",
            purpose="verdict",
            backend="peft",
            this_drop=THIS,
            candidates=(self.candidate,),
            incumbent="base",
            scores={},
            settings={"ranking": {"resamples": 1000}},
            best=self.candidate.id,
            looks=1,
            rows=(RowsOf(drop=THIS, sha256="0" * 64, folder=str(drop), schema_id="chat_sft_v1"),),
            checkpoint=str(checkpoint),
            probe=str(folder / "probe.jsonl"),
        )
        self.rules = Rules(resamples=1000, seed=0, margin=0.02, min_gate_groups=30, allow_stub=False)

    def report(self, *findings: dict[str, object]) -> Path:
        """What the gate found in this drop."""
        path = self.folder / "drop" / "report.json"
        path.write_text(json.dumps({"findings": findings}))
        return path

    def lay_suite(self, name: str, model: str, values: list[float], *, items: int = 0, generated: bool = True, **header: object) -> Path:
        """The results of a suite under one model."""
        suite = {"name": name, "sha256": "5" * 64, "items": items or len(values), "generated": generated}
        head = {
            "header": True,
            "model": model,
            "backend": "peft",
            "base_sha256": "b" * 64,
            "settings": {},
            "made_up": False,
            "suite": suite,
        }
        rows = [{"item": f"item-{index}", "group": f"item-{index}", "value": value} for index, value in enumerate(values)]
        path = self.folder / f"suite-{name}-{model}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in [head | header, *rows]))
        self.task = replace(self.task, scores={**self.task.scores, f"suite/{name}/{model}": str(path)})
        return path

    def rows(self, *, this: int, earlier: int = 0) -> list[dict[str, object]]:
        """Row stubs: two rows a conversation, some tokens each."""
        tokens = np.random.default_rng(1).integers(5, 40, size=this + earlier)
        drops = [THIS] * this + [EARLIER] * earlier
        return [{"drop": drop, "line": i + 1, "group": f"{drop}-{i // 2}", "tokens": int(tokens[i])} for i, drop in enumerate(drops)]

    def lay(self, key: str, rows: list[dict[str, object]], **header: object) -> Path:
        """Write rows under `key` and name them in the task."""
        split, _, model = key.rpartition("/")
        head = {"header": True, "model": model, "split": split, "backend": "peft", "base_sha256": "b" * 64, "settings": {"max_length": 64}, "made_up": False}
        path = self.folder / f"{split.replace('/', '-')}-{model}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in [head | header, *rows]))
        self.task = replace(self.task, scores={**self.task.scores, key: str(path)})
        return path

    def lay_scores(self, key: str, rows: list[dict[str, object]], by_drop: dict[str, float], **header: object) -> Path:
        """Scores with noise around a loss per token for each drop."""
        found = losses(key, rows, [by_drop[str(row["drop"])] for row in rows])
        return self.lay(key, [row | {"loss": loss} for row, loss in zip(rows, found, strict=True)], **header)

    def lay_shift(self, key: str, rows: list[dict[str, object]], more: float, **header: object) -> Path:
        """A shift file in which an answer costs `more` a token under another row's question, give or take."""
        mine = [row for row in rows if row["drop"] == THIS]
        own, shifted = losses(f"{key} own", mine, [3.0] * len(mine)), losses(f"{key} shifted", mine, [3.0 + more] * len(mine))
        scored = [row | {"loss_own": there, "loss_shifted": away} for row, there, away in zip(mine, own, shifted, strict=True)]
        return self.lay(key, scored, **header)

    def lay_out(self, *, this: float, earlier: float = 0.0, shift: float = 0.8, rows: tuple[int, int] = (90, 0), **header: object) -> None:
        """A whole verdict's evidence: the incumbent at 4.0 a token, the candidate `this` and `earlier` above it."""
        stubs = self.rows(this=rows[0], earlier=rows[1])
        self.lay_scores(f"gate/{self.task.incumbent}", stubs, {THIS: 4.0, EARLIER: 4.0}, **header)
        self.lay_scores(f"gate/{self.candidate.id}", stubs, {THIS: 4.0 + this, EARLIER: 4.0 + earlier}, **header)
        self.lay_shift(f"shift-gate/{self.candidate.id}", stubs, shift, **header)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
