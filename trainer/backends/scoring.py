"""Scores models on one split: the base and adapters, one after another on the same base, forward only."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from core.config import Config
from core.tasks import ScoreModel, ScoreTask
from rendering.rows import Row
from rendering.tokens import Renderer
from store.bases import read_base
from store.child import is_out_of_memory
from trainer.backends.batches import Cut, Forward, micro_batches
from trainer.backends.examining import Examining
from trainer.backends.families import forward_for
from trainer.backends.lora import fuse
from trainer.backends.model import choose_place, load_base, read_adapter, use_threads
from trainer.backends.patience import Patience
from trainer.backends.preference import Judge, answer_scores, told_apart
from trainer.backends.probe import write_probe
from trainer.examples import Example, encode_row
from trainer.memory import half
from trainer.run import RunFolder
from trainer.scores import Header, Score, shift_rows, write_noise, write_scores, write_shift

log = logging.getLogger(__name__)


class Scoring:
    """Loads the base once; each adapter is attached, scored and taken off again."""

    def __init__(self, task: ScoreTask, config: Config, renderer: Renderer, run: RunFolder) -> None:
        self.task, self.config, self.renderer, self.run = task, config, renderer, run
        use_threads(config)
        place = choose_place()
        base = read_base(Path(task.base))
        self.header = Header(
            model="",
            split=task.split,
            backend=task.backend,
            base_sha256=base.source_sha256,
            max_length=config.max_length,
            dtype=place.dtype_name,
            template=base.template_sha256,
            engine=_engine(place.device),
            seed=config.ranking.seed,
        )
        self.cut = Cut.of_scoring(config, task.micro_batch)
        run.micro_batch = task.micro_batch or config.training.micro_batch or config.batch_size
        self.base = load_base(Path(task.base), place)
        self.patience = Patience()
        self.judge = Judge(config.training.beta)
        self.examining = Examining(task=task, config=config, renderer=renderer, run=run, header=self.header, cut=lambda: self.cut)
        run.total_steps = len(task.models)

    def go(self, examples: Sequence[Example]) -> None:
        """Write every file that the task names. Raises ChildError for an adapter that does not load."""
        self.judge.prepare(forward_for(self.base, self.config), examples, self.run.beat, self.cut)
        for model in sorted(self.task.models, key=lambda model: model.id == self.task.probe):  # the candidate last: `Examining`
            if model.adapter is None:
                self._score(model, self.base, examples)
            else:
                wrapped = read_adapter(self.base, Path(model.adapter), self.config.deploy.encryption_key)
                self._score(model, wrapped, examples)
                self.base = wrapped.unload()
            self.run.steps += 1

    def _score(self, model: ScoreModel, network: Any, examples: Sequence[Example]) -> None:
        fuse(network)
        header = replace(self.header, model=model.id)
        scores = self._losses(model, network, examples)
        write_scores(self.run, header, [(example.row, score) for example, score in zip(examples, scores, strict=True)])
        right, compared = told_apart(examples, [score.loss for score in scores])
        if compared:
            log.info("%s tells %d of %d pairs and judged answers apart better than the base", model.id, right, compared)
        if self.task.shift == model.id:
            write_shift(self.run, header, self._shifted(model, network, examples, scores))
        if self.task.noise == model.id:
            whole, self.cut = self.cut, half(self.cut, 2 * self.config.batch_size)  # batches of other sizes round at other places
            write_noise(self.run, header, [(example.row, score) for example, score in zip(examples, self._losses(model, network, examples), strict=True)])
            self.cut = whole
        self.examining.examine(model, network, [example.row for example in examples])
        if self.task.probe == model.id:
            self.run.report("probe", last=True)
            write_probe(self.run.root, self.renderer, network)

    @torch.inference_mode()
    def _losses(self, model: ScoreModel, network: Any, examples: Sequence[Example]) -> list[Score]:
        """The score of each example, in order. Goes through them by length, so that batches are even; where memory runs out, in smaller ones."""
        forward = forward_for(network, self.config)
        order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
        found: list[Score] = []
        while len(found) < len(examples):
            try:
                for batch in micro_batches(forward, [examples[index] for index in order[len(found) :]], self.cut):
                    self.run.rest()
                    self.patience.look()
                    found += self._scores(forward, batch)
                    self.run.report("score", step=self.run.steps, total_steps=self.run.total_steps, model=model.id, rows=len(found), total_rows=len(examples))
            except Exception as error:
                if not is_out_of_memory(error) or self.cut.rows == 1:
                    raise
                self.cut = half(self.cut, 2 * self.config.batch_size)
                self.run.micro_batch = self.cut.rows
                log.warning("out of memory: scoring goes on with %d rows at once", self.cut.rows)
        by_place = dict(zip(order, found, strict=True))
        return [by_place[index] for index in range(len(examples))]

    def _scores(self, forward: Forward, batch: Sequence[Example]) -> list[Score]:
        """The scores of one pass."""
        scores = []
        for example, (answers, correct) in zip(batch, answer_scores(forward, batch), strict=True):
            own = answers[0].double()
            last = own[len(own) - example.num_last :]
            right, chosen = self.judge.told(example, answers)
            scores.append(
                Score(
                    loss=self.judge.loss(example, answers),
                    tokens=len(own),
                    correct=correct,
                    last_loss=float(last.sum()),
                    last_tokens=len(last),
                    right=right,
                    chosen=chosen,
                )
            )
        return scores

    def _shifted(self, model: ScoreModel, network: Any, examples: Sequence[Example], scores: Sequence[Score]) -> list[tuple[Row, Score, float]]:
        """Rows of this drop: row, own score, loss of its last turn under another row's context.

        Left out: rows whose last turn is not learnt, and those that no longer fit, or cut into other tokens, under the other context.
        """
        mine = [
            (example, score)
            for example, score in zip(examples, scores, strict=True)
            if example.row.drop == self.task.this_drop and score.last_tokens and example.row.label is not False
        ]
        pairs = []
        for index, row in shift_rows([example.row for example, _ in mine]):
            moved = encode_row(self.renderer, replace(row, objective="sft", rejected=None))  # the answer alone
            if len(moved.ids) <= self.config.max_length and moved.num_last == mine[index][1].last_tokens:
                pairs.append((index, moved))
        pairs.sort(key=lambda pair: pair[0])
        losses = self._losses(model, network, [moved for _, moved in pairs])
        return [(mine[index][0].row, mine[index][1], moved.last_loss) for (index, _), moved in zip(pairs, losses, strict=True)]


def _engine(device: str) -> str:
    """What computes: the libraries with their versions, and the kind of device."""
    return ", ".join([*(f"{name} {version(name)}" for name in ("torch", "transformers", "peft")), device])
