"""One state object for everybody who asks: status.json, status.jsonl, and the snapshot for listings."""

import json
import os
import shutil
from collections import Counter
from datetime import datetime
from typing import Any

from core.facts import Facts
from core.records import Accepted, Drop, Ended, Held, Job, JobState, Queued, Ranking, Releasing, Training
from daemon.clock import monotonic_s
from daemon.index import Index
from store.durable import append_line, replace_file
from store.runs import last_progress

PROGRESS_EVERY_S = 10.0
WRITE_EVERY_S = 1.0
LOG_BYTES = 10 << 20  # status.jsonl is rotated once above this
SHARES = {"train": (0, 80), "dev": (80, 88), "order": (88, 89), "gate": (89, 95), "verdict": (95, 96), "pack": (96, 97), "publish": (97, 100)}


class Status:
    """Writes what the daemon is at. `tell` adds a transition to status.jsonl at once."""

    def __init__(self, index: Index, instance: str, started_at: datetime) -> None:
        self._index = index
        self._instance = instance
        self._started_at = started_at
        self._progress_at_s = float("-inf")
        self._written_at_s = float("-inf")
        self._dirty = True
        self._progress: dict[str, dict[str, Any]] = {}

    def tell(self, now: datetime, action: str, **fields: object) -> None:
        """Append a transition for `tail -F`."""
        self._dirty = True
        self._append({"at": now.isoformat(), "action": action, **{key: value for key, value in fields.items() if value not in (None, "")}})

    def write(self, facts: Facts, now: datetime, state: str = "running") -> None:
        """Replace status.json and the listing where something changed or a second has passed."""
        due = monotonic_s() - self._written_at_s >= WRITE_EVERY_S
        if not (self._dirty or due or state != "running"):
            return
        self._written_at_s = monotonic_s()
        self._progress = {job.id: found for job in self._index.jobs.values() if (found := self._progress_of(job))}
        status = self._status(facts, now, state)
        replace_file(self._index.home.status, json.dumps(status, indent=1, ensure_ascii=False) + "\n", durable=False)
        if self._dirty or status["current"]:
            replace_file(self._index.home.listing, json.dumps(self.listing(), ensure_ascii=False) + "\n", durable=False)
        self._dirty = False
        if status["current"] and monotonic_s() - self._progress_at_s >= PROGRESS_EVERY_S:
            self._progress_at_s = monotonic_s()
            self._append({"at": now.isoformat(), "action": "progress", **status["current"]})

    def _append(self, entry: dict[str, Any]) -> None:
        path = self._index.home.status_log
        if path.exists() and path.stat().st_size > LOG_BYTES:
            os.replace(path, path.with_name("status.jsonl.1"))
        append_line(path, json.dumps(entry, ensure_ascii=False))

    # ---------------------------------------------------------------- status.json

    def _status(self, facts: Facts, now: datetime, state: str) -> dict[str, Any]:
        index, incident = self._index, self._index.incident
        disk = shutil.disk_usage(index.home.root)
        counts = Counter(job.state.value for job in (*index.jobs.values(), *index.ended.values()))
        on_their_way = Counter(seen.drop.state.value for seen in facts.drops.values())
        return {
            "format": 1,
            "at": now.isoformat(),
            "daemon": {
                "state": state,
                "pid": os.getpid(),
                "instance": self._instance,
                "started_at": self._started_at.isoformat(),
                "home": str(index.home.root),
                "config": str(index.loader.path),
                "backend": index.backend.name,
                "backend_reason": index.backend.why,
                "base": index.config.model_path or index.config.model_name,
                "base_sha256": facts.base_sha256,
                "warnings": list(index.warnings),
            },
            "queue": {job_state.value: counts.get(job_state.value, 0) for job_state in JobState},
            "drops": {"waiting": len(facts.entries), "settling": on_their_way.get("settling", 0), "gating": on_their_way.get("gating", 0)},
            "gate": self._gate(facts),
            "current": self._current(),
            "live": self._live(facts),
            "targets": [self._target(target) for target in facts.targets],
            "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
            "findings": list(index.findings),
            "error": None
            if incident is None
            else {"at": incident.at.isoformat(), "code": incident.code, "what": incident.what, "hint": incident.hint, "about": incident.about},
        }

    def _gate(self, facts: Facts) -> dict[str, Any]:
        """What the two gate children are at, and how many accepted drops wait for their deep check."""
        at_work = {"new": facts.gate.drop, "background": facts.deep_gate.drop}
        files = {name: self._index.drops[drop].claim.file for name, drop in at_work.items() if drop in self._index.drops}
        return {name: {"drop": drop, "file": files.get(name, "")} for name, drop in at_work.items()} | {"deep_open": len(facts.unproven)}

    def _current(self) -> dict[str, Any] | None:
        """The job that a person would ask about: the one with a child at work, else the first on its way."""
        active = [job for job in self._index.jobs.values() if job.state in (JobState.TRAINING, JobState.RANKING, JobState.RELEASING)]
        if not active:
            return None
        job = min(active, key=lambda job: (_child(job) is None, job.id))
        keys = ("step", "total_steps", "loss", "dev_loss", "tokens_per_s", "supervised_share", "memory_mb", "eta_s")
        found = self._progress.get(job.id, {})
        return {
            "job": job.id,
            "adapter": job.card.adapter,
            "file": job.card.file,
            "state": job.state.value,
            "stage": stage_of(job),
            "progress": self.percent(job),
            "reason": getattr(job.facts, "reason", ""),
            **{key: found.get(key) for key in keys},
        }

    def _progress_of(self, job: Job) -> dict[str, Any] | None:
        child = _child(job)
        return last_progress(self._index.home.runs(job.id) / child) if child else None

    def _live(self, facts: Facts) -> dict[str, Any]:
        """What each adapter serves by the first target's ledger."""
        live = facts.targets[0].live if facts.targets else {}
        return {alias: {"release": release, "version": facts.releases.get(release) if release else None} for alias, release in sorted(live.items())}

    @staticmethod
    def _target(target: Any) -> dict[str, Any]:
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

    # ---------------------------------------------------------------- listing

    def percent(self, job: Job) -> int:
        """0 to 100: how far the job is; a stage with steps moves within its share."""
        if isinstance(job.facts, Ended):
            return 100
        if isinstance(job.facts, Held):
            return SHARES["verdict"][1]
        low, high = SHARES.get(stage_of(job), (0, 0))
        found = self._progress.get(job.id, {})
        total = found.get("total_steps") or 0
        return round(low + (high - low) * min(1.0, found.get("step", 0) / total)) if total else low

    def listing(self) -> dict[str, Any]:
        """What `lorad jobs list` and `lorad drop --wait` read."""
        everything = sorted((*self._index.jobs.values(), *self._index.ended.values()), key=lambda job: job.id)
        drops = [drop_row(drop) for drop in sorted(self._index.drops.values(), key=lambda drop: drop.id)[-1000:]]
        rows = [job_row(job, self.percent(job), self._progress.get(job.id, {})) for job in everything]
        unproven = self._index.unproven
        for row, job in zip(rows, everything, strict=True):
            if isinstance(job.facts, Queued) and any(ref.id in unproven for ref in job.card.drops):
                row["reason"] = row["reason"] or "waits for the deep check of its rows"
        return {"jobs": rows, "drops": drops}


def _child(job: Job) -> str | None:
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


def drop_row(drop: Drop) -> dict[str, Any]:
    """One drop in the listing: how deep it was checked, what was put aside, and how the deep check in the background stands."""
    row = {"id": drop.id, "state": drop.state.value, "inode": drop.claim.inode, "device": drop.claim.device, "job": None}
    row |= {"adapter": drop.claim.adapter, "file": drop.claim.file}
    facts = drop.facts
    if isinstance(facts, Accepted):
        deep = facts.deep.state.value if facts.deep else None
        row |= {"job": facts.job, "rows": facts.rows, "quarantined": facts.quarantined, "level": facts.level, "deep": deep}
    return row


def job_row(job: Job, progress: int, found: dict[str, Any]) -> dict[str, Any]:
    """One job as `lorad jobs list --format json` prints it."""
    facts = job.facts
    metrics = {key: found[key] for key in ("loss", "dev_loss", "tokens_per_s", "eta_s", "step", "total_steps") if found.get(key) is not None}
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
