"""One LoRA training: the loop, its checkpoints, its resume points.

Theory of operation. A step is one effective batch, cut into micro-batches; the loss is the weighted sum over its learnt
tokens divided by the sum of their weights, so that the cut does not change the gradient. Everything that a step depends
on follows from (config, rows, step) or lies in the resume point: a resumed training makes the steps that the stopped
one would have made. A stop is looked for after every micro-batch; a half-done step is thrown away.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.config import Config
from core.errors import IntegrityError
from core.tasks import TrainTask
from store.bases import read_base
from store.child import Stopped
from trainer import checkpoints
from trainer.backends.batches import Cut, forward_for, micro_batches
from trainer.backends.lora import fuse
from trainer.backends.model import choose_place, device_memory_mb, device_name, load_base, new_adapter, put_adapter_weights, use_threads, write_adapter
from trainer.backends.resume import Progress, read_progress, write_progress
from trainer.examples import Example, Examples
from trainer.plan import Plan
from trainer.run import RunFolder
from trainer.space import MB, require_free

log = logging.getLogger(__name__)

RESUME_EVERY_S = 300.0
SPARE_BYTES = 16 * MB
NO_MATTER = {"threads", "micro_batch", "max_attempts", "hang_factor", "hang_s", "network", "max_overlong_share"}  # to the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is trained, on what."""

    task: TrainTask
    config: Config
    train: Examples
    dev: Sequence[Example]

    @property
    def fingerprint(self) -> str:
        """Tells whether a resume point belongs to this training: same base, same rows, same settings."""
        parts = [
            read_base(Path(self.task.base)).source_sha256,
            [(source.drop, source.sha256) for source in self.task.rows],
            [(example.row.drop, example.row.line) for example in self.train.kept],
            self.config.model_dump(mode="json", include={"lora", "batch_size", "learning_rate", "max_length", "objective", "method"}),
            self.config.training.model_dump(mode="json", exclude=NO_MATTER),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Training:
    """Loads the base, attaches an adapter, goes through the plan. Writes below the run folder only."""

    def __init__(self, setup: Setup, run: RunFolder) -> None:
        self.setup, self.run, self.config = setup, run, setup.config
        self.plan = Plan.of(setup.config, len(setup.train.kept))
        use_threads(setup.config)
        base = Path(setup.task.base)
        self.base_name = read_base(base).name
        self.model = new_adapter(load_base(base, choose_place()), setup.config)
        run.rows, run.longest = len(setup.train.kept), max(len(example.ids) for example in setup.train.kept)
        run.device = device_name(self.model.device)
        fuse(self.model)
        self.forward = forward_for(self.model)
        self.params = {name: param for name, param in self.model.named_parameters() if param.requires_grad}
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=0.0, weight_decay=setup.config.training.weight_decay, fused=True)
        self.random_state = torch.get_rng_state()
        self.cut = Cut.of_training(setup.config, setup.task.micro_batch, self.forward.budget_tokens)
        self.dev_cut = Cut.of_scoring(setup.config, setup.task.micro_batch)
        run.micro_batch = self.cut.rows
        self.first_step = 1
        self.started_at = self.saved_at = time.monotonic()

    def go(self) -> None:
        """Train to the end. Raises Stopped after a resume point was sealed; ChildError and LoradError as the protocol has them."""
        run = self.run
        run.total_steps = self.plan.total_steps
        run.stops_at_once = False  # until here there was nothing to save
        self._resume()
        if run.steps in self.plan.checkpoint_steps and not checkpoints.has_checkpoint(run.root, run.steps):
            self._checkpoint()  # the stop came between the step and its checkpoint
        self.started_at = self.saved_at = time.monotonic()
        while run.steps < run.total_steps:
            run.rest()
            if run.stopping:
                self._stop()
            step = run.steps + 1
            started_at = time.monotonic()
            loss = self._step(step)
            if loss is None:
                self._stop()
            run.steps = step
            self.random_state = torch.get_rng_state()
            self._report(loss, time.monotonic() - started_at)
            if step in self.plan.checkpoint_steps:
                self._checkpoint()
            if time.monotonic() - self.saved_at > RESUME_EVERY_S:
                self._save_resume()

    def _step(self, step: int) -> float | None:
        """One optimizer step; its loss, or None where a stop came before its last micro-batch was done."""
        examples = [self.setup.train.kept[index] for index in self.plan.rows(step)]
        total_weight = sum(sum(example.weights) for example in examples)
        self.model.train()
        batches = list(micro_batches(self.forward, examples, self.cut))
        total = 0.0
        for number, batch in enumerate(batches, start=1):
            losses = self.forward.token_losses(batch)
            weights = torch.tensor([weight for example in batch for weight in example.weights], device=losses.device)
            loss = (losses * weights).sum() / total_weight
            loss.backward()
            self.run.beat()
            total += float(loss.detach())
            if self.run.stopping and number < len(batches):
                self.optimizer.zero_grad()
                return None
        torch.nn.utils.clip_grad_norm_(self.params.values(), self.config.training.max_grad_norm)
        self.optimizer.param_groups[0]["lr"] = self.plan.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _report(self, loss: float | None, seconds: float) -> None:
        run = self.run
        done = run.steps - self.first_step + 1
        each_s = (time.monotonic() - self.started_at) / max(done, 1)
        tokens = sum(len(self.setup.train.kept[index].ids) for index in self.plan.rows(run.steps))
        run.tokens, run.seconds, run.device_memory_mb = run.tokens + tokens, run.seconds + seconds, device_memory_mb(self.model.device)
        run.report(
            "train",
            last=run.steps == run.total_steps,
            step=run.steps,
            total_steps=run.total_steps,
            loss=loss,
            lr=self.plan.rate(run.steps),
            tokens_per_s=tokens / seconds,
            supervised_share=self.setup.train.supervised_share,
            eta_s=each_s * (run.total_steps - run.steps),
        )

    def _checkpoint(self) -> None:
        dev_loss, dev_tokens = self._dev_loss()
        step = self.run.steps
        self._require_free()

        def fill(folder: Path) -> None:
            write_adapter(self.model, folder, self.base_name)
            note = {"step": step, "dev_loss": dev_loss, "dev_tokens": dev_tokens}
            (folder / checkpoints.NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

        checkpoints.keep(self.run.root, step, fill)
        self._save_resume()
        self.run.report("dev", last=True, step=step, total_steps=self.run.total_steps, dev_loss=dev_loss)

    @torch.inference_mode()
    def _dev_loss(self) -> tuple[float | None, int]:
        """Mean loss per learnt token of the dev split, and how many there are. Stops the run where a stop is asked for."""
        self.model.eval()
        total, tokens = 0.0, 0
        for batch in micro_batches(self.forward, sorted(self.setup.dev, key=lambda example: len(example.ids)), self.dev_cut):
            losses = self.forward.token_losses(batch)
            total, tokens = total + float(losses.sum()), tokens + len(losses)
            if self.run.stopping:
                self._stop()
            self.run.report("dev", step=self.run.steps, total_steps=self.run.total_steps)
        return (total / tokens if tokens else None), tokens

    def _stop(self) -> None:
        if self.run.steps >= self.first_step:
            self._save_resume()
        raise Stopped

    def _require_free(self) -> None:
        # A checkpoint is the adapter once, a resume point three times: with both moments of AdamW.
        size = sum(param.numel() * param.element_size() for param in self.params.values())
        require_free(self.run.root, 4 * size + SPARE_BYTES, "a checkpoint")

    def _save_resume(self) -> None:
        self._require_free()

        def fill(folder: Path) -> None:
            write_adapter(self.model, folder, self.base_name)
            write_progress(folder, Progress(self.run.steps, self.setup.fingerprint, self.random_state), self.optimizer, self.params)

        checkpoints.save_resume(self.run.root, self.run.steps, fill)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Go on from the task's resume point, or from one before it. One that is damaged or of another training is left alone, and said so."""
        if self.setup.task.checkpoint is None:
            return
        for folder in checkpoints.usable_resumes(Path(self.setup.task.checkpoint)):
            try:
                progress = read_progress(folder, self.optimizer, self.params, self.setup.fingerprint)
            except IntegrityError as error:
                log.warning("no resume point: %s", error.what)
            else:
                self._go_on_from(folder, progress)
                return
        log.warning("starting anew: no resume point can be used")

    def _go_on_from(self, folder: Path, progress: Progress) -> None:
        put_adapter_weights(self.model, folder)
        torch.set_rng_state(progress.random_state)
        self.random_state = progress.random_state
        checkpoints.adopt(folder, self.run.root)
        self.run.steps, self.first_step = progress.step, progress.step + 1
        log.info("going on after step %d of %d", progress.step, self.run.total_steps)
