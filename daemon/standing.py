"""How things stand: one object, made of the facts of a tick and the index, from which everything that tells it is made.

status.json is this object; the progress lines of status.jsonl, metrics.prom, `lorad status` and the alerts read it.
"""

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from core.facts import DeviceSeen, Facts, TargetSeen
from core.intake import over_quota
from core.records import Ended, Held, Job, JobState, Ranking, Releasing, Training
from core.signals import Counts
from daemon import clock, logs, machine
from daemon.index import Index
from daemon.tally import Tally, oldest_queued
from store.runs import last_progress

FORMAT = 1
SHARES = {"train": (0, 80), "dev": (80, 88), "order": (88, 89), "gate": (89, 95), "verdict": (95, 96), "pack": (96, 97), "publish": (97, 100)}
SHOWN = ("step", "total_steps", "loss", "dev_loss", "tokens_per_s", "supervised_share", "memory_mb", "eta_s", "micro_batch", "held", "network")
AT_WORK = (JobState.TRAINING, JobState.RANKING, JobState.RELEASING)
Plain = dict[str, Any]  # JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The daemon itself, as far as it does not change while it runs."""

    instance: str
    started_at: datetime
    pid: int
    boot: str

    @classmethod
    def this(cls, instance: str, started_at: datetime) -> "Process":
        """This process."""
        return cls(instance=instance, started_at=started_at, pid=os.getpid(), boot=machine.boot_id())


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """status.json, key by key. `at` is the heartbeat: written every second while the main loop runs, whatever happens."""

    format: int
    at: str
    daemon: Plain
    queue: Mapping[str, int]  # state -> jobs
    drops: Mapping[str, int]
    inbox: Plain  # how it is watched, and why by looking; persona -> files that wait until its drops are a day old
    gate: Plain
    schedule: Plain
    current: Plain | None  # the job that a person would ask about
    at_work: list[Plain]  # every job with a child at work
    live: Plain
    targets: list[Plain]
    feedback: Mapping[str, Plain]  # adapter -> its signals, counted
    disk: Plain
    devices: list[Plain]
    alerts: list[Plain]
    notices: Plain
    findings: list[Plain]
    error: Plain | None

    def as_json(self) -> Plain:
        """The values as they stand in status.json."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def progress_of(index: Index) -> dict[str, Plain]:
    """The newest line of progress of each job with a child at work."""
    found = {job.id: last_progress(index.home.runs(job.id) / run) for job in index.views.active.values() if (run := child_of(job))}
    return {job: {key: _plain(value) for key, value in line.items()} for job, line in found.items() if line}


def _plain(value: Any) -> Any:
    """A value that JSON knows: a loss that is no number is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at everything. `state` is that of the daemon: running or stopped."""

    facts: Facts
    now: datetime
    progress: Mapping[str, Plain]  # job -> the newest line of its child
    state: str = "running"
    signals: Mapping[str, Counts] = field(default_factory=dict)


def standing_of(look: Look, tally: Tally, process: Process) -> Standing:
    """How things stand now."""
    facts, progress, now = look.facts, look.progress, look.now
    index, incident = tally.index, tally.index.incident
    jobs = sorted((job for job in index.views.active.values() if job.state in AT_WORK), key=lambda job: (child_of(job) is None, job.id))
    rows = [_row(job, progress.get(job.id, {})) for job in jobs]
    return Standing(
        format=FORMAT,
        at=now.isoformat(),
        daemon=_daemon(facts, index, process, look.state),
        queue={job_state.value: index.views.counts.get(job_state, 0) for job_state in JobState},
        drops={"waiting": facts.num_entries, **{name: tally.on_their_way[name] for name in ("settling", "gating")}},
        inbox={"watch": facts.watch.how, "reason": facts.watch.reason, "over_quota": over_quota(facts) if facts.config.inbox.quota_mb else {}},
        gate=_gate(facts, index),
        schedule={"paused": facts.paused, "closed": facts.closed, "oldest_queued_at": _iso(oldest_queued(index))},
        current=rows[0] if rows else None,
        at_work=[row for row, job in zip(rows, jobs, strict=True) if child_of(job)],
        live=_live(facts),
        targets=[_target(target) for target in facts.targets],
        feedback={adapter: _signals(counts) for adapter, counts in sorted(look.signals.items())},
        disk=_disk(facts, index),
        devices=[_device(device) for device in facts.devices],
        alerts=[],
        notices={},
        findings=list(index.findings),
        error=None
        if incident is None
        else {"at": incident.at.isoformat(), "code": incident.code, "what": incident.what, "hint": incident.hint, "about": incident.about},
    )


def _daemon(facts: Facts, index: Index, process: Process, state: str) -> Plain:
    return {
        "state": state,
        "pid": process.pid,
        "instance": process.instance,
        "boot": process.boot,
        "beat_s": round(clock.elapsed_s(), 3),  # the heartbeat by a clock that no person sets
        "started_at": process.started_at.isoformat(),
        "home": str(index.home.root),
        "config": str(index.loader.path),
        "backend": index.backend.name,
        "backend_reason": index.backend.why,
        "base": index.config.model_path or index.config.model_name,
        "base_sha256": facts.base_sha256,
        "log_lines_dropped": logs.lines_dropped(),
        "warnings": list(index.warnings),
    }


def _gate(facts: Facts, index: Index) -> Plain:
    """What the two gate children are at, and how many accepted drops wait for their deep check."""
    at_work = {"new": facts.gate.drop, "background": facts.deep_gate.drop}
    files = {name: index.drops[drop].claim.file for name, drop in at_work.items() if drop is not None and drop in index.drops}
    return {name: {"drop": drop, "file": files.get(name, "")} for name, drop in at_work.items()} | {"deep_open": len(facts.unproven)}


def _row(job: Job, progress: Plain) -> Plain:
    slot = job.facts.child.slot if isinstance(job.facts, Training | Ranking | Releasing) and job.facts.child else None
    return {
        "job": job.id,
        "adapter": job.card.adapter,
        "file": job.card.file,
        "state": job.state.value,
        "stage": stage_of(job),
        "slot": slot,
        "progress": percent(job, progress),
        "reason": getattr(job.facts, "reason", ""),
        **{key: progress.get(key) for key in SHOWN},
    }


def _live(facts: Facts) -> Plain:
    """What each adapter serves by the first target's ledger."""
    live = facts.targets[0].live if facts.targets else {}
    return {alias: {"release": release, "version": facts.releases.get(release) if release else None} for alias, release in sorted(live.items())}


def _target(target: TargetSeen) -> Plain:
    seen = target.observed
    return {
        "name": target.name,
        "reachable": bool(seen and seen.reachable),
        "at": seen.at.isoformat() if seen else None,
        "fence_wished": target.desired.fence if target.desired else 0,
        "fence_seen": seen.active.fence_seen if seen and seen.active else 0,
        "code": seen.code if seen else "TARGET_UNKNOWN",
        "reason": seen.reason if seen else "the link has not looked yet",
        "hint": seen.hint if seen else "",
    }


def _signals(counts: Counts) -> Plain:
    return {
        "rows": counts.rows,
        "oldest_at": _iso(counts.oldest_at),
        "pending": counts.pending,
        "mistakes": counts.mistakes,
        "review": counts.review,
        "quarantined": counts.quarantined,
        "capped": counts.capped,
        "rejected": counts.rejected,
        "queued": counts.queued,
        "by_source": dict(counts.by_source),
        "held_sources": dict(counts.held_sources),
    }


def _disk(facts: Facts, index: Index) -> Plain:
    seen = facts.disk
    total = shutil.disk_usage(index.home.root).total
    known = {"free_bytes": seen.free_bytes, "total_bytes": total, "free_inodes": seen.free_inodes, "home_bytes": seen.home_bytes}
    return known | {"low": seen.low, "short": seen.short}


def _device(device: DeviceSeen) -> Plain:
    known = {"slot": device.slot, "name": device.name, "celsius": device.celsius, "free_bytes": device.free_bytes, "total_bytes": device.total_bytes}
    return known | {"foreign": device.foreign, "hot": device.hot, "held": device.held}


# ---------------------------------------------------------------- of one job


def percent(job: Job, progress: Mapping[str, Any]) -> int:
    """0 to 100: how far the job is; a stage with steps moves within its share."""
    if isinstance(job.facts, Ended):
        return 100
    if isinstance(job.facts, Held):
        return SHARES["verdict"][1]
    low, high = SHARES.get(stage_of(job), (0, 0))
    total = progress.get("total_steps") or 0
    return round(low + (high - low) * min(1.0, (progress.get("step") or 0) / total)) if total else low


def child_of(job: Job) -> str | None:
    """The run of the job's child, where one is named."""
    facts = job.facts
    return facts.child.run if isinstance(facts, Training | Ranking | Releasing) and facts.child else None


def stage_of(job: Job) -> str:
    """train, dev, order, gate, verdict, pack, publish, or the state's own name."""
    facts = job.facts
    if isinstance(facts, Training):
        return "train"
    if isinstance(facts, Ranking) and facts.child:
        return facts.child.purpose
    if isinstance(facts, Ranking):
        return "dev"
    if isinstance(facts, Releasing):
        return "publish" if facts.release else "pack"
    return job.state.value


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
