"""Run folders: one for each start of a child, `runs/<job>/<NN>-<kind>/`, never reused."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.records import Candidate, Kind
from core.tasks import ExitNote, ExportTask, Task
from store.codec import read_if_whole, write
from store.durable import last_lines, sync_dir
from store.paths import Home
from store.seals import seal_hash
from store.wholeness import is_whole

SPEC = "spec.json"
TOKENS = "tokens"
EXIT = "exit.json"
PROGRESS = "progress.jsonl"
LOG = "log.txt"
SETTINGS = "settings.json"  # of a training: what each value of its config became and why
HEARTBEAT = "heartbeat"  # its time is that of the child's last sign of life
STACK = "stack.txt"  # where a child stood that gave none: written once, as it is ended

TAIL_BYTES = 8192
LINE_BYTES = 1024  # of a log


def new_run(home: Home, job: str, kind: Kind) -> Path:
    """Make the next run folder of a job. The number is one more than the highest ever used."""
    folder = home.runs(job)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(entry.name.split("-")[0]) for entry in folder.iterdir() if entry.name.split("-")[0].isdigit()]
    run = folder / f"{max(numbers, default=0) + 1:02d}-{kind.value}"
    run.mkdir()
    sync_dir(folder)
    return run


def write_spec(run: Path, task: Task | ExportTask) -> None:
    """Write what the child is to do."""
    write(run / SPEC, task)


def read_exit(run: Path) -> ExitNote | None:
    """The child's last word, if it is whole."""
    return read_if_whole(ExitNote, run / EXIT)


def write_exit(run: Path, note: ExitNote) -> None:
    """Leave the last word in a run folder."""
    write(run / EXIT, note)


def read_settings(run: Path) -> dict[str, Any]:
    """settings.json of a training's run folder (`trainer.settling` writes it); empty where there is none."""
    try:
        found = json.loads((run / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def recent_progress(run: Path) -> list[dict[str, Any]]:
    """The newest whole lines of progress.jsonl, in order. Reads at most the last 8 KiB; a line that a crash tore is left out."""
    found = []
    for line in last_lines(run / PROGRESS, TAIL_BYTES):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def last_progress(run: Path) -> dict[str, Any] | None:
    """The newest whole line of progress.jsonl."""
    lines = recent_progress(run)
    return lines[-1] if lines else None


def log_tail(run: Path, num_lines: int = 20) -> list[str]:
    """The last lines of a child's log. Reads at most 1 KiB for each line: a child may have said gigabytes."""
    found = last_lines(run / LOG, num_lines * LINE_BYTES, torn=True)
    return [line.decode(errors="replace") for line in found[-num_lines:]]


def candidates_of(home: Home, job: str) -> tuple[Candidate, ...]:
    """The whole checkpoints of all training runs of a job, one a step (the newest run's), by step. A torn one does not exist."""
    found: dict[int, Candidate] = {}
    for step, folder in _steps(home, job, "checkpoints"):
        if is_whole(folder):
            found[step] = Candidate(step=step, path=str(folder.relative_to(home.runs(job))), sha256=seal_hash(folder), dev_loss=_dev_loss(folder))
    return tuple(found[step] for step in sorted(found))


def _steps(home: Home, job: str, kind: str) -> Iterator[tuple[int, Path]]:
    """(step, folder) in a job's training runs, in the order of the folders. What a person has copied beside them is none."""
    for folder in sorted(home.runs(job).glob(f"*-train/{kind}/step_*")):
        if (number := folder.name.removeprefix("step_")).isdigit():
            yield int(number), folder


def _dev_loss(folder: Path) -> float | None:
    try:
        value = json.loads((folder / "checkpoint.json").read_text()).get("dev_loss")
    except (OSError, ValueError):
        return None
    return float(value) if value is not None else None


def resume_point(home: Home, job: str) -> str | None:
    """The newest whole resume point of a job, relative to runs/<job>/. A torn one does not exist: then it is the one before."""
    points = [(step, folder.parent.parent.name, folder) for step, folder in _steps(home, job, "resume") if is_whole(folder)]
    return str(max(points)[2].relative_to(home.runs(job))) if points else None
