"""A home without a daemon, with jobs and drops that tests put into its index."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.facts import Facts
from core.records import Accepted, Claim, Drop, DropList, DropState, Ended, Job, JobCard, JobState, Queued
from daemon.index import Index
from store.config import ConfigLoader
from store.paths import Home

AT = datetime(2026, 3, 1, tzinfo=UTC)


def index_of(folder: Path, **config: object) -> Index:
    """The index of an empty home."""
    path = folder / "config.json"
    path.write_text(json.dumps({"home": "home", "backend": "stub", "allow_stub": True} | config))
    loader = ConfigLoader(path)
    home = Home(Path(loader.load().config.home))
    home.prepare()
    return Index.load(home, loader)


def queued(number: int, priority: int = 0) -> Job:
    at = AT + timedelta(minutes=number)
    identity = f"{at:%Y%m%d-%H%M%S}-000-{number:06x}"
    card = JobCard(
        id=f"job-{identity}",
        adapter=f"user{number % 50:02d}/main",
        drop=f"drop-{identity}",
        file="rows.jsonl",
        sha256=f"{number:064x}",
        identity=f"{number:064x}",
        priority=priority,
        created_at=at,
        rows_of=DropList(upto=f"drop-{identity}", count=number + 1, sha256=f"{number:064x}"),
        base_sha256="stub",
        backend="stub",
    )
    return Job(card=card, state=JobState.QUEUED, facts=Queued(since=at))


def ended(job: Job, state: JobState = JobState.RELEASED, **facts: object) -> Job:
    return replace(job, state=state, facts=Ended(at=AT + timedelta(days=1), started_at=AT, **facts))  # type: ignore[arg-type]


def drop(number: int) -> Drop:
    at = AT + timedelta(seconds=number)
    identity = f"drop-{at:%Y%m%d-%H%M%S}-000-{number:06x}"
    claim = Claim(drop=identity, adapter="a/main", source="x.jsonl", device=1, inode=number, size_bytes=9, mtime_ns=1, file="x.jsonl", claimed_at=at)
    facts = Accepted(at=at, job="job-1", sha256="0", identity="0", rows=1, schema_id="chat_sft_v1", job_made=True)
    return Drop(claim=claim, state=DropState.ACCEPTED, facts=facts)


def facts_of(index: Index, **more: object) -> Facts:
    """What a tick would see, without children and targets."""
    seen = {"jobs": index.jobs, "ended": index.views.ended, "views": index.views, "config": index.config}
    return Facts(instance="test", backend="stub", base_sha256="stub", **(seen | more))  # type: ignore[arg-type]
