"""A job is a folder; its state is its parent folder. `ls home/jobs/*/` is the queue view.

A transition writes `<state>.json` into the folder, then renames the folder: the rename decides. A state file that
belongs to another state than the folder's is ignored.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import IntegrityError
from core.lifecycle import FACTS
from core.records import ENDED, Ended, Job, JobCard, JobState, Queued
from store.codec import put, read, write
from store.durable import move
from store.paths import Home
from store.recall import changed_ns, names_in, recall_jobs
from store.together import made_together

log = logging.getLogger(__name__)

CARD = "job.json"
CONFIG = "config.json"
OLD_PART_S = 3600.0  # no write takes that long


def job_folder(home: Home, job: Job) -> Path:
    """Where the job lies in its present state."""
    return home.job(job.state, job.id, job.facts.at if isinstance(job.facts, Ended) else None)


def create_job(home: Home, card: JobCard, facts: Queued, config: Mapping[str, Any]) -> Job:
    """Make a queued job in one durable step. A repeat with the same id changes nothing and returns the first."""
    (job,) = create_jobs(home, [(card, facts, config)])
    return job


def create_jobs(home: Home, wanted: Sequence[tuple[JobCard, Queued, Mapping[str, Any]]]) -> list[Job]:
    """Make queued jobs together, each as `create_job` does. After a crash some may be there and others not."""
    existing = {card.id: found for card, _, _ in wanted if (found := find_folder(home, card.id)) is not None}
    new = [one for one in wanted if one[0].id not in existing]
    written: dict[str, Path] = {}
    with made_together([home.job(JobState.QUEUED, card.id) for card, _, _ in new], home.tmp) as folders:
        for folder, (card, facts, config) in zip(folders, new, strict=True):
            put(folder / CARD, card)
            text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
            if text in written:
                os.link(written[text], folder / CONFIG)  # frozen, so that jobs may share it
            else:
                (folder / CONFIG).write_text(text, encoding="utf-8")
                written[text] = folder / CONFIG
            put(folder / "queued.json", facts)
    made = {card.id: Job(card=card, state=JobState.QUEUED, facts=facts) for card, facts, _ in new}
    return [made.get(card.id) or read_job(existing[card.id][1], existing[card.id][0]) for card, _, _ in wanted]


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
    for state in JobState:
        root = home.root / "jobs" / state
        for folder in sorted(root.iterdir()) if state in ENDED else (root,):
            if job.strip(".") and "/" not in job and (folder / job).is_dir():
                return state, folder / job
    return None


def read_all(home: Home) -> tuple[list[Job], list[str]]:
    """Every job on disk, and one sentence for each folder that cannot be read (it is left as it is)."""
    jobs, damaged = [], []
    for _, _, found in jobs_with_marks(home):
        if isinstance(found, Job):
            jobs.append(found)
        else:
            damaged.append(found)
    return jobs, damaged


def jobs_with_marks(home: Home) -> Iterator[tuple[str, int, Job | str]]:
    """(folder under jobs/, its time of change before it was read, the job or what is wrong with it). See `store.recall`."""
    known, root = recall_jobs(home), str(home.root / "jobs")
    for state in JobState:
        months = [f"{state.value}/{month}" for month in names_in(home.root / "jobs" / state)] if state in ENDED else [state.value]
        for place in months:
            for name in names_in(home.root / "jobs" / place):
                key = f"{place}/{name}"
                mark, remembered = changed_ns(f"{root}/{key}"), known.get(key)
                if remembered is not None and remembered[0] == mark:
                    yield key, mark, remembered[1]
                    continue
                try:
                    yield key, mark, read_job(home.root / "jobs" / key, state)
                except IntegrityError as error:
                    yield key, mark, error.what


def sweep_tmp(home: Home) -> None:
    """Remove what a crash left half-made under tmp/. Only while no child of an earlier daemon lives."""
    for entry in home.tmp.iterdir():
        if entry == home.trash:
            continue  # a chore empties it: it may hold a great deal
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def sweep_parts(home: Home, now_s: float) -> None:
    """Remove the temporary names that kills in the middle of a write have left beside what was to be written.

    Only where files are replaced again and again, and only old ones: a command may be on its way into its folder just now.
    """
    for folder in (home.root, home.commands, home.root / "caches", home.root / "series"):
        for part in folder.glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):
                if now_s - part.stat().st_mtime > OLD_PART_S:
                    part.unlink()
