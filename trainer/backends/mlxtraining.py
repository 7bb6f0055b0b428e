"""One LoRA training in MLX, for Apple's chips: the same rows, order, masks, weights and learning rates as everywhere else.

Rows lie under one another, padded on the right; what follows a row cannot reach back into it. Axes: N rows, T positions,
V vocabulary.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from core.errors import ChildError
from core.exits import ChildExit
from store.bases import read_base
from store.child import Stopped
from trainer import checkpoints
from trainer.backends.mlxmodel import attach, load_base, put_adapter_weights, write_adapter
from trainer.backends.setup import Setup
from trainer.examples import Example
from trainer.identity import Identity, differences
from trainer.plan import Plan
from trainer.run import RunFolder
from trainer.space import MB, require_free

log = logging.getLogger(__name__)

PADDED_TOKENS = 4096
RESUME_EVERY_S = 300.0
STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


class MlxTraining:
    """Loads the base, attaches an adapter, goes through the plan. Writes below the run folder only."""

    def __init__(self, setup: Setup, run: RunFolder) -> None:
        self.setup, self.run, self.config = setup, run, setup.config
        self.plan = Plan.of(setup.config, len(setup.train.kept))
        self.base_name = read_base(Path(setup.task.base)).name
        self.model = load_base(Path(setup.task.base))
        self.layers = attach(self.model, setup.config)
        if setup.task.start is not None:
            put_adapter_weights(self.model, Path(setup.task.start), setup.config.deploy.encryption_key)
        self.optimizer = optim.AdamW(learning_rate=0.0, weight_decay=setup.config.training.weight_decay, bias_correction=True)
        self.optimizer.init(self.model.trainable_parameters())
        self.gradients = nn.value_and_grad(self.model, _loss)
        run.rows, run.longest = len(setup.train.kept), max(len(example.ids) for example in setup.train.kept)
        run.device = "mlx"
        self.saved_at = time.monotonic()

    def go(self) -> None:
        """Train to the end. Raises Stopped after a resume point was sealed; ChildError where the loss is no number."""
        run, plan = self.run, self.plan
        run.total_steps = plan.total_steps
        run.stops_at_once = False
        self._resume()
        while run.steps < run.total_steps:
            run.rest()
            if run.stopping:
                self._save_resume()
                raise Stopped
            began = time.monotonic()
            step = run.steps + 1
            loss = self._step(step)
            run.steps = step
            self._report(loss, time.monotonic() - began)
            if step in plan.checkpoint_steps:
                self._checkpoint()
            elif time.monotonic() - self.saved_at > RESUME_EVERY_S:
                self._save_resume()

    def _step(self, step: int) -> float:
        examples = [self.setup.train.kept[index] for index in self.plan.rows(step)]
        total_weight = sum(sum(example.weights) for example in examples)
        mx.random.seed(self.config.training.seed + step)  # what is dropped follows from the step: a resumed training drops the same
        self.model.train()
        total, summed = 0.0, None
        for batch in _cut(examples, self.config.training.micro_batch or self.config.batch_size):
            loss, grads = self.gradients(self.model, *_arrays(batch), total_weight)
            summed = grads if summed is None else tree_map(mx.add, summed, grads)
            mx.eval(loss, summed)
            total += float(loss)
            self.run.beat()
        if not total < float("inf"):  # false for nan as well
            rows = ", ".join(f"{example.row.drop}:{example.row.line}" for example in examples)
            raise ChildError(
                f"the loss of step {step} is {total}; its rows are {rows}",
                hint="look at these rows, or lower learning_rate; the last good checkpoint is kept",
                code="LOSS_NOT_FINITE",
                exit_code=ChildExit.BAD_DATA,
            )
        clipped, _ = optim.clip_grad_norm(summed, self.config.training.max_grad_norm)
        self.optimizer.learning_rate = self.plan.rate(step)
        self.optimizer.update(self.model, clipped)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        return total

    def _report(self, loss: float, seconds: float) -> None:
        run = self.run
        tokens = sum(len(self.setup.train.kept[index].ids) for index in self.plan.rows(run.steps))
        run.tokens, run.seconds = run.tokens + tokens, run.seconds + seconds
        run.report(
            "train",
            last=run.steps == run.total_steps,
            step=run.steps,
            total_steps=run.total_steps,
            loss=loss,
            lr=self.plan.rate(run.steps),
            tokens_per_s=tokens / seconds,
            supervised_share=self.setup.train.supervised_share,
            eta_s=seconds * (run.total_steps - run.steps),
        )

    def _dev_loss(self) -> tuple[float | None, int]:
        """Mean loss per learnt token of the dev split, weights left out, and how many tokens there are."""
        self.model.eval()
        total, tokens = 0.0, 0
        for batch in _cut(sorted(self.setup.dev, key=lambda example: len(example.ids)), self.config.batch_size):
            ids_NT, sources_NT, _ = _arrays(batch)
            total += float(_loss(self.model, ids_NT, sources_NT, (sources_NT >= 0).astype(mx.float32), 1.0))
            tokens += sum(len(example.learnt) for example in batch)
            self.run.report("dev", step=self.run.steps, total_steps=self.run.total_steps)
        return (total / tokens if tokens else None), tokens

    def _checkpoint(self) -> None:
        dev_loss, dev_tokens = self._dev_loss()
        note = {"step": self.run.steps, "dev_loss": dev_loss, "dev_tokens": dev_tokens, "profile": self.run.profile}

        def fill(folder: Path) -> None:
            write_adapter(self.model, self.layers, folder, self.config, self.base_name)
            (folder / checkpoints.NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

        self._require_free()
        checkpoints.keep(self.run.root, self.run.steps, fill)
        self._save_resume()
        self.run.report("dev", last=True, step=self.run.steps, total_steps=self.run.total_steps, dev_loss=dev_loss)

    def _save_resume(self) -> None:
        def fill(folder: Path) -> None:
            write_adapter(self.model, self.layers, folder, self.config, self.base_name)
            mx.save_safetensors(str(folder / OPTIMIZER), dict(tree_flatten(self.optimizer.state)))
            state = {"step": self.run.steps, "training": asdict(self.setup.identity)}
            (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

        self._require_free()
        checkpoints.save_resume(self.run.root, self.run.steps, fill)
        self.saved_at = time.monotonic()

    def _require_free(self) -> None:
        size = sum(array.nbytes for _, array in tree_flatten(self.model.trainable_parameters()))
        require_free(self.run.root, 4 * size + 16 * MB, "a checkpoint")

    def _resume(self) -> None:
        if self.setup.task.checkpoint is None:
            return
        for folder in checkpoints.usable_resumes(Path(self.setup.task.checkpoint)):
            state = json.loads((folder / STATE).read_bytes())
            if told := differences(Identity(**state["training"]), Identity(**json.loads(json.dumps(asdict(self.setup.identity))))):
                log.warning("no resume point: %s is of another training: %s", folder.name, "; ".join(told))
                continue
            put_adapter_weights(self.model, folder)
            saved: Any = mx.load(str(folder / OPTIMIZER))
            self.optimizer.state = tree_unflatten(list(saved.items()))
            checkpoints.adopt(folder, self.run.root)
            self.run.steps = state["step"]
            return


def _cut(examples: Sequence[Example], rows: int) -> list[list[Example]]:
    """In order, at most so many rows and about 4,096 padded positions each."""
    found: list[list[Example]] = []
    for example in examples:
        longest = max([len(example.ids), *(len(other.ids) for other in found[-1])] if found else [0])
        if found and len(found[-1]) < rows and longest * (len(found[-1]) + 1) <= PADDED_TOKENS:
            found[-1].append(example)
        else:
            found.append([example])
    return found


def _arrays(batch: Sequence[Example]) -> tuple[mx.array, mx.array, mx.array]:
    """Ids (N, T); at each position the id that is to be predicted there, -1 where nothing is learnt; the weight of that loss."""
    longest = max(len(example.ids) for example in batch)
    ids, targets, weights = ([[fill] * longest for _ in batch] for fill in (0, -1, 0.0))
    for row, example in enumerate(batch):
        ids[row][: len(example.ids)] = list(example.ids)
        for index, weight in zip(example.learnt, example.weights, strict=True):
            targets[row][index - 1] = example.ids[index]
            weights[row][index - 1] = weight
    return mx.array(ids), mx.array(targets), mx.array(weights)


def _loss(model: Any, ids_NT: mx.array, targets_NT: mx.array, weights_NT: mx.array, total_weight: float) -> mx.array:
    """Weighted sum of -log p (nats) over the learnt positions, divided by the weight of the whole effective batch."""
    logits_NTV = model(ids_NT).astype(mx.float32)
    losses_NT = nn.losses.cross_entropy(logits_NTV, mx.maximum(targets_NT, 0), reduction="none")
    return (losses_NT * weights_NT).sum() / total_weight
