"""Tells people about a training: boards while it runs, a report at its end."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.config import Config
from core.tasks import TrainTask
from rendering.tokens import Renderer
from store.bases import read_base
from store.runs import SETTINGS
from trainer.boards import Boards
from trainer.checkpoints import NOTE, kept
from trainer.corpus import Corpus, RowsOfExamples
from trainer.examples import Example
from trainer.gauges import idle_reason
from trainer.run import RunFolder, peak_memory_mb
from trainer.runreport import ROWS_SHOWN, Shown, StageTold, Story, write_report
from trainer.stages import staged_plan


@contextmanager
def told(task: TrainTask, config: Config, corpus: Corpus, run: RunFolder) -> Iterator[None]:
    """Around a training: its boards hear every line of progress; where it comes to its end, the report is written into `run`."""
    boards = Boards(config.training.boards, run.root, task.job)
    run.listeners.append(boards.hear)
    try:
        yield
        write_report(run.root, _story(task, config, corpus, run))
    finally:
        run.listeners.remove(boards.hear)
        boards.close()


def _story(task: TrainTask, config: Config, corpus: Corpus, run: RunFolder) -> Story:
    train, use = corpus.train, run.gauges.mean_use
    warnings = list(run.warnings)
    if use is not None and (reason := idle_reason(use, micro_batch=run.micro_batch, batch_size=config.batch_size, checkpointing=_is_checkpointing(config))):
        warnings.append(reason)
    settings = json.loads((run.root / SETTINGS).read_bytes()) if (run.root / SETTINGS).is_file() else {}
    return Story(
        base=read_base(Path(task.base)).name,
        backend=task.backend,
        why=settings.get("backend", {}).get("why", ""),
        start=task.start_reason,
        stages=tuple(_stages(config, corpus, run.root)) if config.stages else (),
        path=run.path,
        device=run.device,
        train_rows=len(train.kept),
        repeated_rows=sum(row.drop in task.learnt for row in RowsOfExamples(train.kept)) if task.learnt else 0,
        dev_rows=len(corpus.dev),
        overlong=train.overlong,
        silent=train.silent,
        supervised_share=train.supervised_share,
        longest=run.longest,
        batch_size=config.batch_size,
        micro_batch=run.micro_batch,
        memory_mb=run.device_memory_mb or peak_memory_mb(),
        gpu_use=use,
        warnings=tuple(warnings),
        shown=tuple(_shown(Renderer.load(Path(task.base)), [train.kept[place] for place in range(min(ROWS_SHOWN, len(train.kept)))])),
    )


def _stages(config: Config, corpus: Corpus, root: Path) -> Iterator[StageTold]:
    """By the plan, and by the checkpoints: those of the runs before lie here too."""
    notes = [json.loads((root / found.path / NOTE).read_bytes()) for found in kept(root)]
    for before, stage in staged_plan(config, RowsOfExamples(corpus.train.kept)).placed:
        mine = [note for note in notes if note.get("stage") == stage.name]
        losses = [note["dev_loss"] for note in mine if note["dev_loss"] is not None]
        yield StageTold(
            name=stage.name,
            rows=len(stage.rows),
            first_step=before + 1,
            last_step=mine[-1]["step"] if mine else None,
            layer=stage.layer,
            ranks=stage.ranks,
            beside=stage.beside,
            min_gain=stage.min_gain,
            began=mine[0]["stage_began"] if mine else None,
            best=min(losses, default=None),
        )


def _is_checkpointing(config: Config) -> bool:
    return config.training.gradient_checkpointing == "on"


def _shown(renderer: Renderer, examples: Sequence[Example]) -> Iterator[Shown]:
    for example in examples:
        spans: list[list[int]] = []
        before: Any = None
        for index in example.learnt:
            if before is None or index != before + 1:
                spans.append([])
            spans[-1].append(example.ids[index])
            before = index
        yield Shown(drop=example.row.drop, line=example.row.line, spans=tuple(renderer.decode(ids, skip_special=False) for ids in spans))
