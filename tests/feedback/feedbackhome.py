"""A home with signals, as the daemon would hold it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard
from said import ADAPTER, NOON

from core.config import Config
from core.records import Accepted, Claim, Drop, DropRef, DropState, Ended, Job, JobCard, JobState, Queued
from core.signals import Batch, Signal, Wanted
from core.wire import Manifest
from store.codec import put
from store.durable import append_line
from store.feedback import Shelf
from store.jobs import create_job, move_job
from store.keys import ensure_keys
from store.paths import Home
from store.wire import write_manifest

WISH = "batch-20260106-120000-000-abc"


def home_with(root: Path, signals: Sequence[Signal], **feedback: Any) -> Home:
    """A home whose config is in force and whose shelf holds these signals."""
    home = Home(root)
    home.prepare()
    ensure_keys(home.keys)
    config = Config.model_validate({"feedback": feedback})
    home.config_in_force.write_text(json.dumps(config.model_dump(mode="json")))
    Shelf(home).add(signals, NOON, config.feedback)
    return home


def want(home: Home, id: str = WISH) -> dict[str, str]:
    """Ask for a batch durably, as a trigger does; returns the chore's spec."""
    Shelf(home).want(Wanted(id=id, adapter=ADAPTER, trigger="enough", key="k", at=NOON))
    return {"adapter": ADAPTER, "id": id}


SPLITS = ("train", "train", "gate", "train", "dev")  # of a drop's rows, in turn


def accept(home: Home, batch: Batch, number: int = 1, aside: int = 0, groups: str = "") -> Drop:
    """Let the gate have accepted the batch's drop, with the last `aside` of its rows put aside. Rows with the same letter in `groups` are one conversation."""
    source = home.inbox / ADAPTER / batch.file
    raw, drop = source.read_bytes(), f"drop-20260106-12000{number}-000-abc"
    lines = raw.splitlines()
    folder = home.drop(DropState.ACCEPTED, drop)
    (folder / "rows").mkdir(parents=True)
    (folder / "rows" / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    kept = len(lines) - aside
    index = [
        {"line": line, "group": groups[line - 1 : line] or json.loads(lines[line - 1])["id"], "split": SPLITS[(line - 1) % 5]} for line in range(1, kept + 1)
    ]
    (folder / "rows" / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
    put_aside = [{"line": line, "ids": ["D07"], "text": "…"} for line in range(kept + 1, len(lines) + 1)]
    (folder / "rows" / "quarantine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in put_aside))
    known = {"size_bytes": len(raw), "mtime_ns": 1, "device": 1, "inode": number}
    claim = Claim(drop=drop, adapter=ADAPTER, source=f"{ADAPTER}/{batch.file}", file=batch.file, claimed_at=NOON, **known)
    sha256 = hashlib.sha256(raw).hexdigest()
    facts = Accepted(at=NOON, job=f"job-{number}", sha256=sha256, identity=drop, rows=kept, quarantined=aside, schema_id=batch.schema_id, job_made=True)
    put(folder / "claim.json", claim)
    put(folder / "accepted.json", facts)
    source.unlink()
    return Drop(claim=claim, state=DropState.ACCEPTED, facts=facts)


def make_job(home: Home, drop: Drop, id: str = "") -> Job:
    """The queued job of an accepted drop, or another one."""
    assert isinstance(drop.facts, Accepted)
    card = JobCard(
        id=id or drop.facts.job,
        adapter=ADAPTER,
        drop=drop.id,
        file=drop.claim.file,
        sha256=drop.facts.sha256,
        identity=drop.id,
        created_at=NOON,
        drops=(DropRef(id=drop.id, sha256=drop.facts.sha256),),
        base_sha256="stub",
        backend="stub",
    )
    return create_job(home, card, Queued(since=NOON), {"values": {}, "origins": {}, "job": {}})


def release(home: Home, job: Job, version: int, drops: Sequence[str], *, live: bool = True) -> str:
    """Let a job be released with these drops' bytes learnt, and be served or not."""
    folder = home.release(ADAPTER, version)
    folder.mkdir(parents=True)
    made: dict[str, Any] = {"format": 1, "adapter": ADAPTER, "version": version, "job": job.id, "backend": "stub", "base_sha256": "stub", "created_at": NOON}
    known = {"tokenizer_sha256": "stub", "template_sha256": "stub", "parent": None, "checkpoint_sha256": "0", "verdict_sha256": "0", "files": {}}
    id = write_manifest(folder, Manifest(drops=tuple(drops), **made, **known), home.keys)
    (home.runs(job.id) / "01-train").mkdir(parents=True)
    move_job(home, job, Job(card=job.card, state=JobState.RELEASED, facts=Ended(at=NOON, release=id, version=version)))
    if live:
        line = {"at": NOON.isoformat(), "target": "local", "alias": ADAPTER, "event": "live", "release": id, "version": version}
        append_line(home.live, json.dumps(line))
    return id
