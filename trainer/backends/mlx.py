"""LoRA with MLX on Apple's chips. Scores come from transformers and PEFT, as on every other machine, so that they can be compared."""

from core.tasks import TrainTask
from trainer.backends.peft import PeftBackend
from trainer.corpus import RowsOfExamples, read_corpus
from trainer.examples import lengths_of
from trainer.run import RunFolder
from trainer.settings import config_of
from trainer.settling import Device, Encoded, settle_training
from trainer.silence import hush
from trainer.telling import told


class MlxBackend(PeftBackend):
    """Trains on Apple's GPU, or with mlx[cpu] anywhere, which is slow. Its adapters are PEFT folders."""

    def train(self, task: TrainTask, run: RunFolder) -> None:
        """Train and leave sealed checkpoints in `run`. Raises ChildError, Stopped, IntegrityError."""
        config = config_of(task)
        run.report("load")
        corpus = read_corpus(task, config, run)
        hush()
        from trainer.backends.mlxtraining import MlxTraining
        from trainer.backends.setup import Setup

        encoded = Encoded(rows=RowsOfExamples(corpus.train.kept), num_dev=len(corpus.dev), lengths=lengths_of(corpus.train.kept))
        config = settle_training(task, config, encoded, Device(name="mlx"), run)
        with told(task, config, corpus, run):
            MlxTraining(Setup(task=task, config=config, train=corpus.train, dev=corpus.dev), run).go()
