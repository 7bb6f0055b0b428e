"""A trainer without a model, for dry runs and tests: the same files, the same exit codes, made-up numbers marked so.

Losses are a random walk drawn from the job's id, so that a repeat or a resumed run tells the same story. Rows, epochs,
batches and checkpoints are those of a real training. Adapters hold one number, their steps.
"""

import json
import math
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from core.config import Config
from core.tasks import ScoreModel, ScoreTask, TrainTask
from rendering.counting import guess_tokens
from rendering.rows import Row, read_rows
from store.bases import STUB_BASE
from store.child import Stopped
from store.durable import replace_file
from trainer import checkpoints
from trainer.examples import Examples, require_trainable
from trainer.madeup import write_made_up
from trainer.probes import NUM_TOKENS, PROBE, read_prompts
from trainer.profiled import profiled
from trainer.replay import with_replay
from trainer.run import RunFolder
from trainer.scores import Header, Score, shift_rows, write_scores, write_shift
from trainer.settings import config_of
from trainer.settling import Device, Encoded, settle_training
from trainer.stages import StagedPlan, staged_plan

STEP_S = 0.02
FIRST_LOSS = 3.5
"""Where the walk starts, in nats per token."""
MOST_GAIN = 0.3
"""How much better than the base a stub adapter can claim to be, in nats per token."""
SHIFT_COST = 0.5
"""How much worse a stub adapter claims an answer to be under another question."""


class StubBackend:
    """Looks like a trainer to everything but a person who reads the numbers."""

    def train(self, task: TrainTask, run: RunFolder) -> None:
        """Leave made-up checkpoints in `run`, as a training would. Raises ChildError, Stopped."""
        config = config_of(task)
        rows = profiled(with_replay(read_rows(task.rows), task.learnt, config.training.replay_share, config.training.seed), config, run)
        found = [row for row in rows if row.split == "train"]
        if not found:
            require_trainable(Examples(), config.max_length, config.training.max_overlong_share)
        has_dev = any(row.split == "dev" for row in rows)
        config = settle_training(task, config, Encoded(rows=found, num_dev=sum(row.split == "dev" for row in rows)), Device(name="stub"), run)
        plan = staged_plan(config, found)
        config = config.model_copy(update={"lora": config.lora.model_copy(update={"r": plan.rank})})
        run.rows, run.device = len(found), "stub"
        run.total_steps = plan.total_steps
        run.micro_batch = task.micro_batch or config.training.micro_batch or config.batch_size
        run.stops_at_once = False
        _resume(task, run)
        walk = list(_walk(task.job, plan.total_steps))
        first = run.steps
        while run.steps < plan.total_steps:
            if run.stopping:
                if run.steps > first:
                    _save_resume(run, config)
                raise Stopped
            time.sleep(STEP_S)
            run.steps += 1
            run.tokens, run.seconds = run.tokens + sum(guess_tokens(found[index].messages)[0] for index in plan.rows(run.steps)), run.seconds + STEP_S
            run.rest()
            _report(run, plan, walk[run.steps - 1])
            if run.steps in plan.checkpoint_steps:
                _checkpoint(run, config, _dev_loss(run.steps) if has_dev else None)

    def score(self, task: ScoreTask, run: RunFolder) -> None:
        """Leave made-up score files in `run`, the same for the same rows and steps. Raises ChildError, Stopped."""
        config = config_of(task)
        rows = [row for row in profiled(read_rows(task.rows), config, run) if row.split == task.split]
        run.total_steps = len(task.models)
        for model in task.models:
            steps = _steps_of(model)
            header = Header(
                model=model.id, split=task.split, backend=task.backend, base_sha256=STUB_BASE, max_length=config.max_length, dtype="none", made_up=True
            )
            scores = [_score(row, model.id, steps) for row in rows]
            write_scores(run, header, zip(rows, scores, strict=True))
            if task.shift == model.id:
                mine = [(row, score) for row, score in zip(rows, scores, strict=True) if row.drop == task.this_drop]
                chosen = sorted(index for index, _ in shift_rows([row for row, _ in mine]))
                write_shift(run, header, [(*mine[index], mine[index][1].last_loss + SHIFT_COST * mine[index][1].last_tokens) for index in chosen])
            write_made_up(task, run, header, rows, steps)
            if task.probe == model.id:
                _write_probe(run.root, model.id)
            run.steps += 1
            run.report("score", last=True, step=run.steps, total_steps=run.total_steps, made_up=True)


def _walk(job: str, num_steps: int) -> Iterator[float]:
    rng = random.Random(f"{job}/train")  # noqa: S311 - made-up numbers
    loss = FIRST_LOSS
    for _ in range(num_steps):
        loss = max(0.1, loss + rng.gauss(-0.005, 0.03))
        yield loss


def _gain(steps: int) -> float:
    return MOST_GAIN * steps / (steps + 20)


def _dev_loss(steps: int) -> float:
    return FIRST_LOSS - _gain(steps)


def _report(run: RunFolder, plan: StagedPlan, loss: float) -> None:
    step = run.steps
    eta_s = STEP_S * (plan.total_steps - step)
    run.report("train", last=step in (1, plan.total_steps), step=step, total_steps=plan.total_steps, loss=loss, lr=plan.rate(step), eta_s=eta_s, made_up=True)


def write_stub_adapter(folder: Path, config: Config, steps: int) -> None:
    """An adapter in PEFT layout with one number in it, the steps; both files say that it is made up."""
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"format": "pt", "made_up": "true"}, "made_up.steps": tensor}).encode()
    header += b" " * (-len(header) % 8)  # safetensors wants the tensors aligned
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + struct.pack("<f", steps))
    shape = {"peft_type": "LORA", "r": config.lora.r, "lora_alpha": config.lora.alpha, "target_modules": [], "made_up": True, "steps": steps}
    (folder / "adapter_config.json").write_text(json.dumps(shape, indent=1) + "\n", encoding="utf-8")


def _checkpoint(run: RunFolder, config: Config, dev_loss: float | None) -> None:
    def fill(folder: Path) -> None:
        write_stub_adapter(folder, config, run.steps)
        note = {"step": run.steps, "dev_loss": dev_loss, "dev_tokens": 0, "made_up": True, "profile": run.profile}
        (folder / checkpoints.NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

    checkpoints.keep(run.root, run.steps, fill)
    _save_resume(run, config)
    run.report("dev", last=True, step=run.steps, total_steps=run.total_steps, dev_loss=dev_loss, made_up=True)


def _save_resume(run: RunFolder, config: Config) -> None:
    checkpoints.save_resume(run.root, run.steps, lambda folder: write_stub_adapter(folder, config, run.steps))


def _resume(task: TrainTask, run: RunFolder) -> None:
    folder = next(checkpoints.usable_resumes(Path(task.checkpoint)), None) if task.checkpoint is not None else None
    if folder is not None:
        run.steps = _made_up_steps(folder)
        checkpoints.adopt(folder, run.root)


def _made_up_steps(folder: Path) -> int:
    return int(json.loads((folder / "adapter_config.json").read_bytes()).get("steps", 0))


def _steps_of(model: ScoreModel) -> int:
    """Steps behind a model: 0 for the base."""
    return _made_up_steps(Path(model.adapter)) if model.adapter is not None else 0


def _score(row: Row, model: str, steps: int) -> Score:
    """A loss around the base's, which hangs on the row alone; words stand for tokens."""
    answers = [message for message in row.messages if message.role == "assistant"]
    tokens = sum(len(message.content.split()) + sum(len(call.arguments.split()) for call in message.tool_calls) for message in answers) or 1
    base = random.Random(f"{row.drop}/{row.line}").gauss(FIRST_LOSS, 0.5)  # noqa: S311
    own = random.Random(f"{row.drop}/{row.line}/{model}").gauss(0, 0.1) if steps else 0.0  # noqa: S311
    loss = tokens * max(0.1, base - _gain(steps) + own / math.sqrt(tokens))
    correct = min(tokens, round(tokens * math.exp(-loss / tokens / FIRST_LOSS)))
    return Score(loss=loss, tokens=tokens, correct=correct, last_loss=loss, last_tokens=tokens)


def _write_probe(root: Path, model: str) -> None:
    lines = []
    for number, prompt in enumerate(read_prompts()):
        rng = random.Random(f"{model}/{number}")  # noqa: S311
        base = {"ids": list(range(NUM_TOKENS)), "logprobs": [-1.0] * NUM_TOKENS}
        adapter = {"ids": list(range(NUM_TOKENS)), "logprobs": [round(-1.0 + rng.uniform(0, 0.5), 6) for _ in range(NUM_TOKENS)]}
        lines.append(json.dumps({"prompt": prompt, "prompt_ids": [number], "base": base, "adapter": adapter, "made_up": True}))
    replace_file(root / PROBE, "\n".join(lines) + "\n")
