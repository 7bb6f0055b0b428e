"""How fast a training is, against others on the same rows in the same order from the same adapter.

Every opponent is a process of its own with everything loaded, and takes a step when it is told to: one step each in turn,
every other round in reverse order, so that a neighbour's load falls on all alike. Ratios are of tokens a second, over
all steps but the first (which compiles and maps memory), and at the median step. Nothing is shared but rows and order.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

REPO = Path(__file__).parents[1]
DATA = REPO / "tests" / "data" / "real" / "gsm8k_train_chat.jsonl"
ROWS = 64
BATCH = 8
FLOORS = {"ratio_trl": 3.5, "ratio_trl_best": 3.0, "ratio_llamafactory": 2.5, "ratio_prototype": 0.95, "share_of_limit": 0.5, "memory_ratio_trl": 0.6}
TRAINING = {"epochs": 1.0, "scheduler": "constant", "warmup_steps": 1, "checkpoints": 1, "patience": 0, "seed": 0, "packing": True, "boards": []}


@dataclass(slots=True)
class Opponent:
    """One process and what it said."""

    name: str
    module: str
    words: list[str] = field(default_factory=list)
    python: str = sys.executable
    started_at: float = 0.0
    ready_s: float = 0.0
    process: "subprocess.Popen[str] | None" = None
    facts: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    not_run: str = ""

    def start(self, log: Path) -> None:
        """Load everything; afterwards the first step can be taken, or `not_run` says why not."""
        self.started_at = time.monotonic()
        with open(log, "w") as errors:
            words = [self.python, "-m", self.module, *self.words]
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "ignore"}
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=REPO, env=environment)
        said = self._hear()
        self.ready_s, self.facts = time.monotonic() - self.started_at, said or {}
        if said is None:
            last = [line for line in log.read_text().splitlines() if line.strip()][-1:] or ["it ended without a word"]
            self.not_run = last[0].strip()[:200]

    def step(self) -> None:
        """One step more, if there is one."""
        assert self.process is not None
        assert self.process.stdin is not None
        if self.not_run or self.process.poll() is not None:
            return
        try:
            print("go", file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return
        if (said := self._hear()) is not None:
            self.steps.append(said)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _hear(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    @property
    def seconds(self) -> list[float]:
        """Of every step but the first."""
        return [step["seconds"] for step in self.steps[1:]]

    @property
    def losses(self) -> list[float]:
        """Of every step."""
        return [step["loss"] for step in self.steps]


def measure(rows: int = ROWS, prototype: str = "", llamafactory: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents). `prototype`: path of a file with the prototype; `llamafactory`: a Python that has LLaMA-Factory."""
    from core.config import Config
    from store.bases import base_folder

    base = base_folder(Config())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_task(root, base, rows)
        ranks = opponents_of(root, base, prototype, llamafactory)
        try:
            for opponent in ranks:  # lorad is the first: it writes down the order of the rows and the adapter
                opponent.start(root / f"{opponent.module}-{opponent.name.replace(' ', '-')}.log")
                say(f"{opponent.name}: {'not run: ' + opponent.not_run if opponent.not_run else f'ready after {opponent.ready_s:.1f} s'}")
            if ranks[0].not_run:
                raise SystemExit(f"lorad itself did not start: {ranks[0].not_run}")
            lengths = [len(ids) for _, ids, _ in json.loads((root / "order.json").read_text())]
            tokens = [sum(lengths[first : first + BATCH]) for first in range(0, len(lengths), BATCH)]
            for number in range(len(tokens)):
                for opponent in ranks if number % 2 == 0 else ranks[::-1]:
                    opponent.step()
                say(f"step {number + 1} of {len(tokens)}: " + ", ".join(f"{one.name} {one.steps[-1]['seconds']:.1f} s" for one in ranks if one.steps))
        finally:
            for opponent in ranks:
                opponent.stop()
        figures, lines = figures_of({opponent.name: opponent for opponent in ranks}, tokens, root)
    from bench.warmstart import first_step_s as warm_first_step_s  # it needs the rows of this module

    return figures | warm_first_step_s(), lines


def write_task(root: Path, base: Path, rows: int) -> None:
    """An accepted drop with the first rows of the file, and the task to train on it."""
    from core.config import Config
    from core.tasks import RowsOf, TrainTask
    from store import codec

    text = b"".join(DATA.read_bytes().splitlines(keepends=True)[:rows])
    (root / "rows.jsonl").write_bytes(text)
    drop = root / "drop"
    drop.mkdir()
    (drop / "rows.jsonl.zst").write_bytes(zstandard.compress(text))
    entries = ({"line": line, "group": hashlib.sha256(str(line).encode()).hexdigest(), "split": "train"} for line in range(1, rows + 1))
    (drop / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    lora = {"r": 16, "alpha": 32, "dropout": 0.0, "targets": "all-linear"}
    config = Config.model_validate({"batch_size": BATCH, "learning_rate": 2e-4, "max_length": 512, "lora": lora, "training": TRAINING})
    taken = RowsOf(drop="bench", sha256=hashlib.sha256(text).hexdigest(), folder=str(drop), schema_id="chat_sft_v1")
    task = TrainTask(job="bench", backend="peft", base=str(base), rows=(taken,), settings=config.model_dump(mode="json"))
    codec.write(root / "spec.json", task)


def opponents_of(root: Path, base: Path, prototype: str, llamafactory: str) -> list[Opponent]:
    """All that could run; those that cannot say why."""
    words = [str(root), str(base)]
    found = [Opponent("lorad", "bench.opponents.lorad", words)]
    found += [Opponent(f"TRL {setting}", "bench.opponents.trl", [*words, setting]) for setting in ("default", "kept", "packed")]
    found += [Opponent("LLaMA-Factory", "bench.opponents.llamafactory", words, llamafactory or sys.executable)]
    if prototype:
        found += [Opponent("prototype", "bench.opponents.prototype", [*words, prototype])]
    return [*found, Opponent("limit", "bench.opponents.limit")]


def figures_of(ran: dict[str, Opponent], tokens: list[int], root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The issue's figures, and a line for each opponent."""
    packed = json.loads((root / "tokens-packed.json").read_text()) if (root / "tokens-packed.json").exists() else {"tokens": 0, "steps": 1}
    each = dict.fromkeys(ran, tokens) | {"TRL packed": [packed["tokens"] / packed["steps"]] * packed["steps"]}
    rates = {name: rate(one, each[name]) for name, one in ran.items() if name != "limit" and one.seconds}
    own, best = rates["lorad"], [rates[name] for name in ("TRL kept", "TRL packed", "TRL default") if name in rates]
    figures: dict[str, Any] = {"rows": (root / "rows.jsonl").read_bytes().count(b"\n"), "tokens": sum(tokens)}
    figures |= against("ratio_trl", own, [rates["TRL default"]] if "TRL default" in rates else [])
    figures |= against("ratio_trl_best", own, best)
    figures |= against("ratio_llamafactory", own, [rates["LLaMA-Factory"]] if "LLaMA-Factory" in rates else [])
    figures |= against("ratio_prototype", own, [rates["prototype"]] if "prototype" in rates else [])
    flops = statistics.median(step["flops"] for step in ran["limit"].steps)
    limit = flops / ran["lorad"].facts["flops_per_token"]
    figures |= {"limit_tokens_s": round(limit), "share_of_limit": round(own[0] / limit, 3), "share_of_limit_median_step": round(own[1] / limit, 3)}
    if ran["TRL default"].steps:
        figures["memory_ratio_trl"] = round(peak_mb(ran["lorad"]) / peak_mb(ran["TRL default"]), 2)
        figures["max_loss_difference"] = round(max(abs(a - b) for a, b in zip(ran["lorad"].losses, ran["TRL default"].losses, strict=False)), 4)
    figures["floors"] = FLOORS
    return figures, {name: line_of(one, rates.get(name)) for name, one in ran.items() if name != "limit"}


def rate(one: Opponent, tokens: list[float] | list[int]) -> tuple[float, float]:
    """Tokens a second over all steps but the first, and at the median step."""
    told = list(zip(tokens[1:], one.seconds, strict=False))
    return sum(count for count, _ in told) / sum(seconds for _, seconds in told), statistics.median(count / seconds for count, seconds in told)


def against(name: str, own: tuple[float, float], others: list[tuple[float, float]]) -> dict[str, Any]:
    """The ratio to the fastest of `others`, by totals and at the median step; "not run" where there is none."""
    if not others:
        return {name: "not run"}
    return {name: round(own[0] / max(one[0] for one in others), 2), f"{name}_median_step": round(own[1] / max(one[1] for one in others), 2)}


def first_step_s(one: Opponent) -> float:
    """From the start of its process, cold, to the end of its first step."""
    return round(one.ready_s + one.steps[0]["seconds"], 1)


def peak_mb(one: Opponent) -> int:
    """Most memory that its process held."""
    return int(one.steps[-1]["peak_mb"])


def line_of(one: Opponent, rates: tuple[float, float] | None) -> dict[str, Any] | str:
    """What is printed of an opponent."""
    if one.not_run or rates is None:
        return f"not run: {one.not_run or 'too few steps'}"
    found = {"tokens_s": round(rates[0]), "tokens_s_median_step": round(rates[1]), "median_step_s": round(statistics.median(one.seconds), 2)}
    losses = [round(loss, 4) for loss in one.losses if loss is not None]
    return found | {
        "first_step_s": first_step_s(one),
        "steps_total_s": round(sum(one.seconds), 1),
        "steps_cpu_s": round(sum(step["cpu_s"] for step in one.steps[1:]), 1),
        "peak_mb": peak_mb(one),
        "losses": losses,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
