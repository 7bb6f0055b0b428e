"""One training in the foreground: a file of rows becomes an adapter in a folder, without a daemon and without a home.

Everything lies below the output folder: `work/drop/` the checked rows, `work/runs/train/<NN>-train/` the runs, and in the
end the adapter itself at the top. The training is a child of ours, as it would be the daemon's: its session is its own,
so that Ctrl-C reaches us alone, and we ask it to stop once it has sealed a resume point.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from core.config import Config, Resolved
from core.errors import LoradError, RefusedError, UsageError
from core.exits import ChildExit
from core.gate import ACCEPTED_DROP, GateSpec
from core.records import Candidate, Kind
from core.tasks import ExitNote, RowsOf, TrainTask
from store.codec import read
from store.paths import Home
from store.runs import LOG, PROGRESS, SPEC, candidates_of, log_tail, new_run, read_exit, resume_point, write_spec

JOB = "train"  # the one job of a foreground home
WORK = "work"
LOOK_EVERY_S = 0.2
MOST_OOM = 8  # halvings of the micro-batch
LEFT_IN_CHECKPOINT = ("SEALED", "checkpoint.json")  # of lorad's own, no part of an adapter
OF_BASE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of it: how the last run ended, whether it was interrupted, and the checkpoint that was put into the output folder."""

    note: ExitNote
    run: Path
    is_stopped: bool = False
    can_resume: bool = False
    chosen: Candidate | None = None


def check_rows(file: Path, config: Config, out: Path, split: str = "") -> RowsOf:
    """Check a file as the gate does at its quickest, draw its dev split, and put both into `out`. Raises RefusedError, LoradError.

    The rows that the gate would hold back for its verdict are trained on: there is no verdict here. With `split`, all rows get it.
    """
    from rendering.rows import INDEX, read_index
    from store.durable import replace_file
    from store.seals import hash_file
    from validation.acceptance import judge

    work = out / WORK
    drop = work / ACCEPTED_DROP
    shutil.rmtree(drop, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    judged = judge(work, gate_spec(file, config))
    if judged.report.verdict != "accepted":
        again = f"`lorad check {file} --schema {config.schema_id}` shows every line"
        raise RefusedError(f"{judged.report.to_text().strip()}", hint=again, code="ROWS_REFUSED")
    index = read_index(drop / INDEX)
    lines = [json.dumps({"line": row.line, "group": row.group, "split": split or ("train" if row.split == "gate" else row.split)}) for row in index]
    replace_file(drop / INDEX, "\n".join(lines) + "\n")
    return RowsOf(drop=file.name, sha256=hash_file(file), folder=str(drop), schema_id=config.schema_id)


def gate_spec(file: Path, config: Config) -> GateSpec:
    """What the gate is asked about the file."""
    from store.bases import base_folder, length_of
    from store.seals import is_sealed

    base, limits = base_folder(config), config.validation
    return GateSpec(
        drop=file.name,
        adapter=JOB,
        file=str(file.absolute()),
        name=file.name,
        schema_id=config.schema_id,
        specs=config.specs,
        columns=config.columns,
        level="quick",
        max_row_bytes=limits.max_row_bytes,
        max_file_bytes=limits.max_file_bytes,
        base=str(base) if config.backend != "stub" and is_sealed(base) else "",
        max_length=length_of(config) if config.backend != "stub" else config.max_length,
        max_overlong_share=config.training.max_overlong_share,
    )


def first_task(resolved: Resolved, backend: str, rows: RowsOf) -> TrainTask:
    """The spec of a training on these rows."""
    from store.bases import base_folder

    base = "" if backend == "stub" else str(base_folder(resolved.config))
    record = resolved.record()
    return TrainTask(job=JOB, backend=backend, base=base, rows=(rows,), settings=record["values"], origins=record["origins"], this_drop=rows.drop)


def next_task(out: Path, file: Path) -> TrainTask:
    """The spec of the training that lies in `out`, going on from its newest resume point. Raises UsageError."""
    from store.seals import hash_file

    home = Home(out / WORK)
    specs = sorted(home.runs(JOB).glob(f"*-train/{SPEC}"))
    if not specs:
        raise UsageError(f"{str(out)!r} holds no training to go on with", hint="leave --resume out, or name its folder with --out", code="NOTHING_TO_RESUME")
    task = read(TrainTask, specs[-1])
    if task.rows[0].sha256 != hash_file(file):
        raise UsageError(
            f"{str(file)!r} is not the file that {str(out)!r} was trained on: its bytes differ", hint="name the file as it was", code="RESUME_OTHER_ROWS"
        )
    point = resume_point(home, JOB)
    return replace(task, checkpoint=str(home.runs(JOB) / point) if point else None, resume_by_hand=point is not None)


def train(task: TrainTask, out: Path, threads: int, tell: Tell) -> Trained:
    """Run the training, smaller where memory runs out, and put the best checkpoint into `out`.

    `tell` is called with every new line of progress. Ctrl-C (or TERM) asks the child to stop; a second one ends it.
    Raises LoradError with the child's own words where it failed.
    """
    home = Home(out / WORK)
    task = replace(task, tokens=task.tokens or str(home.tokens))
    for _ in range(MOST_OOM):
        run = new_run(home, JOB, Kind.TRAIN)
        write_spec(run, task)
        note, is_stopped = run_child(run, threads, tell)
        if note.code == ChildExit.DONE:
            chosen = best_of(candidates_of(home, JOB))
            put_adapter(home.runs(JOB) / chosen.path, Path(task.base) if task.base else None, out)
            return Trained(note=note, run=run, chosen=chosen)
        if note.code == ChildExit.STOPPED and (is_stopped or not note.error):
            return Trained(note=note, run=run, is_stopped=True, can_resume=resume_point(home, JOB) is not None)
        if note.code != ChildExit.OUT_OF_MEMORY or task.micro_batch == 1:
            break
        point = resume_point(home, JOB)
        smaller = max(1, (task.micro_batch or _rows_of_pass(run) or int(str(task.settings["batch_size"]))) // 2)
        task = replace(task, micro_batch=smaller, checkpoint=str(home.runs(JOB) / point) if point else None)
    raise LoradError(note.reason or "the trainer ended without a word", hint=note.hint or f"its log is {run / LOG}", code=note.error or "TRAINING_FAILED")


def best_of(candidates: tuple[Candidate, ...]) -> Candidate:
    """The checkpoint with the least dev loss, the last one where there was no dev split. Raises LoradError where there is none."""
    if not candidates:
        raise LoradError("the training left no whole checkpoint", hint="look at its log", code="NO_CHECKPOINT")
    judged = [candidate for candidate in candidates if candidate.dev_loss is not None]
    return min(judged, key=lambda candidate: (candidate.dev_loss or 0.0, candidate.step)) if judged else candidates[-1]


def put_adapter(checkpoint: Path, base: Path | None, out: Path) -> None:
    """Copy a checkpoint's files, and the tokenizer and template that belong to it, to the top of `out`."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.name not in LEFT_IN_CHECKPOINT:
            shutil.copyfile(path, out / path.name)
    for name in OF_BASE if base is not None else ():
        assert base is not None
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


def _rows_of_pass(run: Path) -> int:
    """The rows of a forward pass that a run told of last; 0: none."""
    from store.runs import recent_progress

    return next((int(line["micro_batch"]) for line in reversed(recent_progress(run)) if line.get("micro_batch")), 0)


# ---------------------------------------------------------------- the child


def run_child(run: Path, threads: int, tell: Tell) -> tuple[ExitNote, bool]:
    """Run the trainer child whose spec lies in `run`: (its last word, whether we asked it to stop).

    `tell` hears every new line of progress. Ctrl-C (or TERM) asks the child to stop, a second one ends it. Raises LoradError
    where it left no word.
    """
    from daemon.children import spawn

    with open(run / LOG, "ab") as log, _stopping() as stops:
        child = spawn(["trainer", str(run)], stdout=log, threads=threads)
        lines = _new_lines(run / PROGRESS)
        asked = 0
        try:
            while child.poll() is None:
                asked = _pass_on(child, stops, asked)
                for line in next(lines):
                    tell(line)
                time.sleep(LOOK_EVERY_S)
            for line in next(lines):
                tell(line)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    note = read_exit(run)
    if note is None:
        tail = "\n".join(log_tail(run, 5))
        raise LoradError(f"the trainer ended with status {child.returncode} and said nothing\n{tail}", hint=f"its log is {run / LOG}", code="TRAINING_FAILED")
    return note, bool(asked)


def _pass_on(child: "subprocess.Popen[bytes]", stops: list[int], asked: int) -> int:
    """Ask the child to stop for the first signal, end it for the second; how many were passed on."""
    if len(stops) > asked:
        asked = len(stops)
        if asked == 1:
            child.terminate()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    return asked


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """The INT and TERM signals that came while inside, instead of their usual effect."""
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        came.append(signum)

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _new_lines(path: Path) -> Iterator[list[dict[str, Any]]]:
    """At each call the whole lines of progress that came since the last one."""
    place, rest = 0, b""
    while True:
        try:
            with open(path, "rb") as file:
                file.seek(place)
                block = file.read()
        except OSError:
            block = b""
        place += len(block)
        *whole, rest = (rest + block).split(b"\n")
        found = []
        for raw in whole:
            with contextlib.suppress(ValueError):
                found.append(json.loads(raw))
        yield [line for line in found if isinstance(line, dict)]
