"""Garbage collection: look at home, decide what may go, and (where this process is the one writer of home) let it go."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from core.needs import gigabytes
from core.retention import Going, Plan, plan, pressure_of
from core.sections import RetentionConfig
from store.child import clock
from store.codec import parse, to_plain
from store.durable import replace_file
from store.jobs import read_all
from store.paths import Home
from store.references import references_of
from store.trash import empty_trash, logs_of, throw_away
from store.usage import Usage, count, items


@dataclass(frozen=True, slots=True)
class Survey:
    """What home holds, and what may go of it."""

    usage: Usage
    plan: Plan


def survey(home: Home, retention: RetentionConfig, targets: Sequence[str], now: datetime) -> Survey:
    """Look at all of home and its records, and decide. Reads only; takes seconds where there is much."""
    jobs, damaged = read_all(home) if (home.root / "jobs").is_dir() else ([], [])
    usage = count(home)
    pressure = pressure_of(retention, free_of(home.root), usage.bytes)
    found = items(home, {job.id: job.card.adapter for job in jobs})
    return Survey(usage, plan(found, references_of(home, jobs, targets, damaged), retention, pressure, now))


def free_of(folder: Path) -> tuple[int, int | None]:
    """Free (bytes, inodes) for this user on the disk of `folder`; None where the file system counts no inodes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def chore_survey(home: Home, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The chore "statistics": bytes and inodes of home by folder; with `spec["plan"]`, also what may go now."""
    if not spec.get("plan"):
        return {"usage": to_plain(count(home))}
    found = survey(home, RetentionConfig.model_validate(spec["retention"]), spec["targets"], clock())
    return {"usage": to_plain(found.usage), "plan": to_plain(found.plan)}


def usage_of(result: Mapping[str, Any]) -> Usage:
    """What `chore_survey` said about bytes and inodes."""
    return parse(Usage, json.dumps(result["usage"]))


def plan_of(result: Mapping[str, Any]) -> Plan:
    """What `chore_survey` said may go."""
    return parse(Plan, json.dumps(result["plan"]))


def collect(home: Home, retention: RetentionConfig, targets: Sequence[str], now: datetime) -> "Report":
    """Look, decide, delete. Only for the process that holds home's lock. Raises OSError."""
    found = survey(home, retention, targets, now)
    gone = [one for one in found.plan.going if throw_away(home, one.item, one.why, now.isoformat())]
    empty_trash(home, {"logs": logs_of(one.item for one in gone)})
    report = report_of(gone, found.plan, now, "lorad gc")
    write_report(home, report)
    return report


# ---------------------------------------------------------------- what people are told


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a gc did, or would do."""

    at: str
    asked_by: str
    bytes: int
    num_items: int
    parts: Mapping[str, int]  # what -> how many of it
    missing_bytes: int = 0
    missing_inodes: int = 0
    refused: str = ""

    def sentence(self, verb: str = "freed") -> str:
        """In one sentence."""
        if self.refused:
            return f"nothing was deleted: {self.refused}"
        what = ", ".join(f"{number} {part}" for part, number in self.parts.items()) or "nothing may go"
        lacks = f"; {gigabytes(self.missing_bytes)} more are needed, and all that is left is in use or kept" if self.missing_bytes else ""
        lacks += f"; {self.missing_inodes} more inodes are needed" if self.missing_inodes else ""
        return f"{verb} {gigabytes(self.bytes)}: {what}{lacks}"


def report_of(gone: Sequence[Going], found: Plan, now: datetime, asked_by: str) -> Report:
    """The report on what went of a plan."""
    parts: dict[str, int] = {}
    for one in gone:
        parts[one.item.part.value] = parts.get(one.item.part.value, 0) + 1
    return Report(
        at=now.isoformat(),
        asked_by=asked_by,
        bytes=sum(one.item.bytes for one in gone),
        num_items=len(gone),
        parts=parts,
        missing_bytes=found.missing_bytes,
        missing_inodes=found.missing_inodes,
        refused=found.refused,
    )


def write_report(home: Home, report: Report) -> None:
    """Keep the last report for whoever asks later."""
    replace_file(home.gc_report, json.dumps(to_plain(report), ensure_ascii=False) + "\n", durable=False)
