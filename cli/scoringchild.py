"""A `trainer score` child in the foreground: what `lorad adapters import` and `lorad adapters validate` ask a model for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import LoradError
from core.exits import ChildExit

if TYPE_CHECKING:
    from core.config import Resolved
    from core.tasks import ExitNote, RowsOf, ScoreModel, ScoreTask

ADAPTER = "adapter"  # the id of the model that is asked about
BASE = "base"
JOB = "foreground"


def score_task(resolved: "Resolved", rows: "tuple[RowsOf, ...]", models: "tuple[ScoreModel, ...]", **more: Any) -> "ScoreTask":
    """The spec of a scoring by the config in force. Raises BaseMissingError where there is no base."""
    from core.tasks import ScoreTask
    from store.bases import base_folder, read_base
    from store.engines import choose_backend

    config = resolved.config
    is_stub = choose_backend(config).name == "stub"
    if not is_stub:
        read_base(base_folder(config))
    return ScoreTask(
        job=JOB,
        backend="stub" if is_stub else "peft",  # adapters lie in PEFT's layout, whatever trained them
        base="" if is_stub else str(base_folder(config)),
        rows=rows,
        split="dev",
        models=models,
        settings=resolved.record()["values"],
        **more,
    )


def score(task: "ScoreTask", run: Path, threads: int) -> "ExitNote":
    """Carry it out in the new folder `run`. Raises LoradError with the child's own words."""
    from cli.foreground import run_child
    from store.runs import write_spec

    run.mkdir(parents=True)
    write_spec(run, task)
    note, _ = run_child(run, threads, lambda line: None)
    if note.code != ChildExit.DONE:
        raise LoradError(note.reason or "the scoring was stopped", hint=note.hint or "try again", code=note.error or "SCORING_FAILED")
    return note
