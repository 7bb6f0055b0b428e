"""What the daemon keeps in memory of its home, read once at start and kept in step by every applied step."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core.config import Config, sidecar_layer
from core.errors import BaseMissingError, ConfigError
from core.facts import DropSeen, EndedJob
from core.gate import TRAINED, level_of
from core.records import Accepted, Drop, DropState, Ended, Job, Releasing
from daemon.findings import shown
from rendering.ownspecs import load_specs
from store.bases import STUB_BASE, base_folder, read_base
from store.config import ConfigLoader
from store.drops import ORIGINAL, drop_folder, is_at_source, is_unchanged, read_drops, read_sidecar
from store.engines import Backend, choose_backend
from store.jobs import read_all
from store.paths import Home
from store.releases import Release, read_releases
from validation.profiles import resolve_profile

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Incident:
    """The newest thing that went wrong, with what to do about it."""

    at: datetime
    code: str
    what: str
    hint: str
    about: str = ""


@dataclass(slots=True)
class Index:
    """The home in memory. Written by `daemon.apply` only."""

    home: Home
    loader: ConfigLoader
    config: Config
    backend: Backend
    jobs: dict[str, Job] = field(default_factory=dict)  # not ended
    ended: dict[str, Job] = field(default_factory=dict)
    drops: dict[str, Drop] = field(default_factory=dict)  # settling, gating, accepted
    sidecars: dict[str, DropSeen] = field(default_factory=dict)  # the part of DropSeen that the sidecar decides
    releases: dict[str, Release] = field(default_factory=dict)
    findings: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=5))
    incident: Incident | None = None
    base_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    trained_specs: tuple[str, ...] = ()  # ids of the schemas whose rows a backend trains

    @classmethod
    def load(cls, home: Home, loader: ConfigLoader) -> "Index":
        """Read every job, drop and release. Damaged records are reported and left as they are. Raises ConfigError."""
        resolved = loader.load()
        index = cls(home=home, loader=loader, config=resolved.config, backend=choose_backend(resolved.config), warnings=resolved.warnings)
        index.trained_specs = tuple(id for id, spec in load_specs(resolved.config.specs, Path()).items() if spec.objective in TRAINED)
        own = resolved.config.validation.profiles
        for name in (resolved.config.validation.profile, *own):
            resolve_profile(name, own)  # a profile that is wrong is told now, not at the first drop
        jobs, damaged = read_all(home)
        for job in jobs:
            index.keep_job(job)
        for sentence in damaged:
            log.error("left alone: %s", sentence, extra={"action": "record_damaged"})
            index.warnings += (sentence,)
        for drop in read_drops(home):
            index.keep_drop(drop)
        index.releases = {release.id: release for release in read_releases(home)}
        index.look_for_base()
        return index

    # ---------------------------------------------------------------- jobs

    def keep_job(self, job: Job) -> None:
        """Put the job where its state says."""
        self.jobs.pop(job.id, None)
        (self.ended if isinstance(job.facts, Ended) else self.jobs)[job.id] = job

    def job(self, job: str) -> Job:
        return self.jobs.get(job) or self.ended[job]

    def ended_jobs(self) -> Mapping[str, EndedJob]:
        """What decisions need of the ended jobs."""
        return {
            job.id: EndedJob(id=job.id, adapter=job.card.adapter, drop=job.card.drop, identity=job.card.identity, state=job.state.value, facts=job.facts)
            for job in self.ended.values()
            if isinstance(job.facts, Ended)
        }

    def highest_versions(self) -> dict[str, int]:
        """Adapter -> highest version number taken or reserved."""
        highest: dict[str, int] = {}
        for release in self.releases.values():
            highest[release.adapter] = max(highest.get(release.adapter, 0), release.version)
        for job in (*self.jobs.values(), *self.ended.values()):
            version = job.facts.version if isinstance(job.facts, Releasing | Ended) else None
            if version is not None:
                highest[job.card.adapter] = max(highest.get(job.card.adapter, 0), version)
        return highest

    # ---------------------------------------------------------------- drops

    def keep_drop(self, drop: Drop) -> None:
        self.drops[drop.id] = drop
        if isinstance(drop.facts, Accepted) and drop.facts.is_proven:
            self.sidecars.pop(drop.id, None)

    def lose_drop(self, drop: str) -> None:
        self.drops.pop(drop, None)
        self.sidecars.pop(drop, None)

    @property
    def unproven(self) -> frozenset[str]:
        """Accepted drops with a check open."""
        return frozenset(drop.id for drop in self.drops.values() if isinstance(drop.facts, Accepted) and not drop.facts.is_proven)

    def drops_on_their_way(self) -> dict[str, DropSeen]:
        """Drops without a job yet, or with a check open, with what their sidecar and their folder say."""
        unproven = self.unproven
        return {drop.id: self._seen(drop) for drop in self.drops.values() if _is_on_its_way(drop) or drop.id in unproven}

    def has_drops_on_their_way(self) -> bool:
        """Whether a drop has no job yet; one with a check open alone waits for the jobs that name it."""
        return any(_is_on_its_way(drop) for drop in self.drops.values())

    def _seen(self, drop: Drop) -> DropSeen:
        folder = drop_folder(self.home, drop)
        if isinstance(drop.facts, Accepted):
            return replace(self._sidecar(drop, folder), drop=drop) if not drop.facts.is_proven else DropSeen(drop=drop)
        in_folder = _lexists(folder / ORIGINAL)
        at_source = drop.state is DropState.SETTLING and not in_folder and is_at_source(self.home, drop.claim)
        seen = self._sidecar(drop, folder) if in_folder else DropSeen(drop=drop)
        if drop.claim.problem and in_folder:
            hint = "drop a regular file whose name ends in .jsonl, by copy or rename"
            seen = replace(seen, code="F11", problem=drop.claim.problem, hint=hint)
        return replace(seen, drop=drop, at_source=at_source, in_folder=in_folder, unchanged=not in_folder or is_unchanged(self.home, drop))

    def _sidecar(self, drop: Drop, folder: Path) -> DropSeen:
        if drop.id not in self.sidecars:
            self.sidecars[drop.id] = self._read_sidecar(drop, folder)
        return self.sidecars[drop.id]

    def _read_sidecar(self, drop: Drop, folder: Path) -> DropSeen:
        try:
            values, job = sidecar_layer(read_sidecar(folder), "the sidecar")
            resolved = self.loader.load(sidecar=values)
            level = level_of(resolved, drop.claim.adapter, str(job.get("source", "")))
        except ConfigError as error:
            return DropSeen(drop=drop, code=error.code, problem=error.what, hint=error.hint)
        again, priority = bool(job.get("again", False)), int(job.get("priority", 0))
        return DropSeen(drop=drop, config=resolved.config, level=level, again=again, priority=priority)

    def resolved_for(self, drop: Drop) -> dict[str, Any]:
        """The config to freeze with a drop's job, with the origin of each value and the sidecar's notes."""
        values, job = sidecar_layer(read_sidecar(drop_folder(self.home, drop)), "the sidecar")
        return self.loader.load(sidecar=values).record() | {"job": job}

    def note_findings(self, now: datetime, drop: Drop, verdict: str, report: Mapping[str, Any]) -> None:
        """Remember what the gate found, without any text of the rows."""
        found = [shown(finding) for finding in report["findings"][:3]]
        quarantined = report.get("stats", {}).get("quarantined", 0)
        told = {"at": now.isoformat(), "drop": drop.id, "file": drop.claim.file, "verdict": verdict, "level": report.get("level"), "quarantined": quarantined}
        self.findings.append(told | {"findings": found})

    # ---------------------------------------------------------------- base

    def look_for_base(self) -> None:
        """Read the base's hash; None while it is missing."""
        if self.backend.name == "stub":
            self.base_sha256 = STUB_BASE
            return
        try:
            self.base_sha256 = read_base(base_folder(self.config)).source_sha256
        except BaseMissingError:
            self.base_sha256 = None


def _is_on_its_way(drop: Drop) -> bool:
    return not (isinstance(drop.facts, Accepted) and drop.facts.job_made)


def _lexists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
