"""Records that rest are packed: they read as they were put, and a hundred thousand queued drops take little memory."""

import gc
import sys
import time
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.queue import decide_start
from core.records import Accepted, Claim, Drop, DropList, DropState, Job, JobCard, JobState, Queued
from daemon import pages as module
from daemon import resting
from daemon.index import Index
from daemon.pages import HOLE, Pages

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import AT, ended, facts_of, index_of

FEW, MANY = 1300, 4000
MOST_BYTES = 500  # of memory for a queued drop, its job included


def pair(number: int) -> tuple[Drop, Job]:
    """A drop of a burst into one adapter, and its job. What the machine makes at random is so here too."""

    def digest(of: str) -> str:
        return sha256(f"{of} {number}".encode()).hexdigest()

    at = AT + timedelta(milliseconds=13 * number)
    mark = f"{at:%Y%m%d-%H%M%S}-{at.microsecond // 1000:03d}-{digest('mark')[:6]}"
    entry = {"source": f"{number:06d}.jsonl", "device": 66311, "inode": 12 * number, "size_bytes": 480, "mtime_ns": 1763759857123456789 + 123457 * number}
    claim = Claim(drop=f"drop-{mark}", adapter="default/main", file=f"{number:06d}.jsonl", claimed_at=at, **entry)  # type: ignore[arg-type]
    made = {"job": f"job-{mark}", "sha256": digest("bytes"), "identity": digest("rows"), "rows": 3, "schema_id": "chat_sft_v1", "level": "standard"}
    drop = Drop(claim=claim, state=DropState.ACCEPTED, facts=Accepted(at=at, job_made=True, **made))  # type: ignore[arg-type]
    rows = DropList(upto=claim.drop, count=number + 1, sha256=digest("list"))
    same = {"file": claim.file, "sha256": made["sha256"], "identity": made["identity"], "base_sha256": "stub", "backend": "stub"}
    card = JobCard(id=f"job-{mark}", adapter=claim.adapter, drop=claim.drop, created_at=at, rows_of=rows, **same)  # type: ignore[arg-type]
    return drop, Job(card=card, state=JobState.QUEUED, facts=Queued(since=at))


def fill(index: Index, numbers: range) -> None:
    for number in numbers:
        drop, job = pair(number)
        index.keep_drop(drop)
        index.keep_job(job)


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, float]:
    """An index after a burst, and the bytes that each drop of its second part took."""
    index = index_of(tmp_path_factory.mktemp("home"))
    tracemalloc.start()
    fill(index, range(FEW))
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    fill(index, range(FEW, MANY))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return index, (after - before) / (MANY - FEW)


def test_a_queued_drop_takes_little_memory(burst: tuple[Index, float]) -> None:
    assert burst[1] < MOST_BYTES


def test_what_was_packed_reads_as_it_was_put(burst: tuple[Index, float]) -> None:
    index = burst[0]
    for number in (0, 1, 63, 64, 700, MANY - 1):
        drop, job = pair(number)
        assert (index.drops[drop.id], index.jobs[job.id], index.views.queued[job.id]) == (drop, job, job)
        assert index.views.with_identity(job.card.identity) == {job.id: JobState.QUEUED}
    assert (len(index.jobs), len(index.drops), len(index.views.queued)) == (MANY, MANY, MANY)
    assert [*index.jobs] == [pair(number)[1].id for number in range(MANY)]
    assert index.drops.newest() == pair(MANY - 1)[0].id


def test_the_next_of_a_long_queue_is_found_at_once(burst: tuple[Index, float]) -> None:
    index = burst[0]
    facts, taken = facts_of(index), []
    for _ in range(5):
        began = time.process_time()
        (step,) = decide_start(facts, [0], AT + timedelta(days=1))
        taken.append(time.process_time() - began)
        assert step.job == pair(0)[1].id  # type: ignore[union-attr]
    assert min(taken) < 0.005, taken


def test_a_job_that_begins_and_comes_back_is_found_wherever_it_stands(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    fill(index, range(700))
    job = pair(100)[1]
    index.keep_job(replace(job, facts=Queued(since=AT, paused="by ann")))
    assert index.jobs[job.id].facts == Queued(since=AT, paused="by ann")
    assert index.views.with_identity(job.card.identity) == {job.id: JobState.QUEUED}
    index.keep_job(job)
    fill(index, range(700, 1400))
    assert index.jobs[job.id] == job
    index.keep_job(ended(job))
    assert job.id not in index.jobs
    assert index.ended[job.id] == ended(job)
    assert (len(index.jobs), len(index.ended), len(index.views.queued)) == (1399, 1, 1399)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["rest", "rest", "move", "lose"])), max_size=120))
def test_pages_hold_what_a_dictionary_would_hold(changes: list[tuple[int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAGE", 4)
        patch.setattr(module, "MOST_LOOSE", 6)
        packed, plain = resting.drops(), {}
        for number, change in changes:
            drop = pair(number)[0]
            assert isinstance(drop.facts, Accepted)
            if change == "lose":
                assert packed.pop(drop.id, None) == plain.pop(drop.id, None)
            else:
                packed[drop.id] = plain[drop.id] = drop if change == "rest" else replace(drop, facts=replace(drop.facts, job_made=False))
            assert len(packed) == len(plain)
        assert dict(packed) == plain
        assert packed.newest() == max(plain, default="")
        with pytest.raises(KeyError):
            packed["drop-0"]


@pytest.mark.parametrize("text", ["f" * 64, "#" * 64, HOLE.decode("latin-1"), "ü" * 32, "\udce9".encode("utf-8", "surrogatepass").hex()])
def test_no_text_is_taken_for_a_hash_that_was_taken_out(text: str) -> None:
    texts = Pages[str](str, str, str, lambda one: True)
    for number in range(2000):
        texts[f"{number:05d}"] = f"{text}{number % 7 or ''}"
    assert all(texts[f"{number:05d}"] == f"{text}{number % 7 or ''}" for number in range(2000))


def test_a_record_that_cannot_be_packed_stays_as_it_is_and_holds_up_no_other() -> None:
    drops, odd = resting.drops(), 70
    for number in range(1000):
        drop = pair(number)[0]
        if number == odd:
            drop = replace(drop, claim=replace(drop.claim, mtime_ns=1 << 70))  # as a file system with 64 bits of seconds may say
        drops[drop.id] = drop
    assert len(drops) == 1000
    assert drops[pair(odd)[0].id].claim.mtime_ns == 1 << 70
    assert drops[pair(999)[0].id] == pair(999)[0]
    assert drops[pair(odd + 1)[0].id] == pair(odd + 1)[0]
