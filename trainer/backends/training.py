"""One training: the loop, its checkpoints, its resume points.

Theory of operation. A step is one effective batch, cut into micro-batches; the loss is the weighted sum over what it
learns divided by the sum of the weights, so that the cut does not change the gradient. Everything that a step depends on
follows from (config, rows, step), lies in the resume point, or is recorded for the step (its cut, steps.jsonl): a resumed
training makes the steps that the stopped one would have made, to the bit. A stop is looked for after every micro-batch;
a half-done step is thrown away, and so is one that ran out of memory, which is made again with smaller micro-batches.
"""

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.errors import ChildError, IntegrityError
from core.exits import ChildExit
from store.bases import read_base
from store.child import Stopped, is_out_of_memory
from trainer import checkpoints
from trainer.backends.batches import Cut, micro_batches
from trainer.backends.devicememory import gauge_of, pass_bytes_per_token
from trainer.backends.families import forward_for, path_of
from trainer.backends.limit import flops_per_token, product_flops
from trainer.backends.lora import fuse
from trainer.backends.methods import new_trainee, put_start, put_trained_weights, write_trainee
from trainer.backends.model import choose_place, device_memory_mb, device_name, use_threads
from trainer.backends.optimizer import optimizer_for
from trainer.backends.patience import Patience
from trainer.backends.preference import objective_for
from trainer.backends.resume import Best, Progress, RandomStates, read_progress, write_progress
from trainer.backends.setup import Setup
from trainer.backends.sharding import require_even, split, wants_split
from trainer.backends.staging import Staging
from trainer.backends.world import World, tried
from trainer.corpus import RowsOfExamples
from trainer.examples import Example, lengths_of
from trainer.memory import STEPS, Cutter, half
from trainer.rowtroubles import not_finite, too_large
from trainer.run import RunFolder
from trainer.space import MB, require_free
from trainer.stability import Stability
from trainer.stages import staged_plan

log = logging.getLogger(__name__)

RESUME_EVERY_S = 300.0
SPARE_BYTES = 16 * MB
LIMIT_AFTER_S = 20.0


class Training:
    """Loads the base, attaches an adapter, goes through the plan. Writes below the run folder only."""

    def __init__(self, setup: Setup, run: RunFolder) -> None:
        self.setup, self.run, self.world = setup, run, World.now()
        self.plan = staged_plan(setup.config, RowsOfExamples(setup.train.kept))
        self.config = setup.config.model_copy(update={"lora": setup.config.lora.model_copy(update={"r": self.plan.rank})})
        use_threads(setup.config)
        base = Path(setup.task.base)
        self.base_name = read_base(base).name
        RandomStates.seed(setup.config.training.seed)
        place = choose_place()
        self.world.is_split = wants_split(setup.config, base, place, self.world.size)
        start_at = replace(place, device="cpu") if self.world.is_split else place  # whole it may fit no GPU
        self.model = setup.new_model(base, self.config) if setup.new_model else new_trainee(base, start_at, self.config)
        if setup.task.start:
            put_start(self.model, Path(setup.task.start), setup.config.deploy.encryption_key)
        if self.world.is_split:
            split(self.model, place)
        run.rows, run.longest = len(setup.train.kept), setup.train.totals.longest
        run.device = device_name(self.model.device)
        fuse(self.model)
        self.forward = forward_for(self.model, setup.config, round(setup.train.totals.tokens * setup.config.training.epochs))
        run.path = path_of(self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model, self.config).why
        rows = [] if setup.train.is_streamed else [*setup.train.kept, *setup.dev]  # streamed rows are all learnt token by token
        self.objective = objective_for(setup.config, self.forward, self.model, rows)
        if self.world.is_split:
            require_even(self.forward, self.objective)
        self.objective.prepare(rows, run.beat)
        self.params = {name: param for name, param in self.model.named_parameters() if param.requires_grad}
        self.optimizer = optimizer_for(setup.config, self.params.values())
        self.staging = Staging(self.plan, self.params)
        self.random = RandomStates.now()
        widest = Cut.of_training(setup.config, setup.task.micro_batch, self.forward.budget_tokens)
        self.cutter = Cutter(widest, gauge_of(self.model.device), pass_bytes_per_token(base), run.root / STEPS)
        self.dev_cut = Cut.of_scoring(setup.config, setup.task.micro_batch)
        self.stability = Stability(setup.config)
        self.best = Best()
        self._limit_tokens_s = 0.0
        run.micro_batch = widest.rows
        self.first_step = 1
        self.started_at = self.saved_at = time.monotonic()

    def go(self) -> None:
        """Train to the end. Raises Stopped after a resume point was sealed; ChildError and LoradError as the protocol has them."""
        run = self.run
        run.total_steps = self.plan.total_steps
        run.stops_at_once = False  # until here there was nothing to save
        self._resume()
        self.staging.enter(max(1, run.steps))
        if self.world.any(run.steps in self.plan.checkpoint_steps and self.world.is_first and not checkpoints.has_checkpoint(run.root, run.steps)):
            self._checkpoint()  # the stop came between the step and its checkpoint
        self.started_at = self.saved_at = time.monotonic()
        patience = Patience()
        while run.steps < run.total_steps and not self._has_enough():
            run.rest()
            patience.look()
            if self.world.any(run.stopping):
                self._stop()
            step = self.staging.next_step(run.steps, self.best)
            best = self._enter(step)
            started_at = time.monotonic()
            loss = self._step(step)
            if loss is None:
                self._stop()
                return
            norm = self._update(step)
            self.best = best  # not earlier: a resume point before this step tells of the stage before
            run.steps = step
            self.random = RandomStates.now()
            self._report(loss, norm, time.monotonic() - started_at)
            if step in self.plan.checkpoint_steps:
                self._checkpoint()
            if time.monotonic() - self.saved_at > RESUME_EVERY_S:
                self._save_resume()

    def _enter(self, step: int) -> Best:
        """Make ready for a step. Returns the best dev loss of its stage so far; a new stage begins with none, and with a new optimizer."""
        if not self.staging.enter(step) or not self.config.stages:
            return self.best
        log.info("stage %s begins with step %d: %d rows", self.staging.stage.name, step, len(self.staging.stage.rows))
        if step > 1:
            self.optimizer = optimizer_for(self.config, self.params.values())
            return Best(began=self.best.last)
        began = self._dev_loss()[0]
        self._report_dev(began)
        return Best(began=began)

    # ---------------------------------------------------------------- a step

    def _step(self, step: int) -> float | None:
        """The gradients of one effective batch; its loss, or None where a stop came before the last micro-batch was done."""
        examples = self._examples(step)
        own = self.world.own(examples)
        self.random = self.world.seed_step(self.config.training.seed, step) or self.random
        while True:
            cut = self.cutter.of_step(step, lambda cut: self._tokens_at_once(own, cut))
            batches = list(micro_batches(self.forward, own, cut))
            self.run.micro_batch = most = max((len(batch) for batch in batches), default=0)
            self.cutter.gauge.mark()
            mine = tried(lambda: self._gradients(step, examples, batches), self.world)  # noqa: B023 - called at once
            outcome = self.world.agree(mine)
            if outcome.is_whole:
                self.cutter.learn(self._tokens_at_once(own, cut))
                return outcome.loss
            # Here a failed pass is gone with its exception, and nothing of it is left in gradients or random states.
            self._undo()
            if outcome.error:
                raise outcome.error
            if outcome.stopped:
                return None
            if mine.ran_out and not self.cutter.ran_out(step, most):
                raise too_large(step, own)

    def _examples(self, step: int) -> list[Example]:
        """The rows of a step, longest first: rows of a micro-batch are of like length, and what does not fit fails at once."""
        examples = [self.setup.train.kept[index] for index in self.plan.rows(step)]
        return sorted(examples, key=lambda example: -sum(len(sequence.ids) for sequence in example.sequences))

    def _gradients(self, step: int, examples: Sequence[Example], batches: Sequence[Sequence[Example]]) -> float | None:
        """Add up the gradients of the micro-batches, this process's part of the rows; their loss, or None where the run is to stop."""
        self.model.train()
        self.objective.begin(examples)
        total_weight = sum(self.objective.weight(example) for example in examples)
        total = 0.0
        for number, (batch, counts) in enumerate(self.world.passes(batches, examples[-1:]), start=1):
            loss = counts * self.objective.loss_sum(batch) / total_weight
            if not math.isfinite(value := float(loss.detach())):
                raise self._not_finite(f"the loss of step {step}", batch)
            loss.backward()
            total += value
            self.run.beat()
            if self.run.stopping and number < len(batches) and not self.world.is_split:
                self._undo()
                return None
        return total

    def _update(self, step: int) -> float:
        """One step of the optimizer along the gradients, which are clipped; their length before that. Gradients of other processes join here."""
        self.world.add_gradients(self.params.values())
        self.staging.cut_gradients()
        norm = float(torch.nn.utils.clip_grad_norm_(self.params.values(), self.config.training.max_grad_norm))
        if not math.isfinite(norm):
            raise self._not_finite(f"the gradient of step {step}", self._examples(step))
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        self.optimizer.step()
        self.staging.put_back()
        self.optimizer.zero_grad()
        return norm

    def _undo(self) -> None:
        """As if the step had not begun."""
        self.optimizer.zero_grad()
        self.random.restore()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _tokens_at_once(self, examples: Sequence[Example], cut: Cut) -> int:
        """Positions that the largest micro-batch of these rows computes under a cut."""
        costs = []
        for batch in micro_batches(self.forward, examples, cut):
            lengths = [len(sequence.ids) for example in batch for sequence in example.sequences]
            costs.append(self.forward.cost(len(lengths), sum(lengths), max(lengths)))
        return max(costs, default=0)

    def _not_finite(self, what: str, batch: Sequence[Example]) -> ChildError:
        """The error for a loss or gradient that is no number; it names the rows that are so by themselves, or all of them."""
        self._undo()
        with torch.no_grad():  # of a split base nobody else joins these passes
            alone = [] if self.world.is_split else [example for example in batch if not math.isfinite(float(self.objective.loss_sum([example])))]
        return not_finite(what, alone or batch, len(checkpoints.kept(self.run.root)))

    def _report(self, loss: float, norm: float, seconds: float) -> None:
        run = self.run
        each_s = (time.monotonic() - self.started_at) / max(run.steps - self.first_step + 1, 1)
        tokens = sum(len(self.setup.train.kept[index].ids) for index in self.plan.rows(run.steps))
        run.tokens, run.seconds, run.device_memory_mb = run.tokens + tokens, run.seconds + seconds, device_memory_mb(self.model.device)
        warning = self.stability.see(run.steps, loss, norm, self.plan.rate(run.steps))
        run.report(
            "train",
            last=run.steps == run.total_steps or bool(warning),
            step=run.steps,
            total_steps=run.total_steps,
            loss=loss,
            lr=self.plan.rate(run.steps),
            grad_norm=norm,
            clipped=self.stability.clipped,
            tokens_per_s=tokens / seconds,
            share_of_limit=self._share_of_limit(tokens / seconds),
            supervised_share=self.setup.train.supervised_share,
            eta_s=each_s * (run.total_steps - run.steps),
            warning=warning or None,
            stage_name=self._stage_name,
        )

    def _share_of_limit(self, tokens_per_s: float) -> float | None:
        """Of what this device's matrix products alone would allow: measured once, in a training that lasts; None before."""
        if not self._limit_tokens_s:
            if time.monotonic() - self.started_at < LIMIT_AFTER_S:
                return None
            inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            per_token = flops_per_token(self.model, self.setup.train.supervised_share)
            self._limit_tokens_s = product_flops(self.model.device, inner.get_input_embeddings().weight.dtype) / per_token
        return tokens_per_s / self._limit_tokens_s

    # ---------------------------------------------------------------- checkpoints

    def _checkpoint(self) -> None:
        with self.staging.whole():
            self._checkpoint_of_all()

    def _checkpoint_of_all(self) -> None:
        dev_loss, dev_tokens = self._dev_loss()
        step = self.run.steps
        self.best.see(dev_loss, step)
        if not self.world.is_first:
            return
        self._require_free()

        def fill(folder: Path) -> None:
            write_trainee(self.model, folder, self.base_name)
            note = {"step": step, "dev_loss": dev_loss, "dev_tokens": dev_tokens, "profile": self.run.profile} | self._stage_noted()
            (folder / checkpoints.NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

        checkpoints.keep(self.run.root, step, fill)
        self._save_resume()
        self._report_dev(dev_loss)

    def _report_dev(self, dev_loss: float | None) -> None:
        self.run.report("dev", last=True, step=self.run.steps, total_steps=self.run.total_steps, dev_loss=dev_loss, stage_name=self._stage_name)

    @property
    def _stage_name(self) -> str | None:
        return self.staging.stage.name if self.config.stages else None

    def _stage_noted(self) -> dict[str, Any]:
        return {"stage": self._stage_name, "stage_began": self.best.began} if self.config.stages else {}

    def _has_enough(self) -> bool:
        """Whether the training ends before its last step: patience is used up in its last stage, or a stage brought too little. It says so."""
        outcome, run = self.staging.outcome(self.best, self.run.steps), self.run
        for words in outcome.words:
            run.warn(words)
        if outcome.ends_training:
            run.total_steps = run.steps
            run.report("dev", last=True, step=run.steps, total_steps=run.steps, ended_early=True)
        return outcome.ends_training

    def _dev_loss(self) -> tuple[float | None, int]:
        """Mean held-out loss per learnt token of the dev split, and how many there are; None without rows. Raises Stopped.

        Where memory runs out, this evaluation alone is cut smaller from here on.
        """
        if not self.setup.dev and self.run.steps == min(self.plan.checkpoint_steps):
            log.warning("there are no dev rows: the last checkpoint counts as the best")
        while True:
            try:
                return self._mean_held_out()
            except Exception as error:
                if not is_out_of_memory(error) or self.dev_cut.rows == 1 or self.world.is_split:
                    raise
            self.dev_cut = half(self.dev_cut, 2 * self.config.batch_size)
            log.warning("out of memory in the evaluation: it goes on with %d rows at once; the training batch stays as it is", self.dev_cut.rows)
            self._undo()

    @torch.no_grad()  # not inference_mode: what a split base puts together in it could not be learnt through afterwards
    def _mean_held_out(self) -> tuple[float | None, int]:
        self.model.eval()
        total, tokens = 0.0, 0
        lengths, dev = lengths_of(self.setup.dev), self.setup.dev
        ordered = (dev[index] for index in self.world.own(sorted(range(len(dev)), key=lengths.__getitem__)))
        for batch, counts in self.world.passes(micro_batches(self.forward, ordered, self.dev_cut), dev[:1]):
            loss, count = self.objective.held_out(batch)
            total, tokens = total + counts * loss, tokens + counts * count
            if self.run.stopping and self.world.is_first:
                self._stop()
            self.run.report("dev", step=self.run.steps, total_steps=self.run.total_steps)
        total, tokens = self.world.total(total)[0], round(self.world.total(tokens)[0])
        if tokens and not math.isfinite(total):
            log.warning("step %d: the dev loss is not a finite number", self.run.steps)
            return None, tokens
        return (total / tokens if tokens else None), tokens

    # ---------------------------------------------------------------- stop and resume

    def _stop(self) -> None:
        if self.run.steps >= self.first_step:
            self._save_resume()
        raise Stopped

    def _require_free(self) -> None:
        # A checkpoint is the adapter once, a resume point three times: with both moments of AdamW.
        size = sum(param.numel() * param.element_size() for param in self.params.values())
        require_free(self.run.root, 4 * size + SPARE_BYTES, "a checkpoint")

    def _save_resume(self) -> None:
        if not self.world.is_first:
            return
        self._require_free()
        progress = Progress(step=self.run.steps, identity=self.setup.identity, random=self.random, threads=torch.get_num_threads(), best=self.best)

        def fill(folder: Path) -> None:
            write_trainee(self.model, folder, self.base_name)
            write_progress(folder, progress, self.optimizer, self.params)

        with self.staging.whole():
            checkpoints.save_resume(self.run.root, self.run.steps, fill)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Go on from the task's resume point, or from one before it. One that is damaged or of another training is left alone, and said so.

        Raises ChildError RESUME_DIFFERENT instead where a person asked to go on (`resume_by_hand`).
        """
        task = self.setup.task
        if task.checkpoint is None:
            return
        why = "no resume point is whole"
        for folder in checkpoints.usable_resumes(Path(task.checkpoint)):
            try:
                progress = read_progress(folder, self.optimizer, self.params, self.setup.identity)
            except IntegrityError as error:
                log.warning("no resume point: %s", error.what)
                why = error.what
            else:
                self._go_on_from(folder, progress)
                return
        if task.resume_by_hand:
            hint = "give it the rows and settings that it was made with, or train anew without --resume"
            raise ChildError(f"this training cannot go on: {why}", hint=hint, code="RESUME_DIFFERENT", exit_code=ChildExit.BAD_SPEC)
        log.warning("starting anew: no resume point can be used")

    def _go_on_from(self, folder: Path, progress: Progress) -> None:
        put_trained_weights(self.model, folder)
        progress.random.restore()
        self.random, self.best = progress.random, progress.best
        if progress.threads != torch.get_num_threads():
            log.info("it had %d threads and has %d now: sums round at other places", progress.threads, torch.get_num_threads())
        if self.world.is_first:
            checkpoints.adopt(folder, self.run.root)
        self.run.steps, self.first_step = progress.step, progress.step + 1
        self.cutter.replay(self.world.folder(folder.parents[1]) / STEPS, self.first_step)
        log.info("going on after step %d of %d", progress.step, self.run.total_steps)
