"""The daemon is killed at random moments beside a stream of drops: nothing lost, nothing promoted twice, ready again soon."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from circle import Circle
from crashfigures import Figures
from randomkills import KillFigures, kill_at_random

from core.names import stamp
from core.records import Ended, JobCard, JobState, Queued
from store.codec import write
from store.jobs import CARD, CONFIG
from store.paths import Home


@pytest.fixture
def circle(tmp_path: Path) -> Iterator[Circle]:
    made = Circle(tmp_path)
    yield made
    made.end()


def tell(figures: Figures, found: KillFigures) -> None:
    figures.add("kills of the daemon", found.kills)
    figures.add("of the trainer with it", found.trainers)
    figures.add("lost", found.lost)
    figures.add("duplicated", found.duplicated)
    figures.seconds("restart to ready", found.ready_s)
    assert (found.lost, found.duplicated) == (0, 0)


def test_kills_at_random_moments_lose_and_double_nothing(circle: Circle, figures: Figures) -> None:
    tell(figures, kill_at_random(circle, kills=8, drops=2))


@pytest.mark.full
def test_two_hundred_kills_lose_and_double_nothing(circle: Circle, figures: Figures) -> None:
    tell(figures, kill_at_random(circle, kills=200, drops=40))


@pytest.mark.full
def test_a_start_with_ten_thousand_jobs_on_disk_is_ready(circle: Circle, figures: Figures) -> None:
    home = Home(circle.home)
    home.prepare()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(10_000):
        put_job(home, number, at + timedelta(milliseconds=number))
    taken = []
    for _ in range(3):
        started = time.monotonic()
        circle.start_daemon()
        taken.append(time.monotonic() - started)
        circle.daemon.kill()
    figures.seconds("restart to ready with 10,000 jobs", taken)
    assert len(circle.jobs()) == 10_000


def put_job(home: Home, number: int, at: datetime) -> None:
    """One in ten is queued, the others were released."""
    state = JobState.RELEASED if number % 10 else JobState.QUEUED
    card = JobCard(
        id=f"job-{stamp(at, f'{number:06x}')}",
        adapter="default/main",
        drop=f"drop-{number}",
        file="x.jsonl",
        sha256=f"{number:064x}",
        identity=f"{number:064x}",
        created_at=at,
        base_sha256="b",
        backend="stub",
    )
    folder = home.job(state, card.id, at)
    folder.mkdir(parents=True)
    write(folder / CARD, card, durable=False)
    (folder / CONFIG).write_text(json.dumps({"values": {}, "origins": {}}))
    write(folder / f"{state.value}.json", Queued(since=at, not_before=at + timedelta(days=9999)) if state is JobState.QUEUED else Ended(at=at), durable=False)
