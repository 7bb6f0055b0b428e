"""A job is a folder; its state is its parent folder. `ls home/jobs/*/` is the queue view.

A transition writes `<state>.json` into the folder, then renames the folder: the rename decides. A state file that
belongs to another state than the folder's is ignored.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import IntegrityError
from core.lifecycle import FACTS
from core.records import ENDED, Ended, Job, JobCard, JobState, Queued
from store.codec import read, write
from store.durable import made_aside, move, replace_file
from store.paths import Home

log = logging.getLogger(__name__)

CARD = "job.json"
CONFIG = "config.json"


def job_folder(home: Home, job: Job) -> Path:
    """Where the job lies in its present state."""
    return home.job(job.state, job.id, job.facts.at if isinstance(job.facts, Ended) else None)


def create_job(home: Home, card: JobCard, facts: Queued, config: Mapping[str, Any]) -> Job:
    """Make a queued job in one durable step. A repeat with the same id changes nothing and returns the first."""
    job = Job(card=card, state=JobState.QUEUED, facts=facts)
    existing = find_folder(home, card.id)
    if existing is not None:
        return read_job(existing[1], existing[0])
    with made_aside(home.job(JobState.QUEUED, card.id), home.tmp) as folder:
        write(folder / CARD, card, durable=False)
        replace_file(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n", durable=False)
        write(folder / "queued.json", facts, durable=False)
    return job


def move_job(home: Home, before: Job, after: Job) -> None:
    """Make a transition durable: state file first, then the rename that decides."""
    source = job_folder(home, before)
    write(source / f"{after.state.value}.json", after.facts)
    destination = job_folder(home, after)
    if destination != source:
        move(source, destination)


def record_facts(home: Home, job: Job) -> None:
    """Make a change of facts within a state durable."""
    write(job_folder(home, job) / f"{job.state.value}.json", job.facts)


def replace_card(home: Home, job: Job) -> None:
    """Make a change of what a queued job is durable: nothing has acted on its card yet."""
    assert job.state is JobState.QUEUED, "the card of a job is fixed once it has begun"
    write(job_folder(home, job) / CARD, job.card)


def read_job(folder: Path, state: JobState) -> Job:
    """The job in `folder`. Raises IntegrityError when a record is missing or damaged."""
    try:
        card = read(JobCard, folder / CARD)
        facts: Any = read(FACTS[state], folder / f"{state.value}.json")
    except FileNotFoundError as error:
        raise IntegrityError(f"job folder {folder} has no {Path(error.filename).name}", hint="restore it from a backup", code="RECORD_DAMAGED") from None
    return Job(card=card, state=state, facts=facts)


def read_config(home: Home, job: Job) -> dict[str, Any]:
    """The resolved config that was frozen with the job: {"values": …, "origins": …}."""
    frozen: dict[str, Any] = json.loads((job_folder(home, job) / CONFIG).read_text())
    return frozen


def folders(home: Home) -> Iterator[tuple[JobState, Path]]:
    """Every job folder with its state."""
    for state in JobState:
        for folder in sorted((home.root / "jobs" / state).iterdir()):
            if state in ENDED:
                yield from ((state, inner) for inner in sorted(folder.iterdir()))
            else:
                yield state, folder


def find_folder(home: Home, job: str) -> tuple[JobState, Path] | None:
    """The state and folder of a job id."""
    return next(((state, folder) for state, folder in folders(home) if folder.name == job), None)


def read_all(home: Home) -> tuple[list[Job], list[str]]:
    """Every job on disk, and one sentence for each folder that cannot be read (it is left as it is)."""
    jobs, damaged = [], []
    for state, folder in folders(home):
        try:
            jobs.append(read_job(folder, state))
        except IntegrityError as error:
            damaged.append(error.what)
    return jobs, damaged


def sweep_tmp(home: Home) -> None:
    """Remove what a crash left half-made under tmp/. Only while no child of an earlier daemon lives."""
    for entry in home.tmp.iterdir():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
