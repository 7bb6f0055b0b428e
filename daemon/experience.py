"""What a training that has ended teaches the next estimate: one line of series/runs.jsonl, with what had been expected of it."""

import logging
from datetime import datetime

from core.config import Config
from core.errors import LoradError
from core.estimate import Ran, Wanted, estimate_memory_mb, expect, shape_of, weights_of
from core.records import ChildRef, Job, Training
from daemon.index import Index
from store.bases import base_folder, described_base
from store.jobs import read_config
from store.runs import read_exit
from store.series import remember, remembered

log = logging.getLogger(__name__)


def note_training(index: Index, before: Job, job: Job, now: datetime) -> None:
    """Remember the training that has just finished. Never raises: an estimate may miss a run.

    Args: before: the job with the facts of its training. job: the same where it is now.
    """
    assert isinstance(before.facts, Training)
    try:
        ran = _ran(index, job, before.facts.child, now)
        if ran is not None:
            remember(index.home, ran)
    except (OSError, ValueError, KeyError, LoradError) as error:
        log.warning("the figures of %s are not remembered: %s", job.id, error, extra={"action": "series_failed"})


def _ran(index: Index, job: Job, child: ChildRef, now: datetime) -> Ran | None:
    note = read_exit(index.home.runs(job.id) / child.run)
    if note is None or not note.device or note.tokens <= 0:
        return None  # of a lorad that did not tell, or one that made no step of its own
    described, size = described_base(index.config) if job.card.backend != "stub" else ({}, 0)
    shape = shape_of(described, size)
    weights = weights_of(shape) if shape else 0
    wanted = Wanted(backend=job.card.backend, base_sha256=job.card.base_sha256, device=note.device, tokens=note.tokens, weights=weights)
    expected = expect(remembered(index.home), wanted)
    frozen = Config.model_validate(read_config(index.home, job)["values"])
    memory = estimate_memory_mb(shape, frozen, gpu=note.device != "cpu", longest=note.longest) if shape else None
    told = {} if expected.is_guess else {"expected_s": expected.seconds, "expected_low_s": expected.low_s, "expected_high_s": expected.high_s}
    return Ran(
        at=now,
        job=job.id,
        backend=job.card.backend,
        base=base_folder(index.config).name if described else job.card.backend,
        base_sha256=job.card.base_sha256,
        device=note.device,
        weights=weights,
        rows=note.rows,
        tokens=note.tokens,
        steps=note.steps,
        seconds=note.seconds,
        other_s=round(max(0.0, (note.ended_at - child.started_at).total_seconds() - note.seconds), 3),
        memory_mb=note.memory_mb,
        expected_memory_mb=memory,
        **{key: round(value, 2) for key, value in told.items()},
    )
