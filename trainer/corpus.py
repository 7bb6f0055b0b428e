"""The rows of a training task, read, changed by its profile and tokenised: those to train on and those of dev."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from core.config import Config
from core.tasks import TrainTask
from rendering.rows import Row, read_rows
from rendering.tokens import Renderer
from store.codec import to_plain
from store.runs import TOKENS
from trainer.encoding import Encoder, is_plain
from trainer.examples import Example, Examples, encode_rows, require_trainable
from trainer.objectives import learnt_as, require_learnable, with_seconds
from trainer.profiled import profiled
from trainer.replay import with_replay
from trainer.run import RunFolder
from trainer.tokenfiles import TokenCache, TokenRows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What a training learns from and is judged by on the way."""

    train: Examples
    dev: Sequence[Example]


def read_corpus(task: TrainTask, config: Config, run: RunFolder) -> Corpus:
    """The rows of a task. Plain rows stay in token files (`task.tokens`, else below the run folder); others lie in memory.

    Raises ChildError BAD_DATA where there is nothing to train on, ConfigError and LoradError for a profile that fails.
    """
    renderer = Renderer.load(Path(task.base))
    train, dev = _streamed(task, config, renderer, run) if is_plain(task.rows, config) and not task.learnt else _in_memory(task, config, renderer, run)
    log.info("train: %d rows, %d over max_length, %d without a token to learn; dev: %d rows", len(train.kept), train.overlong, train.silent, len(dev.kept))
    return Corpus(train=train, dev=dev.kept)


def _streamed(task: TrainTask, config: Config, renderer: Renderer, run: RunFolder) -> tuple[Examples, Examples]:
    encoder = Encoder(renderer, config, Path(task.base))
    run.profile = to_plain(encoder.profile.record)
    cache = TokenCache(Path(task.tokens) if task.tokens else run.root / TOKENS, encoder, encoder.sha256, run.beat)
    train = cache.examples(task.rows, "train", config.max_length)
    require_trainable(train, config.max_length, config.training.max_overlong_share)
    dev = cache.examples(task.rows, "dev", config.max_length)
    cache.trim(task.rows)
    return train, dev


def _in_memory(task: TrainTask, config: Config, renderer: Renderer, run: RunFolder) -> tuple[Examples, Examples]:
    rows = with_replay(read_rows(task.rows), task.learnt, config.training.replay_share, config.training.seed)
    rows = profiled(learnt_as(rows, config), config, run)
    train = encode_rows(renderer, [row for row in rows if row.split == "train"], config.max_length, run.beat)
    require_trainable(train, config.max_length, config.training.max_overlong_share)
    require_learnable(train)
    train = with_seconds(train, renderer, config.max_length)
    return train, encode_rows(renderer, [row for row in rows if row.split == "dev"], config.max_length, run.beat)


class RowsOfExamples(Sequence[Row]):
    """The rows behind examples, made as they are asked for."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._examples.row(index) if isinstance(self._examples, TokenRows) else self._examples[index].row
