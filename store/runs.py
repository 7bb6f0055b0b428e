"""Run folders: one for each start of a child, `runs/<job>/<NN>-<kind>/`, never reused."""

import contextlib
import json
from pathlib import Path
from typing import Any

from core.records import Candidate, Kind
from core.tasks import ExitNote, Task
from store.codec import read_if_whole, write
from store.durable import lines_of, sync_dir
from store.paths import Home
from store.seals import seal_hash
from store.wholeness import is_whole

SPEC = "spec.json"
EXIT = "exit.json"
PROGRESS = "progress.jsonl"
LOG = "log.txt"
HEARTBEAT = "heartbeat"  # its time is that of the child's last sign of life
STACK = "stack.txt"  # where a child stood that gave none: written once, as it is ended

TAIL_BYTES = 8192


def new_run(home: Home, job: str, kind: Kind) -> Path:
    """Make the next run folder of a job. The number is one more than the highest ever used."""
    folder = home.runs(job)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(entry.name.split("-")[0]) for entry in folder.iterdir() if entry.name.split("-")[0].isdigit()]
    run = folder / f"{max(numbers, default=0) + 1:02d}-{kind.value}"
    run.mkdir()
    sync_dir(folder)
    return run


def write_spec(run: Path, task: Task) -> None:
    """Write what the child is to do."""
    write(run / SPEC, task)


def read_exit(run: Path) -> ExitNote | None:
    """The child's last word, if it is whole."""
    return read_if_whole(ExitNote, run / EXIT)


def write_exit(run: Path, note: ExitNote) -> None:
    """Leave the last word in a run folder."""
    write(run / EXIT, note)


def recent_progress(run: Path) -> list[dict[str, Any]]:
    """The newest whole lines of progress.jsonl, in order. Reads at most the last 8 KiB; a line that a crash tore is left out."""
    try:
        with open(run / PROGRESS, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def last_progress(run: Path) -> dict[str, Any] | None:
    """The newest whole line of progress.jsonl."""
    lines = recent_progress(run)
    return lines[-1] if lines else None


def log_tail(run: Path, num_lines: int = 20) -> list[str]:
    """The last lines of a child's log."""
    try:
        return (run / LOG).read_text(errors="replace").splitlines()[-num_lines:]
    except FileNotFoundError:
        return []


def candidates_of(home: Home, job: str) -> tuple[Candidate, ...]:
    """The whole checkpoints of all training runs of a job, one a step (the newest run's), by step. A torn one does not exist."""
    found: dict[int, Candidate] = {}
    for folder in sorted(home.runs(job).glob("*-train/checkpoints/step_*")):
        if is_whole(folder):
            step = int(folder.name.removeprefix("step_"))
            found[step] = Candidate(step=step, path=str(folder.relative_to(home.runs(job))), sha256=seal_hash(folder), dev_loss=_dev_loss(folder))
    return tuple(found[step] for step in sorted(found))


def _dev_loss(folder: Path) -> float | None:
    try:
        value = json.loads((folder / "checkpoint.json").read_text()).get("dev_loss")
    except (OSError, ValueError):
        return None
    return float(value) if value is not None else None


def resume_point(home: Home, job: str) -> str | None:
    """The newest whole resume point of a job, relative to runs/<job>/. A torn one does not exist: then it is the one before."""
    points = [folder for folder in home.runs(job).glob("*-train/resume/step_*") if is_whole(folder)]
    newest = max(points, key=lambda folder: (folder.name, folder.parent.parent.name), default=None)
    return str(newest.relative_to(home.runs(job))) if newest else None


def progress_lines(run: Path) -> list[dict[str, Any]]:
    """All whole lines of progress.jsonl."""
    return [json.loads(line) for line in lines_of(run / PROGRESS)]
