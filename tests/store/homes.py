"""Homes on disk as tests need them: jobs with sealed checkpoints, releases, a ledger, an accepted drop; made by the project's own writers."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.records import Candidate, DropRef, Ended, Held, Job, JobCard, JobState, Queued, Ranking
from core.wire import Activation, Active, AliasState, Manifest
from store import codec
from store.jobs import create_job, move_job
from store.keys import ensure_keys
from store.paths import Home
from store.seals import seal
from store.targets import mirror
from store.wire import append_activation, write_manifest

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADAPTER = "default/main"


def new_home(folder: Path) -> Home:
    """An empty home with keys."""
    home = Home(folder)
    home.prepare()
    ensure_keys(home.keys)
    return home


def add_job(home: Home, number: int, *, state: JobState = JobState.RELEASED, steps: int = 3, num_bytes: int = 100_000, drops: tuple[DropRef, ...] = ()) -> str:
    """A job with `steps` sealed checkpoints, a resume point, scores, a ranking whose best is the first step, and a verdict."""
    job = f"job-20260301-12{number // 60:02d}{number % 60:02d}-000-{number:06x}"
    at = START + timedelta(minutes=number)
    card = JobCard(
        id=job,
        adapter=ADAPTER,
        drop="drop-1",
        file="x.jsonl",
        sha256="0" * 64,
        identity=f"{number:064x}",
        created_at=at,
        drops=drops,
        base_sha256="stub",
        backend="stub",
    )
    made = create_job(home, card, Queued(since=at), {"values": {}, "origins": {}})
    train = home.runs(job) / "01-train"
    for step in range(1, steps + 1):
        make_sealed(
            train / "checkpoints" / f"step_{step:06d}", {"adapter_model.safetensors": bytes([step]) * num_bytes, "checkpoint.json": b'{"dev_loss": 1.0}'}
        )
    make_sealed(train / "resume" / f"step_{steps:06d}", {"optimizer.safetensors": b"r" * num_bytes})
    (train / "log.txt").write_text("a line of the log\n" * 10_000)
    (train / "exit.json").write_text("{}")
    (train / "progress.jsonl").write_text('{"step": 1}\n')
    rank = home.runs(job) / "02-rank"
    rank.mkdir()
    (rank / "ranking.json").write_text(json.dumps({"best": "step_000001-abc"}))
    (rank / "verdict.json").write_text(json.dumps({"candidate": "step_000001-abc"}))
    candidate = Candidate(step=1, path="01-train/checkpoints/step_000001", sha256="0" * 64)
    if state is JobState.HELD:
        move_job(home, made, Job(card=card, state=state, facts=Held(since=at, reason="look", ranking=Ranking(since=at, candidates=(candidate,)))))
    elif state is not JobState.QUEUED:
        move_job(home, made, Job(card=card, state=state, facts=Ended(at=at)))
    return job


def make_sealed(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    seal(folder)


def add_release(home: Home, version: int) -> str:
    """A release in adapters/; returns its id."""
    folder = home.release(ADAPTER, version)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes([version]) * 50_000)
    manifest = Manifest(
        format=1,
        adapter=ADAPTER,
        version=version,
        job=f"job-{version}",
        backend="stub",
        base_sha256="stub",
        tokenizer_sha256="stub",
        template_sha256="stub",
        parent=None,
        checkpoint_sha256="0",
        verdict_sha256="0",
        drops=(),
        created_at=START,
        files={},
    )
    release = write_manifest(folder, manifest, home.keys)
    seal(folder)
    return release


def put_live(home: Home, *releases: str, target: str = "local", fence: int = 0) -> None:
    """The mirror of a box on which these releases went live one after another."""
    out = mirror(home, target)
    out.mkdir(parents=True, exist_ok=True)
    before: str | None = None
    for number, release in enumerate(releases, 1):
        line = Activation(box="b", sequence=number, at=START, alias=ADAPTER, release=release, version=number, previous=before, fence=number, event="live")
        append_activation(out / "activations.jsonl", line)
        before = release
    fence = fence or len(releases)
    aliases = {ADAPTER: AliasState(release=before, previous=releases[-2] if len(releases) > 1 else None, fence=fence)} if releases else {}
    codec.write(out / "active.json", Active(box="b", sequence=len(releases), fence_seen=fence, at=START, aliases=aliases))


def add_drop(home: Home) -> None:
    """An accepted drop with sealed rows."""
    folder = home.root / "drops" / "accepted" / "drop-1"
    make_sealed(folder / "rows", {"rows.jsonl.zst": b"rows", "report.json": b"{}"})
    (folder / "claim.json").write_text("{}")
    (folder / "accepted.json").write_text("{}")
