"""Follows every change of jobs and drops as it is made: what is to be counted, listed anew, and told.

The index calls `on_job` and `on_drop`, `Status.tell` calls `on_told`: so nothing is missed between two looks, and no look
has to walk ten thousand jobs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from core.alerts import RULES, Happening, happened
from core.logtail import shareable
from core.records import Accepted, Drop, DropState, Ended, Gating, Job, JobState, Queued, Ranking, Training, VerdictWord
from daemon import clock
from daemon.counters import Counters
from daemon.index import Index
from store.runs import log_tail

MOST_HAPPENINGS = 1000  # between two looks
LOG_LINES = 200  # of the end of a failed run's log, of which a few are shown
RESULTS = {"drop.accepted": "accepted", "drop.rejected": "refused", "drop.vanished": "vanished", "drop.deep_refused": "refused_deep"}

ZERO: tuple[tuple[str, dict[str, str]], ...] = (
    *(("intake_files_total", {"result": result}) for result in RESULTS.values()),
    *(("gate_verdict_total", {"verdict": word.value}) for word in VerdictWord),
    *(("alerts_total", {"rule": rule}) for rule in RULES),
    ("rollback_total", {"cause": "person"}),
    ("oom_retries_total", {}),
    ("train_tokens_total", {}),
)


@dataclass(slots=True)
class Tally:
    """What has changed since the last look, and the counts of all looks."""

    index: Index
    counters: Counters
    jobs: set[str] = field(default_factory=set)  # changed since the listing took them
    drops: set[str] = field(default_factory=set)
    happenings: list[Happening] = field(default_factory=list)  # since the alerts took them
    depth: Counter[tuple[str, str]] = field(default_factory=Counter)  # (state, urgency) -> jobs that have not ended
    on_their_way: Counter[str] = field(default_factory=Counter)  # state -> drops
    _last_lost: Drop | None = None
    _learnt: dict[str, int] = field(default_factory=dict)  # job at work -> tokens of its run that are counted

    def __post_init__(self) -> None:
        views, shelf = self.index.views, self.index.shelf
        self.depth.update((job.state.value, urgency(job.card.priority)) for job in (views.active | views.queued.special).values())
        for _, priority, line in views.queued.lines():
            self.depth[(JobState.QUEUED.value, urgency(priority))] += len(line)
        self.on_their_way.update(self.index.drops[drop].state.value for drop in shelf.jobless)
        self.on_their_way[DropState.ACCEPTED.value] += len(self.index.drops) - len(shelf.jobless)
        self.index.hear_job, self.index.hear_drop = self.on_job, self.on_drop
        for name, labels in ZERO:  # so that the first one is seen to be one more
            self.counters.add(name, 0, labels=labels)

    # ---------------------------------------------------------------- what is heard

    def on_job(self, before: Job | None, after: Job) -> None:
        """A job was made or has changed."""
        self.jobs.add(after.id)
        if before is not None:
            self.depth[(before.state.value, urgency(before.card.priority))] -= 1
        if not isinstance(after.facts, Ended):
            self.depth[(after.state.value, urgency(after.card.priority))] += 1
        elif before is not None:
            self._ended(after, after.facts)
        if before is not None and _micro_batch(after) and _micro_batch(after) != _micro_batch(before) and not isinstance(after.facts, Training):
            self.counters.add("oom_retries_total")
        if isinstance(after.facts, Ranking) and after.facts.word is not None and _word(before) != after.facts.word:
            self.counters.add("gate_verdict_total", labels={"verdict": after.facts.word.value})

    def on_drop(self, before: Drop | None, after: Drop | None) -> None:
        """A drop was claimed, has changed or has left."""
        changed = after or before
        assert changed is not None, "a drop comes, changes or leaves"
        self.drops.add(changed.id)
        if before is not None:
            self.on_their_way[before.state.value] -= 1
            if after is None:
                self._last_lost = before
        if after is not None:
            self.on_their_way[after.state.value] += 1
        if before is not None and isinstance(before.facts, Gating) and not (after and isinstance(after.facts, Gating)):
            tier = after.facts.level if after and isinstance(after.facts, Accepted) else self._level(before)
            self.counters.observe("gate_seconds", (clock.now() - before.facts.since).total_seconds(), {"tier": tier or "standard"})

    def _level(self, drop: Drop) -> str:
        seen = self.index.sidecars.get(drop.id)
        return seen.level if seen else ""

    def on_told(self, action: str, fields: Mapping[str, object]) -> None:
        """A transition was told."""
        if action in RESULTS:
            self.counters.add("intake_files_total", labels={"result": RESULTS[action]})
        if action in ("drop.rejected", "drop.deep_refused"):
            drop = str(fields.get("drop", ""))
            known = self.index.drops.get(drop) or self._last_lost
            adapter = known.claim.adapter if known is not None and known.id == drop else ""
            self.happen(Happening(kind="drop.rejected", about=drop, words={"adapter": adapter, **_texts(fields, ("file", "code"))}))
        if action == "iteration.rolled_back":
            self.happen(Happening(kind=action, about=str(fields.get("iteration", "")), words=_texts(fields, ("adapter", "job", "reason"))))
        if action == "signals.stored":
            self.counters.add("signals_total", int(str(fields.get("count", 0))), labels={"standing": str(fields.get("standing", ""))})
        if action == "command.rollback" and fields.get("ok"):
            self.counters.add("rollback_total", labels={"cause": "person"})

    def happen(self, happening: Happening) -> None:
        """Something that the passing alerts are about."""
        if len(self.happenings) < MOST_HAPPENINGS:
            self.happenings.append(happening)

    def take_happenings(self) -> tuple[Happening, ...]:
        """What happened since the last time."""
        taken, self.happenings = tuple(self.happenings), []
        return taken

    # ---------------------------------------------------------------- ends

    def _ended(self, job: Job, facts: Ended) -> None:
        if facts.started_at is not None:
            seconds = max(0.0, (facts.at - facts.started_at).total_seconds())
            self.counters.add("job_seconds_sum", seconds, labels={"state": job.state.value})
            self.counters.add("job_seconds_count", labels={"state": job.state.value})
        self._learnt.pop(job.id, None)
        if job.state is JobState.FAILED:
            self.happen(failure(self.index, job.id))

    # ---------------------------------------------------------------- tokens

    def count_tokens(self, progress: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what the trainings have learnt from since the last look; `progress` is by job. A run begins at none."""
        for job, line in progress.items():
            tokens = line.get("tokens")
            if line.get("stage") != "train" or tokens is None:
                continue
            before = self._learnt.get(job, 0)
            self._learnt[job] = int(tokens)
            if tokens != before:
                self.counters.add("train_tokens_total", tokens - before if tokens > before else tokens)


def failure(index: Index, job_id: str) -> Happening:
    """That the job has failed, with what its last run's log may show outside."""
    job = index.job(job_id)
    assert isinstance(job.facts, Ended)
    run = newest_run(index.home.runs(job_id))
    log = shareable(log_tail(run, LOG_LINES)) if run is not None else ()
    return happened(job_id, job.facts, job.card.adapter, run.name if run is not None else "", log)


def newest_run(folder: Path) -> Path | None:
    """The last run folder of a job."""
    try:
        names: Iterable[Path] = [entry for entry in folder.iterdir() if entry.name.split("-")[0].isdigit()]
    except OSError:
        return None
    return max(names, key=lambda entry: int(entry.name.split("-")[0]), default=None)


def oldest_queued(index: Index) -> datetime | None:
    """When the job was made that has waited longest; ids sort by time."""
    oldest = index.views.queued.oldest()
    return index.jobs[oldest].card.created_at if oldest is not None else None


def urgency(priority: int) -> str:
    """The priority as a word: a number that anyone may choose makes no label."""
    return "normal" if priority == 0 else "high" if priority > 0 else "low"


def _micro_batch(job: Job) -> int | None:
    return job.facts.micro_batch if isinstance(job.facts, Queued | Training | Ranking) else None


def _word(job: Job | None) -> object:
    return job.facts.word if job is not None and isinstance(job.facts, Ranking) else None


def _texts(fields: Mapping[str, object], names: Iterable[str]) -> dict[str, str]:
    return {name: str(fields[name]) for name in names if fields.get(name)}
