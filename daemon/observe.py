"""Looks at the world and says what it sees, as plain values. Changes nothing but its own memory of what it read."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import IntegrityError
from core.facts import DiskSeen, Due, Entry, Facts, TargetSeen
from core.forgets import ForgetSeen
from core.iterations import IterationSeen
from core.records import Job, Kind, Ranking, Releasing, Training
from core.tasks import ChildSeen
from core.trends import Regression
from core.wire import SWITCHES, Activation, Desired
from daemon import clock
from daemon.children import Children
from daemon.inbox import Inbox
from daemon.index import Index
from daemon.intake import Gates
from daemon.watcher import FileWatcher
from store.commands import read_commands
from store.paths import Home
from store.runs import candidates_of, read_exit, resume_point
from store.targets import desired_of, ledger_of, live_by_ledger, mirror, observed_of

log = logging.getLogger(__name__)

DAY = timedelta(days=1)  # of inbox.quota_mb


@dataclass(slots=True)
class Fresh:
    """Reads again only when one of the files has changed."""

    kept: dict[str, tuple[tuple[tuple[int, int], ...], Any]] = field(default_factory=dict)

    def get(self, key: str, paths: list[Path], read: Callable[[], Any]) -> Any:
        """What `read` gives, called again only where one of `paths` has changed. Raises what `read` raises."""
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

    def __init__(self, index: Index, instance: str, children: Children, gates: Gates, watcher: FileWatcher) -> None:
        self._index = index
        self._instance = instance
        self._children = children
        self._gates = gates
        self._watcher = watcher
        self._inbox = Inbox(index.home.inbox)
        self._fresh = Fresh()
        self.stopping = threading.Event()
        self.look_at_disk: Callable[[], DiskSeen] = DiskSeen  # a disk with room, until the daemon names its own
        self.look_at_performance: Callable[[], tuple[Regression, ...]] = tuple  # nothing got worse, until then

        self.look_at_forgets: Callable[[], tuple[ForgetSeen, ...]] = tuple  # none, until the daemon names its own
        self.look_at_iterations: Callable[[], tuple[IterationSeen, ...]] = tuple

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
            disk=self.look_at_disk(),
            watch=self._watcher.seen,
            entries=self._entries(),
            num_entries=self._inbox.num_entries,
            taken_bytes=index.shelf.bytes_since(clock.now() - DAY) if index.config.inbox.quota_mb else {},
            drops=index.drops_on_their_way(),
            set_aside=index.shelf.set_aside,
            unproven=index.unproven,
            unproven_of=index.shelf.unproven_of(),
            gate=self._gates.new.look(),
            deep_gate=self._gates.background.look(),
            trained_specs=index.trained_specs,
            jobs=index.jobs,
            ended=index.views.ended,
            views=index.views,
            children={job.id: seen for job in index.views.active.values() if (seen := self._child(job)) is not None},
            free_slots=self._children.free_slots(),
            refused=self._children.was_refused,
            paused=index.pause.words if index.pause else "",
            closed=index.schedules.closed(),
            due=tuple(self._with_drop(due) for due in index.schedules.look()),
            devices=self._children.devices(index.config),
            need_bytes=self._children.need_bytes(index.config),
            targets=self.targets(),
            commands=tuple(read_commands(index.home)),
            forgets=self.look_at_forgets(),
            iterations=self.look_at_iterations(),
            forgotten=index.forgotten,
            versions=self._versions(),
            releases={release.id: release.version for release in index.releases.values()},
            regressions=self.look_at_performance(),
        )

    def _entries(self) -> tuple[Entry, ...]:
        noticed = self._watcher.take(self._index.config.inbox.watch)
        entries = self._inbox.scan(noticed.renamed, self._index.config.validation.settle_s, is_due=noticed.is_due)
        self._watcher.follow(self._inbox.folders)
        return entries

    def _with_drop(self, due: Due) -> Due:
        """A training that is due, with the drop that its job will be of."""
        if due.does != "train":
            return due
        shelf = self._index.shelf
        newest = next((drop for drop in reversed(shelf.accepted_of(due.adapter)) if drop not in shelf.set_aside), "")
        return replace(due, drop=newest)

    def _child(self, job: Job) -> ChildSeen | None:
        facts = job.facts
        ref = facts.child if isinstance(facts, Training | Ranking | Releasing) else None
        if ref is None:
            return None
        seen = self._children.look(job.id, ref)
        if seen.alive:
            return seen
        home = self._index.home
        seen = replace(seen, note=read_exit(home.runs(job.id) / ref.run))
        if ref.kind is not Kind.TRAIN:
            return seen
        return replace(seen, checkpoint=resume_point(home, job.id), candidates=candidates_of(home, job.id))

    def targets(self) -> tuple[TargetSeen, ...]:
        """The targets in the order in which they are asked: canaries first, else as configured."""
        ordered = sorted(self._index.config.deploy.targets, key=lambda target: not target.canary)
        return tuple(self._target(target.name) for target in ordered)

    def _versions(self) -> dict[str, int]:
        """Adapter -> highest version taken; also one that only a box knows, because this home came back from a backup."""
        highest = self._index.highest_versions()
        for target in self._index.config.deploy.targets:
            path = mirror(self._index.home, target.name) / "activations.jsonl"
            seen: dict[str, int] = self._fresh.get(f"{target.name}/versions", [path], partial(_highest_versions, self.ledger(target.name)))
            for adapter, version in seen.items():
                highest[adapter] = max(highest.get(adapter, 0), version)
        return highest

    def ledger(self, name: str) -> list[Activation]:
        """The mirror of a target's ledger."""
        home = self._index.home
        ledger: list[Activation] = self._fresh.get(f"{name}/ledger", [mirror(home, name) / "activations.jsonl"], lambda: ledger_of(home, name))
        return ledger

    def _target(self, name: str) -> TargetSeen:
        home = self._index.home
        folder, out = home.target(name), mirror(home, name)
        live, was_live, refused = self._fresh.get(f"{name}/lives", [out / "activations.jsonl"], lambda: _lives(self.ledger(name)))
        return TargetSeen(
            name=name,
            desired=self._fresh.get(f"{name}/desired", [folder / "desired.json"], lambda: _desired(home, name)),
            observed=self._fresh.get(f"{name}/observed", [folder / "observed.json", out / "active.json"], lambda: observed_of(home, name)),
            live=live,
            was_live=was_live,
            refused=refused,
        )


def _desired(home: Home, name: str) -> Desired | None:
    """The wish; none where the file is damaged: nothing is wished on top of it, and who tries is told why."""
    try:
        return desired_of(home, name)
    except IntegrityError as error:
        log.error("%s", error.what, extra={"action": "record_damaged"})
        return None


def _lives(ledger: list[Activation]) -> tuple[dict[str, str | None], frozenset[str], frozenset[str]]:
    """(alias -> what is live, all that ever was, all that was refused or rolled back) by a ledger: worked out once for each change, as it grows for years."""
    was_live = frozenset(line.release for line in ledger if line.event in SWITCHES and line.release is not None)
    refused = {line.release for line in ledger if line.event == "refused" and line.code != "INCUMBENT_CHANGED"}
    refused |= {line.previous for line in ledger if line.event == "rolled_back"}
    return live_by_ledger(ledger), was_live, frozenset(release for release in refused if release is not None)


def _highest_versions(ledger: list[Activation]) -> dict[str, int]:
    highest: dict[str, int] = {}
    for line in ledger:
        highest[line.alias] = max(highest.get(line.alias, 0), line.version or 0)
    return highest
