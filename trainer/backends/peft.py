"""LoRA with transformers and PEFT. Rows are read and checked before anything heavy is imported."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from core.config import Config
from core.tasks import ScoreTask, TrainTask
from rendering.rows import read_rows
from rendering.tokens import Renderer
from trainer.corpus import RowsOfExamples, read_corpus
from trainer.examples import encode_rows, lengths_of
from trainer.follower import joined
from trainer.objectives import learnt_as
from trainer.profiled import profiled
from trainer.run import RunFolder
from trainer.settings import config_of
from trainer.settling import Encoded, settle_training
from trainer.silence import hush
from trainer.telling import told

log = logging.getLogger(__name__)


class PeftBackend:
    """Trains on the CPU, on a GPU or on several of them; scores on one."""

    def train(self, task: TrainTask, run: RunFolder) -> None:
        """Train and leave sealed checkpoints in `run`. Raises ChildError, Stopped, IntegrityError."""
        config = config_of(task)
        run.report("load")
        if config.distributed.ray_address:
            from trainer.backends.cluster import train_in_cluster

            train_in_cluster(task, config, run)
            return
        corpus = read_corpus(task, config, run)
        hush()
        from trainer.backends.model import device_here
        from trainer.backends.setup import Setup
        from trainer.backends.training import Training
        from trainer.backends.world import World

        train = corpus.train
        encoded = Encoded(rows=RowsOfExamples(train.kept), num_dev=len(corpus.dev), lengths=lengths_of(train.kept))
        config = settle_training(task, config, encoded, device_here(), run)
        if not self.packs:
            config = config.model_copy(update={"training": config.training.model_copy(update={"packing": False})})
        setup = Setup(task=task, config=config, train=train, dev=corpus.dev, new_model=self.new_model)
        with joined(config, task, run):
            if config.training.auto_rate:
                from trainer.backends.ratetrial import with_tried_rate

                setup = with_tried_rate(setup, run)
            with told(task, setup.config, corpus, run) if World.now().is_first else nullcontext():
                Training(setup, run).go()

    packs = True
    """Whether rows may lie one after another without padding."""
    new_model: Callable[[Path, Config], Any] | None = None
    """How another backend of the same loop makes the model with its adapter."""

    def score(self, task: ScoreTask, run: RunFolder) -> None:
        """Score every model of the task and leave score files in `run`. Raises ChildError, Stopped, IntegrityError."""
        config = config_of(task)
        run.report("load")
        renderer = Renderer.load(Path(task.base))
        rows = [row for row in profiled(learnt_as(read_rows(task.rows), config), config, run) if row.split == task.split]
        examples = encode_rows(renderer, rows, config.max_length, run.beat)
        log.info("%s: %d rows, %d over max_length, %d without a token to learn", task.split, len(examples.kept), examples.overlong, examples.silent)
        hush()
        from trainer.backends.scoring import Scoring

        Scoring(task, config, renderer, run).go(examples.kept)
