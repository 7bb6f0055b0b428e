"""What is remembered of jobs and drops is never older than what lies on disk."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.records import Ended, Job, JobCard, JobState, Queued
from store import jobs
from store.paths import Home
from store.recall import chore_recall, jobs_file, recall_jobs

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.prepare()
    return made


def make(home: Home, name: str) -> Job:
    card = JobCard(
        id=name, adapter="a/main", drop="drop-1", file="x.jsonl", sha256="0", identity=name, created_at=NOW, drops=(), base_sha256="b", backend="stub"
    )
    return jobs.create_job(home, card, Queued(since=NOW), {})


def remember(home: Home, *, later_s: float = 60) -> dict[str, object]:
    """The chore, so long after the last change."""
    newest = max(path.stat().st_mtime for path in home.root.rglob("*"))
    return chore_recall(home, {"now_s": newest + later_s})


def test_what_is_remembered_is_what_would_be_read(home: Home) -> None:
    first, second = make(home, "job-1"), make(home, "job-2")
    ended = Job(card=second.card, state=JobState.CANCELLED, facts=Ended(at=NOW, reason="cancelled"))
    jobs.move_job(home, second, ended)
    read = jobs.read_all(home)
    assert remember(home) == {"jobs": 2, "drops": 0}
    assert sorted(job.id for _, job in recall_jobs(home).values()) == [first.id, ended.id]
    assert jobs.read_all(home) == read


def test_no_record_is_opened_that_is_remembered(home: Home) -> None:
    job = make(home, "job-1")
    remember(home)
    before = jobs.job_folder(home, job).stat().st_mtime_ns
    (jobs.job_folder(home, job) / "queued.json").write_text("{")  # in place, which lorad never does: the folder is as it was
    assert jobs.job_folder(home, job).stat().st_mtime_ns == before
    assert jobs.read_all(home) == ([job], [])


def test_a_record_that_changed_is_read_again(home: Home) -> None:
    job = make(home, "job-1")
    remember(home)
    after = Job(card=job.card, state=job.state, facts=Queued(since=NOW, paused="paused by ann"))
    jobs.record_facts(home, after)
    assert jobs.read_all(home)[0] == [after]


def test_what_changed_shortly_before_is_not_remembered(home: Home) -> None:
    make(home, "job-1")
    assert remember(home, later_s=1) == {"jobs": 0, "drops": 0}
    assert recall_jobs(home) == {}


def test_a_job_that_moved_is_found_where_it_lies(home: Home) -> None:
    job = make(home, "job-1")
    remember(home)
    ended = Job(card=job.card, state=JobState.FAILED, facts=Ended(at=NOW, reason="no"))
    folder = jobs.job_folder(home, job)
    before = folder.stat().st_mtime_ns
    jobs.move_job(home, job, ended)
    os.utime(jobs.job_folder(home, ended), ns=(before, before))  # even so
    assert jobs.read_all(home)[0] == [ended]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"queued/job-1": [1, {}]}'])
def test_a_memory_that_is_not_whole_is_no_memory(home: Home, content: bytes) -> None:
    job = make(home, "job-1")
    jobs_file(home).write_bytes(content)
    assert jobs.read_all(home)[0] == [job]
