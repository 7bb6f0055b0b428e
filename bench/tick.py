"""How long a tick and a start take with a long queue on disk: 10,000 jobs, half of them queued, half ended, and a few at work.

The jobs lie in a home of their own with the accepted drops that they were made of, as a daemon of a year leaves them.
A tick is what the daemon's loop does: observe, decide, and write the status; nothing is started, for the queue is paused
by one that waits for its time. `ready_s` is that of a real daemon, from its start to the line that says it is ready.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.circle import LORAD

JOBS = 10_000
ADAPTERS = 50
TICKS = 200
PAUSE_S = 0.05  # between two ticks while the gate is at work
STARTS = 3
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def measure(jobs: int = JOBS) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.json"
        config.write_text(json.dumps({"home": "var", "backend": "stub", "allow_stub": True}))
        fill(config, jobs)
        ready = sorted(ready_s(config) for _ in range(STARTS))
        parts = ticks(config)
    figures: dict[str, Any] = {"jobs": jobs, "ready_s": round(ready[0], 2), "ready_all_s": [round(value, 2) for value in ready]}
    for part, taken in parts.items():
        figures |= {f"{part}_ms_p50": round(statistics.median(taken) * 1000, 2), f"{part}_ms_p99": round(sorted(taken)[int(len(taken) * 0.99)] * 1000, 2)}
    return figures, {}


def fill(config: Path, num_jobs: int) -> None:
    """Write jobs and their drops: every second one is queued for a later year, the others were released or failed."""
    from core.records import Accepted, Claim, Drop, DropList, DropState, Ended, Job, JobCard, JobState, Queued
    from store.config import ConfigLoader
    from store.jobs import CARD, CONFIG, job_folder
    from store.paths import Home

    home = Home(Path(ConfigLoader(config).load().config.home))
    home.prepare()
    frozen = json.dumps({"values": {}, "origins": {}, "job": {}})
    plain = _plain()
    for number in range(num_jobs):
        at = YEAR + timedelta(minutes=number)
        mark = f"{at:%Y%m%d-%H%M%S}-000-{number:06x}"
        card = JobCard(
            id=f"job-{mark}",
            adapter=f"user{number % ADAPTERS:02d}/main",
            drop=f"drop-{mark}",
            file="rows.jsonl",
            sha256=f"{number:064x}",
            identity=f"{number:064x}",
            created_at=at,
            rows_of=DropList(upto=f"drop-{mark}", count=number // ADAPTERS + 1, sha256=f"{number:064x}"),
            base_sha256="stub",
            backend="stub",
        )
        job = Job(card=card, state=JobState.QUEUED, facts=Queued(since=at, not_before=at.replace(year=2999)))
        if number % 2 == 0:
            state = JobState.FAILED if number % 10 == 0 else JobState.RELEASED
            job = replace(job, state=state, facts=Ended(at=at + timedelta(minutes=5), reason="live on every target", version=number, started_at=at))
        entry = {"source": "rows.jsonl", "device": 1, "inode": number, "size_bytes": 9, "mtime_ns": 1}
        claim = Claim(drop=card.drop, adapter=card.adapter, file="rows.jsonl", claimed_at=at, **entry)  # type: ignore[arg-type]
        made = Accepted(at=at, job=card.id, sha256=card.sha256, identity=card.identity, rows=200, schema_id="chat_sft_v1", level="standard", job_made=True)
        drop = Drop(claim=claim, state=DropState.ACCEPTED, facts=made)
        _write(job_folder(home, job), {CARD: plain(card), CONFIG: frozen, f"{job.state.value}.json": plain(job.facts)})
        _write(home.drop(drop.state, drop.id), {"claim.json": plain(claim), "accepted.json": plain(made)})


def _plain() -> Callable[[object], str]:
    from store.codec import dump

    return lambda record: dump(record, indent=1) + "\n"


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def ready_s(config: Path) -> float:
    """From the start of `lorad daemon` to its word that it is ready."""
    started = time.perf_counter()
    process = subprocess.Popen([LORAD, "daemon", "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        taken = time.perf_counter() - started
        if "watches" not in line:
            raise RuntimeError(f"the daemon is not ready: {line!r}")
        return taken
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def ticks(config: Path) -> dict[str, list[float]]:
    """Seconds of each part of each tick, in a process of its own, in which no child runs."""
    words = [sys.executable, "-c", f"import bench.tick, json; print(json.dumps(bench.tick.take({str(config)!r})))"]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root, env=os.environ | {"PYTHONPATH": root})
    taken: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return taken


def take(config: str) -> dict[str, list[float]]:
    """Observe, decide and write, again and again; every fourth tick something has changed."""
    import threading

    from core.reconcile import decide
    from daemon import clock
    from daemon.children import Children
    from daemon.gatekeeper import BACKGROUND, Gatekeeper
    from daemon.index import Index
    from daemon.intake import Gates
    from daemon.observe import Observer
    from daemon.status import Status
    from daemon.watcher import FileWatcher
    from store.config import ConfigLoader
    from store.paths import Home

    loader = ConfigLoader(config)
    home = Home(Path(loader.load().config.home))
    index = Index.load(home, loader)
    children = Children(home, index.config.slots)
    gates = Gates(Gatekeeper(home), Gatekeeper(home, BACKGROUND))
    observer = Observer(index, "bench", children, gates, FileWatcher(home.inbox, home.commands, threading.Event(), "poll"))
    status = Status(index, "bench", clock.now())
    taken: dict[str, list[float]] = {"tick": [], "observe": [], "decide": [], "status": []}
    for number in range(TICKS):
        now, begun = clock.now(), time.perf_counter()
        facts = observer.look()
        seen = time.perf_counter()
        decide(facts, now)
        decided = time.perf_counter()
        if number % 4 == 0:
            status.tell(now, "bench")
        status.write(facts, now)
        ended = time.perf_counter()
        for part, value in zip(taken, (ended - begun, seen - begun, decided - seen, ended - decided), strict=True):
            taken[part].append(value)
        time.sleep(PAUSE_S)
    return taken
