"""The rows of jobs and drops for listings, kept as bytes: only what has changed is made anew.

A queued job of which nothing more is known costs one line, once, however long it waits. A snapshot is made at most as often
as keeps it under a fiftieth of the time; a short one is made at once.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from heapq import nlargest
from typing import Any

import msgspec

from core.facts import Facts
from core.queue import waits_of, why_waits
from core.records import Accepted, Drop, Ended, Job, Queued
from core.waiting import is_plain
from daemon.allowance import Allowance
from daemon.standing import Plain, percent
from daemon.tally import Tally
from store.listings import DROP, WITHOUT, add_rows, rows_in, write_listing, write_rows

SHARE = 0.02  # of the time may go into snapshots
BURST_S = 0.05
NUM_DROPS = 1000  # the newest that are listed
NUM_NEWEST = 200  # queued and ended jobs that stand in the snapshot too
MOST_STALE = 1000  # lines in the file of the queued that are of others by now, beside as many as still wait
METRICS = ("loss", "dev_loss", "tokens_per_s", "eta_s", "step", "total_steps")
NO_PROGRESS: Plain = {}
REASON = b'"reason":'  # the last key of a row


class Listing:
    """Writes `caches/listing.json`, `caches/queued.jsonl` and `caches/ended.jsonl` of one daemon."""

    def __init__(self, tally: Tally) -> None:
        self._tally, self._index = tally, tally.index
        self._jobs: dict[str, tuple[Job, bytes]] = {}  # listed job that has not ended -> what its row was made of, the row without its reason
        self._drops: dict[str, bytes] = {}
        self._queued: dict[str, Job] = {}  # the newest plain jobs
        self._num_queued = 0  # lines in their file
        self._ended: deque[tuple[str, bytes]] = deque(maxlen=NUM_NEWEST)
        self._reasons: dict[str, bytes] = {}
        self._allowance = Allowance(SHARE, BURST_S)
        self._last: tuple[bytes, ...] | None = None
        self._is_whole = False

    def _begin(self) -> None:
        """Make the files of queued and of ended jobs anew, as at the start."""
        self._ended.clear()
        self._queued.clear()
        rows = ((job.id, encoded(job_row(job, 100, NO_PROGRESS))) for job in self._index.ended.values())
        newest = nlargest(NUM_DROPS, self._index.drops)
        self._drops = {drop: encoded(drop_row(self._index.drops[drop])) for drop in newest}
        plain = (job for job in self._index.jobs.values() if is_plain(job))
        self._num_queued = write_rows(self._index.home.queued_listing, (self._noted_queued(job) for job in plain))
        write_rows(self._index.home.ended_listing, self._noted(rows))
        self._is_whole = True

    def _noted(self, rows: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        for id, row in rows:
            self._ended.append((id, row))
            yield row

    def _noted_queued(self, job: Job) -> bytes:
        """The line of a plain job."""
        self._queued.pop(job.id, None)
        self._queued[job.id] = job
        if len(self._queued) > NUM_NEWEST:
            del self._queued[next(iter(self._queued))]
        assert job.card.rows_of is not None
        return encoded(job_row(job, 0, NO_PROGRESS) | {DROP: job.card.rows_of.upto, WITHOUT: job.card.rows_of.without})

    def write(self, facts: Facts, progress: Mapping[str, Plain], now: datetime, *, must: bool = False) -> None:
        """Replace the snapshot where a row has changed and enough time has passed. Raises OSError."""
        if self._allowance.is_left() or must:
            with self._allowance.spent():
                self._write(facts, progress, now)

    def _write(self, facts: Facts, progress: Mapping[str, Plain], now: datetime) -> None:
        if self._is_whole:
            try:
                self._take_queued()
                self._take_ended()
            except OSError:
                self._is_whole = False  # half a line may stand at its end
                raise
        else:
            self._begin()
        self._take_drops()
        waits = encoded(waits_of(facts))
        rows = (*self._job_rows(facts, progress, now), waits)
        if rows != self._last or self._tally.drops or self._tally.jobs:
            newest = dict(self._ended)
            write_listing(self._index.home, (*rows[:-1], *newest.values()), (self._drops[drop] for drop in sorted(self._drops)), waits)
            self._last = rows
            self._tally.jobs.clear()
            self._tally.drops.clear()

    # ---------------------------------------------------------------- rows

    def _take_queued(self) -> None:
        """Add what was queued since the last time to the file of the queued; what has begun, or ended, stays in it for a while."""
        for id in self._tally.jobs:
            self._queued.pop(id, None)
        changed = (self._index.jobs.get(id) for id in sorted(self._tally.jobs))
        added = [self._noted_queued(job) for job in changed if job is not None and is_plain(job)]
        path, queue = self._index.home.queued_listing, self._index.views.queued
        if self._num_queued + len(added) > 2 * len(queue) + MOST_STALE:
            kept = (line for line in rows_in(path) if (known := _known(line)) is not None and queue.is_in_line(*known))
            self._num_queued = write_rows(path, (*kept, *added))
        elif added:
            add_rows(path, added)
            self._num_queued += len(added)

    def _take_ended(self) -> None:
        """Add what has ended since the last time to its own file."""
        ended = sorted(id for id in self._tally.jobs if id in self._index.ended)
        if ended:
            rows = [(id, encoded(job_row(self._index.ended[id], 100, NO_PROGRESS))) for id in ended]
            add_rows(self._index.home.ended_listing, [row for _, row in rows])
            self._ended.extend(rows)
            self._last = None  # the snapshot is to be written without them

    def _take_drops(self) -> None:
        for id in self._tally.drops:
            drop = self._index.drops.get(id)
            if drop is None:
                self._drops.pop(id, None)
            else:
                self._drops[id] = encoded(drop_row(drop))
        if len(self._drops) > NUM_DROPS:
            for id in sorted(self._drops)[:-NUM_DROPS]:
                del self._drops[id]

    def _job_rows(self, facts: Facts, progress: Mapping[str, Plain], now: datetime) -> Iterator[bytes]:
        """The rows of the jobs at work, of those queued ones of which more is known than that they wait, and of the newest."""
        reason_of, before = Reasons(facts, now), self._jobs
        self._jobs = {}
        listed = self._index.views.active | self._index.views.queued.special | self._queued
        for id in sorted(listed):
            job, known = listed[id], before.get(id)
            found = progress.get(id, NO_PROGRESS)
            if known is None or known[0] is not job or found:
                row = encoded(job_row(job, percent(job, found), found))
                known = (job, row[: row.rindex(REASON) + len(REASON)])
            self._jobs[id] = known
            yield known[1] + self._encoded_reason(reason_of(job)) + b"}"

    def _encoded_reason(self, reason: str) -> bytes:
        if reason not in self._reasons:
            if len(self._reasons) > NUM_DROPS:
                self._reasons.clear()
            self._reasons[reason] = encoded(reason)
        return self._reasons[reason]


class _Known(msgspec.Struct):
    """What is asked of a line in the file of the queued."""

    id: str
    adapter: str


def _known(line: bytes) -> tuple[str, str] | None:
    """(id, adapter) of a line; None where it is torn."""
    try:
        found = msgspec.json.decode(line, type=_Known)
    except msgspec.DecodeError:
        return None
    return found.id, found.adapter


class Reasons:
    """Why each job stands where it does. Most queued jobs wait for the same: that is worked out once."""

    def __init__(self, facts: Facts, now: datetime) -> None:
        self._facts, self._now = facts, now
        self._same: dict[tuple[str, str], str] = {}

    def __call__(self, job: Job) -> str:
        work = job.facts
        if not isinstance(work, Queued):
            return str(getattr(work, "reason", ""))
        if work.not_before is not None or job.card.adapter in self._facts.unproven_of or job.card.drop in self._facts.unproven:
            return why_waits(job, self._facts, self._now)
        key = (work.paused, work.reason)
        if key not in self._same:
            self._same[key] = why_waits(job, self._facts, self._now)
        return self._same[key]


def encoded(value: object) -> bytes:
    """A value as JSON, without blanks."""
    return msgspec.json.encode(value)


def drop_row(drop: Drop) -> dict[str, Any]:
    """One drop in the listing: how deep it was checked, what was put aside, and how the deep check in the background stands."""
    row = {"id": drop.id, "state": drop.state.value, "inode": drop.claim.inode, "device": drop.claim.device, "job": None}
    row |= {"adapter": drop.claim.adapter, "file": drop.claim.file}
    facts = drop.facts
    if isinstance(facts, Accepted):
        deep = facts.deep.state.value if facts.deep else None
        row |= {"job": facts.job, "rows": facts.rows, "quarantined": facts.quarantined, "level": facts.level, "deep": deep}
    return row


def job_row(job: Job, progress: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """One job as `lorad jobs list --format json` prints it. `reason` stands last."""
    facts = job.facts
    metrics = {key: found[key] for key in METRICS if found.get(key) is not None}
    if isinstance(facts, Ended) and facts.version is not None:
        metrics["version"] = facts.version
    started_at = facts.started_at if isinstance(facts, Ended) else None if isinstance(facts, Queued) else facts.since
    return {
        "id": job.id,
        "state": job.state.value,
        "adapter": job.card.adapter,
        "file": job.card.file,
        "sha256": job.card.sha256,
        "priority": job.card.priority,
        "attempts": getattr(facts, "attempts", 0),
        "progress": progress,
        "metrics": metrics,
        "created_at": job.card.created_at.isoformat(),
        "started_at": started_at.isoformat() if started_at else None,
        "finished_at": facts.at.isoformat() if isinstance(facts, Ended) else None,
        "reason": getattr(facts, "reason", ""),
    }
