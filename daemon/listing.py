"""The rows of jobs and drops for listings, kept as bytes: only what has changed is made anew.

Measured with 10,000 queued jobs on two shared cores: a snapshot takes about 15 ms, and is made at most as often as keeps
that under a fiftieth of the time. A short one is made at once.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from core.facts import Facts
from core.queue import why_waits
from core.records import Accepted, Drop, Ended, Job, Queued
from daemon.allowance import Allowance
from daemon.standing import Plain, percent
from daemon.tally import Tally
from store.listings import add_ended, write_ended, write_listing

SHARE = 0.02  # of the time may go into snapshots
BURST_S = 0.05
NUM_DROPS = 1000  # the newest that are listed
NUM_ENDED = 200  # ended jobs that stand in the snapshot too
METRICS = ("loss", "dev_loss", "tokens_per_s", "eta_s", "step", "total_steps")
NO_PROGRESS: Plain = {}
REASON = b'"reason":'  # the last key of a row


class Listing:
    """Writes `caches/listing.json` and `caches/ended.jsonl` of one daemon."""

    def __init__(self, tally: Tally) -> None:
        self._tally, self._index = tally, tally.index
        self._jobs: dict[str, tuple[Job, bytes]] = {}  # job that has not ended -> what its row was made of, the row without its reason
        self._drops: dict[str, bytes] = {}
        self._ended: deque[tuple[str, bytes]] = deque(maxlen=NUM_ENDED)
        self._reasons: dict[str, bytes] = {}
        self._allowance = Allowance(SHARE, BURST_S)
        self._last: tuple[bytes, ...] | None = None
        self._is_whole = False

    def _begin(self) -> None:
        """Make the file of ended jobs anew, as at the start."""
        self._ended.clear()
        rows = ((job.id, encoded(job_row(job, 100, NO_PROGRESS))) for job in self._index.ended.values())
        newest = deque(sorted(self._index.drops)[-NUM_DROPS:], NUM_DROPS)
        self._drops = {drop: encoded(drop_row(self._index.drops[drop])) for drop in newest}
        write_ended(self._index.home, self._noted(rows))
        self._is_whole = True

    def _noted(self, rows: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        for id, row in rows:
            self._ended.append((id, row))
            yield row

    def write(self, facts: Facts, progress: Mapping[str, Plain], now: datetime, *, must: bool = False) -> None:
        """Replace the snapshot where a row has changed and enough time has passed. Raises OSError."""
        if self._allowance.is_left() or must:
            with self._allowance.spent():
                self._write(facts, progress, now)

    def _write(self, facts: Facts, progress: Mapping[str, Plain], now: datetime) -> None:
        if not self._is_whole:
            self._begin()
        self._take_ended()
        self._take_drops()
        rows = tuple(self._job_rows(facts, progress, now))
        if rows != self._last or self._tally.drops or self._tally.jobs:
            newest = dict(self._ended)
            write_listing(self._index.home, (*rows, *newest.values()), (self._drops[drop] for drop in sorted(self._drops)))
            self._last = rows
            self._tally.jobs.clear()
            self._tally.drops.clear()

    # ---------------------------------------------------------------- rows

    def _take_ended(self) -> None:
        """Add what has ended since the last time to its own file."""
        ended = sorted(id for id in self._tally.jobs if id in self._index.ended)
        if ended:
            rows = [(id, encoded(job_row(self._index.ended[id], 100, NO_PROGRESS))) for id in ended]
            try:
                add_ended(self._index.home, [row for _, row in rows])
            except OSError:
                self._is_whole = False  # half a line may stand at its end
                raise
            self._ended.extend(rows)
            for id in ended:
                self._jobs.pop(id, None)
                self._tally.jobs.discard(id)
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
        reason_of = Reasons(facts, now)
        for id in sorted(self._index.jobs):
            job = self._index.jobs[id]
            known = self._jobs.get(id)
            found = progress.get(id, NO_PROGRESS)
            if known is None or known[0] is not job or found:
                row = encoded(job_row(job, percent(job, found), found))
                known = self._jobs[id] = (job, row[: row.rindex(REASON) + len(REASON)])
            yield known[1] + self._encoded_reason(reason_of(job)) + b"}"

    def _encoded_reason(self, reason: str) -> bytes:
        if reason not in self._reasons:
            if len(self._reasons) > NUM_DROPS:
                self._reasons.clear()
            self._reasons[reason] = encoded(reason)
        return self._reasons[reason]


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
