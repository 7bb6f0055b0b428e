"""What the daemon keeps in memory of its home, read once at start and kept in step by every applied step."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core.abilities import require_able
from core.config import Config, Resolved, sidecar_layer
from core.errors import BaseMissingError, ConfigError, LoradError
from core.facts import DropSeen
from core.forgets import Tombstone
from core.gate import TRAINED, level_of
from core.jobviews import JobViews
from core.queue import QueuePause
from core.records import Accepted, Drop, DropState, Ended, Job
from core.servable import require_servable
from core.waiting import Waiting
from daemon import resting
from daemon.findings import shown
from daemon.ownership import Objection, objection
from daemon.pages import Pages
from daemon.schedules import Schedules, check_crons
from daemon.shelf import Shelf
from rendering.ownspecs import load_specs
from rendering.profiles import check_profiles, profile_of
from rendering.suites import check_suites
from store.bases import STUB_BASE, base_folder, read_base
from store.config import ConfigLoader
from store.drops import ORIGINAL, SIDECAR, drop_folder, is_at_source, is_unchanged, read_drops, read_sidecar
from store.engines import Backend, choose_backend
from store.forgets import tombs
from store.jobs import jobs_with_marks
from store.paths import Home
from store.pauses import read_pause
from store.releases import Release, gone_versions, read_releases
from validation.profiles import resolve_profile

log = logging.getLogger(__name__)

RECALL_AFTER = 1000  # changed jobs and drops: below, reading them at a start takes a tenth of a second


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
    jobs: Pages[Job] = field(default_factory=resting.jobs)  # not ended
    ended: Pages[Job] = field(default_factory=resting.ended_jobs)
    views: JobViews = field(init=False)  # the same jobs by what decisions ask of them
    pause: QueuePause | None = None  # of the whole queue
    schedules: Schedules = field(init=False)
    changes: int = 0  # of jobs and drops since `store.recall` last remembered them
    drops: Pages[Drop] = field(default_factory=resting.drops)  # settling, gating, accepted
    shelf: Shelf = field(init=False)  # the same drops by what is asked of them
    sidecars: dict[str, DropSeen] = field(default_factory=dict)  # the part of DropSeen that the sidecar decides
    releases: dict[str, Release] = field(default_factory=dict)
    forgotten: frozenset[str] = frozenset()  # SHA-256 of drops that were forgotten
    gone: dict[str, int] = field(default_factory=dict)  # adapter -> highest version of which a tombstone is left
    findings: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=5))
    incident: Incident | None = None
    base_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    _plain: tuple[Config, Resolved, dict[str, Any]] | None = None  # what a drop without a sidecar comes to under a config
    damaged: tuple[str, ...] = ()  # records that were left alone, in words
    trained_specs: tuple[str, ...] = ()  # ids of the schemas whose rows a backend trains
    hear_job: Callable[[Job | None, Job], None] = field(default=lambda before, after: None)  # told of every change: before, after
    hear_drop: Callable[[Drop | None, Drop | None], None] = field(default=lambda before, after: None)

    def __post_init__(self) -> None:
        self.views = JobViews(queued=Waiting(self.jobs.__getitem__))
        self.shelf = Shelf(self.drops)
        self.schedules = Schedules(self.home)

    @classmethod
    def load(cls, home: Home, loader: ConfigLoader) -> "Index":
        """Read every job, drop and release. Damaged records are reported and left as they are. Raises ConfigError."""
        resolved = loader.load()
        index = cls(home=home, loader=loader, config=resolved.config, backend=choose_backend(resolved.config))
        index.follow(resolved)
        for _, _, found in jobs_with_marks(home):
            if isinstance(found, Job):
                index.keep_job(found)
                continue
            log.error("left alone: %s", found, extra={"action": "record_damaged"})
            index.damaged += (found,)
            index.warnings += (found,)
        index.pause = read_pause(home)
        for drop in read_drops(home):
            index.keep_drop(drop)
        for stone in tombs(home):
            index.bury(stone)
        index.releases = {release.id: release for release in read_releases(home)}
        index.gone = gone_versions(home)
        index.look_for_base()
        return index

    def follow(self, resolved: Resolved) -> None:
        """Go by this config from now on. Jobs go on by theirs, a drop at the gate by the one it came in with.

        Raises LoradError where it names a schema or a profile that is wrong, or what no server takes; nothing has changed then.
        """
        specs = load_specs(resolved.config.specs, Path())
        own = resolved.config.validation.profiles
        for name in (resolved.config.validation.profile, *own):
            resolve_profile(name, own)  # a profile that is wrong is told now, not at the first drop
        check_profiles(resolved.config)
        ranking = resolved.config.ranking
        if ranking.metric or ranking.profile or ranking.targets:
            from ranking.metrics.targets import check_metrics  # numpy and other packages' code: only where something is named

            check_metrics(resolved.config)
        check_suites(resolved.config.ranking.suites, self.home.suites)
        require_servable(resolved.config)
        check_crons(resolved.config)
        self.schedules.follow(resolved.config.schedule)
        self.trained_specs = tuple(id for id, spec in specs.items() if spec.objective in TRAINED)
        self.config = resolved.config
        self.warnings = (*resolved.warnings, *self.damaged)
        for drop in [drop for drop in self.sidecars if self.drops[drop].state is DropState.SETTLING]:
            del self.sidecars[drop]

    # ---------------------------------------------------------------- jobs

    def keep_job(self, job: Job) -> None:
        """Put the job where its state says."""
        before = self.jobs.pop(job.id, None)
        (self.ended if isinstance(job.facts, Ended) else self.jobs)[job.id] = job
        self.views.put(job)
        self.hear_job(before, job)
        self.changes += 1

    def wants_recall(self) -> bool:
        """Whether enough has changed for the next start to be slow; each answer of yes counts from anew."""
        if self.changes < max(RECALL_AFTER, (len(self.jobs) + len(self.ended) + len(self.drops)) // 4):
            return False
        self.changes = 0
        return True

    def job(self, job: str) -> Job:
        """The job of this id, ended or not. Raises KeyError."""
        return self.jobs.get(job) or self.ended[job]

    def highest_versions(self) -> dict[str, int]:
        """Adapter -> highest version number taken or reserved."""
        highest = dict(self.views.versions)
        for release in self.releases.values():
            highest[release.adapter] = max(highest.get(release.adapter, 0), release.version)
        for adapter, version in self.gone.items():
            highest[adapter] = max(highest.get(adapter, 0), version)
        return highest

    # ---------------------------------------------------------------- drops

    def keep_drop(self, drop: Drop) -> None:
        """Take over a new drop, or another state or other facts of a known one; whoever listens is told."""
        self.hear_drop(self.drops.get(drop.id), drop)
        self.drops[drop.id] = drop
        self.shelf.put(drop)
        self.changes += 1
        if isinstance(drop.facts, Accepted) and drop.facts.is_proven:
            self.sidecars.pop(drop.id, None)

    def lose_drop(self, drop: str) -> None:
        """Forget a drop that has left home's drops; whoever listens is told. A repeat changes nothing."""
        if (lost := self.drops.pop(drop, None)) is not None:
            self.shelf.take(lost)
            self.hear_drop(lost, None)
        self.sidecars.pop(drop, None)

    def bury(self, stone: Tombstone) -> None:
        """Remember that a drop was forgotten."""
        self.forgotten |= {stone.sha256}
        self.shelf.bury(stone.adapter, stone.drop)

    @property
    def unproven(self) -> frozenset[str]:
        """Accepted drops with a check open."""
        return self.shelf.unproven

    def drops_on_their_way(self) -> dict[str, DropSeen]:
        """Drops without a job yet, or with a check open, with what their sidecar and their folder say."""
        return {drop: self._seen(self.drops[drop]) for drop in sorted(self.shelf.jobless | self.shelf.unproven)}

    def has_drops_on_their_way(self) -> bool:
        """Whether a drop has no job yet; one with a check open alone waits for the jobs that name it."""
        return bool(self.shelf.jobless)

    def _seen(self, drop: Drop) -> DropSeen:
        if isinstance(drop.facts, Accepted):
            return DropSeen(drop=drop) if drop.facts.is_proven else self._unproven_seen(drop)
        folder = drop_folder(self.home, drop)
        in_folder = _lexists(folder / ORIGINAL)
        at_source = drop.state is DropState.SETTLING and not in_folder and is_at_source(self.home, drop.claim)
        seen = self._sidecar(drop, folder) if in_folder else DropSeen(drop=drop)
        if drop.claim.problem and in_folder:
            hint = "drop a regular file whose name ends in .jsonl, by copy or rename"
            seen = replace(seen, code="F11", problem=drop.claim.problem, hint=hint)
        return replace(seen, drop=drop, at_source=at_source, in_folder=in_folder, unchanged=not in_folder or is_unchanged(self.home, drop))

    def _unproven_seen(self, drop: Drop) -> DropSeen:
        """An accepted drop with a check open. There may be many: nothing is made anew while it stays as it is."""
        seen = self.sidecars.get(drop.id)
        if seen is None or seen.drop is not drop:
            seen = self.sidecars[drop.id] = replace(self._sidecar(drop, drop_folder(self.home, drop)), drop=drop)
        return seen

    def _sidecar(self, drop: Drop, folder: Path) -> DropSeen:
        if drop.id not in self.sidecars:
            self.sidecars[drop.id] = self._read_sidecar(drop, folder)
        return self.sidecars[drop.id]

    def _read_sidecar(self, drop: Drop, folder: Path) -> DropSeen:
        if found := self._objection(drop, folder):
            return DropSeen(drop=drop, code=found.code, problem=found.problem, hint=found.hint)
        try:
            values, job = sidecar_layer(read_sidecar(folder), "the sidecar")
            resolved = self._resolve(values)[0]
            if any(key.startswith("profile.") for key in values):
                profile_of(resolved.config.profile, resolved.config.profiles)
            require_able(resolved.config, self.backend.name)
            require_servable(resolved.config)
            level = level_of(resolved, drop.claim.adapter, str(job.get("source", "")))
        except ConfigError as error:
            return DropSeen(drop=drop, code=error.code, problem=error.what, hint=error.hint)
        again, priority = bool(job.get("again", False)), int(job.get("priority", 0))
        return DropSeen(drop=drop, config=resolved.config, level=level, again=again, priority=priority)

    def _objection(self, drop: Drop, folder: Path) -> Objection | None:
        """What speaks against taking the drop at all: whose it is, and how much."""
        if isinstance(drop.facts, Accepted):
            return None
        persona, rules = drop.claim.adapter.split("/")[0], self.config.inbox
        quota, held = rules.quota_mb << 20, max(drop.claim.size_bytes, drop.claim.total_bytes)
        if quota and held > quota:
            what = f"{drop.claim.file!r} has {held:,} bytes; a persona may drop {quota:,} in 24 hours (inbox.quota_mb)"
            return Objection("QUOTA", what, "split the file, or have inbox.quota_mb raised")
        files = [path for path in (folder / ORIGINAL, folder / SIDECAR) if _lexists(path)]
        return objection(files, persona, rules.users.get(persona))

    def resolved_for(self, drop: Drop) -> dict[str, Any]:
        """The config to freeze with a drop's job, with the origin of each value and the sidecar's notes."""
        values, job = sidecar_layer(read_sidecar(drop_folder(self.home, drop)), "the sidecar")
        return self._resolve(values)[1] | {"job": job}

    def _resolve(self, values: Mapping[str, Any]) -> tuple[Resolved, dict[str, Any]]:
        """The config under a sidecar's values, and its record. Without any it is the same for all drops, and made once."""
        if values:
            resolved = self.loader.load(sidecar=values)
            return resolved, resolved.record()
        if self._plain is None or self._plain[0] is not self.config:
            resolved = self.loader.load()
            self._plain = (self.config, resolved, resolved.record())
        return self._plain[1:]

    def note_findings(self, now: datetime, drop: Drop, verdict: str, report: Mapping[str, Any]) -> None:
        """Remember what the gate found, without any text of the rows."""
        found = [shown(finding) for finding in report["findings"][:3]]
        quarantined = report.get("stats", {}).get("quarantined", 0)
        told = {"at": now.isoformat(), "drop": drop.id, "file": drop.claim.file, "verdict": verdict, "level": report.get("level"), "quarantined": quarantined}
        self.findings.append(told | {"findings": found})

    # ---------------------------------------------------------------- base

    def look_for_base(self) -> None:
        """Read the base's hash; None while it is missing, or cannot be read."""
        if self.backend.name == "stub":
            self.base_sha256 = STUB_BASE
            return
        try:
            self.base_sha256 = read_base(base_folder(self.config)).source_sha256
        except BaseMissingError:
            self.base_sha256 = None
        except (LoradError, OSError) as error:  # damaged, or being replaced, or on a disk that is away: drops and jobs wait
            if self.base_sha256 is not None:
                log.error("the base cannot be read: %s", error, extra={"action": "base_unreadable"})
            self.base_sha256 = None


def _lexists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
