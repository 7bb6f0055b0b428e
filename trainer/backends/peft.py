"""LoRA with transformers and PEFT. Rows are read and checked before anything heavy is imported."""

import logging
from pathlib import Path

from core.tasks import ScoreTask, TrainTask
from rendering.rows import read_rows
from rendering.tokens import Renderer
from trainer.examples import encode_rows, require_trainable
from trainer.run import RunFolder
from trainer.settings import config_of
from trainer.silence import hush

log = logging.getLogger(__name__)


class PeftBackend:
    """Trains on the CPU or on one GPU."""

    def train(self, task: TrainTask, run: RunFolder) -> None:
        """Train and leave sealed checkpoints in `run`. Raises ChildError, Stopped, IntegrityError."""
        config = config_of(task)
        run.report("load")
        renderer = Renderer.load(Path(task.base))
        rows = read_rows(task.rows)
        train = encode_rows(renderer, [row for row in rows if row.split == "train"], config.max_length, run.beat)
        require_trainable(train, config.max_length, config.training.max_overlong_share)
        dev = encode_rows(renderer, [row for row in rows if row.split == "dev"], config.max_length, run.beat)
        log.info("train: %d rows, %d over max_length, %d without a token to learn; dev: %d rows", len(train.kept), train.overlong, train.silent, len(dev.kept))
        hush()
        from trainer.backends.training import Setup, Training

        Training(Setup(task=task, config=config, train=train, dev=dev.kept), run).go()

    def score(self, task: ScoreTask, run: RunFolder) -> None:
        """Score every model of the task and leave score files in `run`. Raises ChildError, Stopped, IntegrityError."""
        config = config_of(task)
        run.report("load")
        renderer = Renderer.load(Path(task.base))
        rows = [row for row in read_rows(task.rows) if row.split == task.split]
        examples = encode_rows(renderer, rows, config.max_length, run.beat)
        log.info("%s: %d rows, %d over max_length, %d without a token to learn", task.split, len(examples.kept), examples.overlong, examples.silent)
        hush()
        from trainer.backends.scoring import Scoring

        Scoring(task, config, renderer, run).go(examples.kept)
