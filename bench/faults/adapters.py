"""F21: adapters that are not worth serving, through the real scoring, verdict and packing, on a tiny model."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.faults import Outcome, Trial, fault

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "trainer"))  # a tiny model

TRAIN_ROWS, GATE_ROWS = 64, 60
SETTINGS = {"batch_size": 4, "learning_rate": 5e-3, "max_length": 128, "training": {"epochs": 1.0, "checkpoints": 1, "threads": 1}}
WEIGHTS = "adapter_model.safetensors"
Change = Callable[[Any], Any]


class Bench:
    """A tiny base, rows, and a training on them."""

    def __init__(self, root: Path) -> None:
        from core.config import Config
        from trainer.convert import pull

        self.root = root
        self.config = Config.model_validate({**SETTINGS, "model_path": str(self._model()), "models_dir": str(root / "models")})
        self.base = str(pull(self.config, lambda line: None))
        self.settings = self.config.model_dump(mode="json")
        self.rows = self._rows()

    def _model(self) -> Path:
        import torch
        from trainer_cases import SHAPE, write_tokenizer
        from transformers import LlamaConfig, LlamaForCausalLM

        folder = self.root / "hf" / "tiny"
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
        write_tokenizer(folder)
        return folder

    def _rows(self) -> Any:
        import zstandard
        from trainer_cases import questions

        from core.tasks import RowsOf

        folder = self.root / "drop"
        folder.mkdir()
        raw = "".join(json.dumps(row) + "\n" for row in questions(TRAIN_ROWS + GATE_ROWS)).encode()
        (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
        groups = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(TRAIN_ROWS + GATE_ROWS)]
        index = [{"line": number + 1, "group": group, "split": "train" if number < TRAIN_ROWS else "gate"} for number, group in enumerate(groups)]
        (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
        (folder / "report.json").write_text(json.dumps({"findings": []}))
        return RowsOf(drop="drop-1", sha256=hashlib.sha256(raw).hexdigest(), folder=str(folder), schema_id="chat_sft_v1")

    def train(self) -> Path:
        """A good checkpoint."""
        from core.tasks import TrainTask
        from trainer.backends.peft import PeftBackend
        from trainer.run import RunFolder

        run = RunFolder(self._folder("train"))
        PeftBackend().train(TrainTask(job="job-1", backend="peft", base=self.base, rows=(self.rows,), settings=self.settings), run)
        (checkpoint,) = (run.root / "checkpoints").iterdir()
        return checkpoint

    def craft(self, good: Path, name: str, change: Change) -> Path:
        """The good checkpoint with other weights, sealed as a training would have sealed it."""
        from safetensors.torch import load_file, save_file

        from store.seals import SEAL, seal

        folder = self.root / "crafted" / name
        shutil.copytree(good, folder)
        (folder / SEAL).unlink()
        save_file({key: change(tensor) if "lora_B" in key else tensor for key, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
        seal(folder)
        return folder

    def verdict(self, name: str, adapter: Path) -> tuple[str, dict[str, bool]]:
        """The word of the verdict, or why there was none; and which of its legs passed."""
        from core.records import Candidate
        from core.tasks import RankTask, ScoreModel, ScoreTask
        from ranking.evidence import Rules
        from ranking.scores import EvidenceError
        from ranking.verdict import judge
        from store.seals import seal_hash
        from trainer.backends.peft import PeftBackend
        from trainer.run import RunFolder

        run, candidate = RunFolder(self._folder(f"score-{name}")), Candidate(step=1, path=str(adapter), sha256=seal_hash(adapter))
        models = (ScoreModel(id="base", adapter=None), ScoreModel(id=candidate.id, adapter=str(adapter)))
        shared: dict[str, Any] = {"job": "job-1", "backend": "peft", "rows": (self.rows,), "this_drop": "drop-1", "settings": self.settings}
        PeftBackend().score(ScoreTask(**shared, base=self.base, split="gate", models=models, shift=candidate.id, probe=candidate.id), run)
        scores = {key: str(run.root / path) for key, path in run.scores.items()}
        served: dict[str, Any] = {"checkpoint": str(adapter), "probe": str(run.root / "probe.jsonl")}
        task = RankTask(**shared, **served, purpose="verdict", candidates=(candidate,), incumbent="base", scores=scores, best=candidate.id, looks=1)
        try:
            found = judge(task, Rules(resamples=500, seed=0, margin=0.02, min_gate_groups=30, allow_stub=False))
        except EvidenceError as error:
            return f"hold: {error.code}", {}
        return found.word.value, {leg.name: leg.passed for leg in found.legs}

    def _folder(self, name: str) -> Path:
        folder = self.root / "runs" / name
        folder.mkdir(parents=True)
        return folder


def packs(adapter: Path) -> str:
    """Empty where packing and the box's engine would both take it, else who refuses and why."""
    from core.errors import LoradError
    from deploy.checkpoint import check_checkpoint
    from serving.engines.adapter_files import read_adapter
    from store.seals import seal_hash

    for who, take in (("pack", lambda: check_checkpoint(adapter, seal_hash(adapter))), ("serving", lambda: read_adapter(adapter))):
        try:
            take()
        except LoradError as error:
            return f"{who} {error.code}"
    return ""


def _first(value: float) -> Change:
    """One number of each tensor is this."""

    def change(tensor: Any) -> Any:
        changed = tensor.clone()
        changed.view(-1)[0] = value
        return changed

    return change


CRAFTED: dict[str, Change] = {
    "nan": _first(float("nan")),
    "infinite": _first(float("inf")),
    "zero": lambda tensor: tensor * 0,
    "exploded": lambda tensor: tensor * 1e4 + 10,
    "exploded beyond float16": lambda tensor: tensor * 0 + 1e30,
    "upside down": lambda tensor: -tensor,
}
NOT_FINITE = {"nan", "infinite"}


def _unlooked() -> list[Any]:
    """No one looks whether numbers are finite, and every verdict is yes."""
    import torch

    from core.records import VerdictWord
    from deploy import checkpoint
    from ranking import verdict

    return [
        patch.object(checkpoint, "check_finite", lambda path, tensors: None),
        patch.object(torch, "isfinite", lambda tensor: torch.ones(1, dtype=torch.bool)),
        patch.object(verdict, "_word", lambda legs: VerdictWord.PROMOTE),
    ]


@fault("F21", "adapter of NaN, infinite, zero or exploded weights", guard="the verdict asks for proof that it is better; pack and box ask for finite numbers")
def crafted_adapters(trial: Trial) -> Outcome:
    bench = Bench(trial.folder)
    good = bench.train()
    missed, found = [], {}
    with ExitStack() as gone:
        for one in [] if trial.guarded else _unlooked():
            gone.enter_context(one)
        for name, change in CRAFTED.items():
            adapter = bench.craft(good, name, change)
            word, _ = bench.verdict(name, adapter)
            packed = packs(adapter)
            found[name] = f"{word}, {packed or 'packs'}"
            if word == "promote" or (name in NOT_FINITE and not packed):  # a person may approve what is held: packing is the last door
                missed.append(name)
    _, legs = bench.verdict("good", good)
    taken = not packs(good) and legs["this drop"]
    note = "; ".join(f"{name}: {what}" for name, what in found.items())
    return Outcome(held=not missed and taken, figure={"crafted": len(CRAFTED), "missed": len(missed), "good_one_taken": taken}, note=note)
