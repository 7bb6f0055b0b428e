"""The snapshot for listings: nothing is missed, nothing is made twice, and a long queue costs a tick little."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.records import Queued
from daemon import listing as listings
from daemon.counters import Counters
from daemon.index import Index
from daemon.listing import NUM_DROPS, NUM_NEWEST, Listing
from daemon.tally import Tally
from store.listings import read_jobs

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import AT, drop, ended, facts_of, index_of, queued


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return index_of(tmp_path)


def listing_of(index: Index) -> Listing:
    return Listing(Tally(index, Counters.load(index.home.counters)))


def show(listing: Listing, index: Index, **more: Any) -> dict[str, dict[str, Any]]:
    listing.write(facts_of(index, **more), {}, AT, must=True)
    return {row["id"]: row for row in read_jobs(index.home) or []}


def test_every_job_is_listed_as_it_stands_from_queue_to_end(index: Index) -> None:
    listing = listing_of(index)
    job = queued(1)
    index.keep_job(job)
    assert show(listing, index)[job.id]["state"] == "queued"
    index.keep_job(replace(job, facts=Queued(since=AT, paused="paused by ann: mine")))
    assert show(listing, index)[job.id]["reason"] == "paused by ann: mine"
    index.keep_job(ended(job, version=3, reason='live "everywhere"'))
    row = show(listing, index)[job.id]
    assert (row["state"], row["progress"], row["metrics"], row["reason"]) == ("released", 100, {"version": 3}, 'live "everywhere"')


def test_why_all_wait_stands_at_each_queued_job_without_its_row_being_made_anew(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = listing_of(index)
    for number in range(20):
        index.keep_job(queued(number))
    show(listing, index)
    made: list[str] = []
    real = listings.job_row
    monkeypatch.setattr(listings, "job_row", lambda job, *rest: made.append(job.id) or real(job, *rest))
    rows = show(listing, index, closed="quiet hours, until Mon 22:00")
    assert {row["reason"] for row in rows.values()} == {"quiet hours, until Mon 22:00"}
    assert made == []


def test_jobs_that_end_go_to_a_file_that_is_only_added_to_and_none_is_lost_on_the_way(index: Index) -> None:
    listing = listing_of(index)
    jobs = [queued(number) for number in range(NUM_NEWEST + 50)]
    for job in jobs:
        index.keep_job(job)
    show(listing, index)
    for job in jobs:
        index.keep_job(ended(job))
    rows = show(listing, index)
    assert [row["state"] for row in rows.values()] == ["released"] * len(jobs)
    assert len(index.home.ended_listing.read_text().splitlines()) == len(jobs)
    assert len(json.loads(index.home.listing.read_text())["jobs"]) == NUM_NEWEST
    again = show(listing_of(index), index)  # as the next daemon makes it
    assert again == rows


def test_a_torn_line_is_skipped_and_the_file_made_anew_after_an_error(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = listing_of(index)
    jobs = [queued(number) for number in range(3)]
    for job in jobs:
        index.keep_job(job)
    show(listing, index)
    index.keep_job(ended(jobs[0]))

    def fails(home: object, rows: object) -> None:
        with index.home.ended_listing.open("ab") as file:
            file.write(b'{"id": "job-')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(listings, "add_rows", fails)
        with pytest.raises(OSError, match="No space"):
            show(listing, index)
    index.keep_job(ended(jobs[1]))
    assert [row["state"] for row in show(listing, index).values()] == ["released", "released", "queued"]


def test_the_newest_drops_are_listed_and_one_that_left_is_not(index: Index) -> None:
    listing = listing_of(index)
    drops = [drop(number) for number in range(NUM_DROPS + 5)]
    for one in drops:
        index.keep_drop(one)
    index.lose_drop(drops[-1].id)
    show(listing, index)
    listed = [row["id"] for row in json.loads(index.home.listing.read_text())["drops"]]
    assert len(listed) <= NUM_DROPS
    assert listed[-1] == drops[-2].id


def test_with_ten_thousand_queued_jobs_a_snapshot_keeps_to_its_share_of_the_time(index: Index) -> None:
    for number in range(10_000):
        index.keep_job(queued(number))
    listing = listing_of(index)
    show(listing, index)
    facts = facts_of(index)
    taken = []
    for number in range(5):
        index.keep_job(replace(queued(number), facts=Queued(since=AT, reason=f"change {number}")))
        began = time.process_time()
        listing.write(facts, {}, AT, must=True)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.05, taken
    before = index.home.listing.stat().st_ino
    index.keep_job(queued(1))
    listing.write(facts, {}, AT)
    assert index.home.listing.stat().st_ino == before, "not again at once"


def test_the_file_of_the_queued_is_made_anew_once_most_of_its_lines_are_of_others(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "MOST_STALE", 10)
    listing = listing_of(index)
    jobs = [queued(number) for number in range(40)]
    for job in jobs:
        index.keep_job(job)
    show(listing, index)
    for job in jobs[:30]:
        index.keep_job(ended(job))
    late = queued(50)
    index.keep_job(late)
    rows = show(listing, index)
    assert [row["state"] for row in rows.values()] == ["released"] * 30 + ["queued"] * 11
    assert len(index.home.queued_listing.read_text().splitlines()) == 11
    assert show(listing_of(index), index) == rows, "as the next daemon makes it"
    assert not any(key.startswith("_") for row in rows.values() for key in row)
