"""Looks at the world and says what it sees, as plain values. Changes nothing but its own memory of what it read."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.facts import DiskSeen, Facts, TargetSeen
from core.records import Accepted, Job, Kind, Ranking, Releasing, Training
from core.tasks import ChildSeen
from core.wire import Activation
from daemon.children import Children
from daemon.inbox import Inbox
from daemon.index import Index
from daemon.intake import Gates
from daemon.watcher import Watcher
from store.commands import read_commands
from store.runs import candidates_of, read_exit, resume_point
from store.targets import desired_of, ledger_of, live_by_ledger, mirror, observed_of


@dataclass(slots=True)
class Fresh:
    """Reads again only when one of the files has changed."""

    kept: dict[str, tuple[tuple[tuple[int, int], ...], Any]] = field(default_factory=dict)

    def get(self, key: str, paths: list[Path], read: Callable[[], Any]) -> Any:
        marks = tuple(_mark(path) for path in paths)
        known = self.kept.get(key)
        if known is None or known[0] != marks:
            known = self.kept[key] = (marks, read())
        return known[1]


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


class Observer:
    """Builds the facts of a tick."""

    def __init__(self, index: Index, instance: str, children: Children, gates: Gates, watcher: Watcher) -> None:
        self._index = index
        self._instance = instance
        self._children = children
        self._gates = gates
        self._watcher = watcher
        self._inbox = Inbox(index.home.inbox)
        self._fresh = Fresh()
        self.stopping = threading.Event()

    def look(self) -> Facts:
        """What is there now."""
        index = self._index
        index.look_for_base()
        return Facts(
            instance=self._instance,
            config=index.config,
            backend=index.backend.name,
            base_sha256=index.base_sha256,
            stopping=self.stopping.is_set(),
            disk=DiskSeen(free_bytes=shutil.disk_usage(index.home.root).free),
            entries=self._inbox.scan(self._watcher.take_renamed(), index.config.validation.settle_s),
            drops=index.drops_on_their_way(),
            set_aside=frozenset(drop.id for drop in index.drops.values() if isinstance(drop.facts, Accepted) and drop.facts.set_aside),
            unproven=index.unproven,
            gate=self._gates.new.look(),
            deep_gate=self._gates.background.look(),
            trained_specs=index.trained_specs,
            jobs=dict(index.jobs),
            ended=index.ended_jobs(),
            children={job.id: seen for job in index.jobs.values() if (seen := self._child(job)) is not None},
            free_slots=self._children.free_slots(),
            targets=self.targets(),
            commands=tuple(read_commands(index.home)),
            versions=index.highest_versions(),
            releases={release.id: release.version for release in index.releases.values()},
        )

    def _child(self, job: Job) -> ChildSeen | None:
        facts = job.facts
        ref = facts.child if isinstance(facts, Training | Ranking | Releasing) else None
        if ref is None:
            return None
        if self._children.is_alive(job.id, ref.run):
            return ChildSeen(ref=ref, alive=True)
        runs = self._index.home.runs(job.id)
        note = read_exit(runs / ref.run)
        if ref.kind is not Kind.TRAIN:
            return ChildSeen(ref=ref, alive=False, note=note)
        home = self._index.home
        return ChildSeen(ref=ref, alive=False, note=note, checkpoint=resume_point(home, job.id), candidates=candidates_of(home, job.id))

    def targets(self) -> tuple[TargetSeen, ...]:
        """The targets in the order in which they are asked: canaries first, else as configured."""
        ordered = sorted(self._index.config.deploy.targets, key=lambda target: not target.canary)
        return tuple(self._target(target.name) for target in ordered)

    def ledger(self, name: str) -> list[Activation]:
        """The mirror of a target's ledger."""
        home = self._index.home
        ledger: list[Activation] = self._fresh.get(f"{name}/ledger", [mirror(home, name) / "activations.jsonl"], lambda: ledger_of(home, name))
        return ledger

    def _target(self, name: str) -> TargetSeen:
        home = self._index.home
        folder, out = home.target(name), mirror(home, name)
        ledger = self.ledger(name)
        return TargetSeen(
            name=name,
            desired=self._fresh.get(f"{name}/desired", [folder / "desired.json"], lambda: desired_of(home, name)),
            observed=self._fresh.get(f"{name}/observed", [folder / "observed.json", out / "active.json"], lambda: observed_of(home, name)),
            live=live_by_ledger(ledger),
            was_live=frozenset(line.release for line in ledger if line.event in ("live", "restored") and line.release is not None),
        )
