"""The disk that holds home: what is free, when training must wait, the reserve, and garbage collection while the daemon runs.

`look` says what is seen and costs one system call. `tend`, once a tick, acts: it gives the reserve up or has it made again,
asks for a survey of home when it is time, and renames what may go into the trash, a few things a tick. Whatever takes
longer (the survey, the deletion) is a chore.
"""

import errno
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from core.commands import Answer, Command
from core.errors import StateError
from core.facts import DiskSeen
from core.needs import adapter_bytes, gigabytes, training_needs, waiting_words
from core.retention import Going, Part, Plan, room_again
from daemon import clock
from daemon.clock import monotonic_s
from daemon.index import Incident, Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.bases import described_base
from store.collection import free_of, plan_of, report_of, usage_of, write_report
from store.commands import put_answer
from store.durable import FULL
from store.journal import write_entry
from store.paths import Home
from store.references import references_of
from store.reserve import INODES, ROOM, give_up, has_reserve
from store.rotation import has_plain_parts
from store.trash import logs_of, throw_away
from store.usage import Usage

log = logging.getLogger(__name__)

COUNT_EVERY_S = 3600.0  # bytes of home
COUNT_FIRST_S = 60.0  # after the start, which has better things to do
COLLECT_FIRST_S = 600.0
COUNT_LOW_EVERY_S = 60.0  # while the disk is low: somebody looks at the numbers
COLLECT_EVERY_S = 24 * 3600.0
COLLECT_LOW_EVERY_S = 300.0  # while the disk stays low: jobs end and things become free to go
MOVES_A_TICK = 100  # renames into the trash; so many take a few milliseconds
NEW_HOME_BYTES = 64 << 20  # a new home is begun only above this
OLD_HOME_BYTES = 1 << 20  # one that exists is taken up above this: it can say what is wrong, and gc can make room
OLD_HOME_INODES = 50
BROKEN = frozenset({errno.EIO, errno.EROFS})  # what was written may be lost whatever a second try says
DISK_BROKEN = "DISK_BROKEN"
CODES = frozenset({"DISK_LOW", "INODES_LOW", "DISK_FULL"})


def check_space(home: Home) -> None:
    """Raises StateError where the disk has no room for state. An existing home gives its reserve up first."""
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    needed, needed_inodes = (OLD_HOME_BYTES, OLD_HOME_INODES) if (home.root / "format.json").exists() else (NEW_HOME_BYTES, OLD_HOME_INODES)
    free_bytes, free_inodes = free_of(folder)
    if (free_bytes < needed or (free_inodes is not None and free_inodes < needed_inodes)) and give_up(home):
        free_bytes, free_inodes = free_of(folder)
    hint = "free some space or name another home in the config"
    if free_bytes < needed:
        what = f"{str(home.root)!r} has {free_bytes >> 20} MiB free; lorad needs {needed >> 20} MiB to keep its state"
        raise StateError(what, hint=f"{hint}; `lorad gc --dry-run` shows what of home may go", code="DISK_FULL")
    if free_inodes is not None and free_inodes < needed_inodes:
        what = f"the disk of {str(home.root)!r} has {free_inodes} inodes free; lorad needs {needed_inodes} to keep its state"
        raise StateError(what, hint="delete small files on it, or name another home in the config", code="INODES_LOW")


def raise_if_broken(error: BaseException) -> None:
    """Raises StateError DISK_BROKEN for an error after which nothing that was written can be counted on. A write that is tried
    again may succeed and yet be lost: only what a new start reads from the disk is true."""
    if isinstance(error, OSError) and error.errno in BROKEN:
        where = f": {error.filename}" if error.filename else ""
        raise StateError(
            f"{os.strerror(error.errno)}{where}: the disk of home does not keep what is written",
            hint="look at the disk (dmesg, mount, smartctl), then start the daemon again: it goes on from what is there; serving goes on meanwhile",
            code=DISK_BROKEN,
        ) from error


@dataclass(slots=True)
class _Collection:
    """A gc that is under way."""

    why: str
    commands: list[Command] = field(default_factory=list)
    plan: Plan | None = None  # None: the survey is not back yet
    waiting: deque[Going] = field(default_factory=deque)
    gone: list[Going] = field(default_factory=list)
    is_deleting: bool = False


class Disk:
    """Owns the reserve, the trash, and what lorad knows about its disk. `tell` is called with an action and its words."""

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None]) -> None:
        self._index, self._home, self._worker, self._tell = index, index.home, worker, tell
        self.usage: Usage | None = None  # by the last count
        self._is_low = {"bytes": False, "inodes": False}
        self._was_low = ""
        self._counted_s = monotonic_s() - COUNT_EVERY_S + COUNT_FIRST_S
        self._collected_s = monotonic_s() - COLLECT_EVERY_S + COLLECT_FIRST_S
        self._collection: _Collection | None = None
        self._needs: tuple[object, int] | None = None  # what it was worked out from, bytes
        worker.hear("statistics", self._on_counted)
        worker.hear("trash", self._on_deleted)
        if self._home.trash.is_dir() and any(self._home.trash.iterdir()):
            worker.submit(Chore(kind="trash", key="trash"))  # what an earlier daemon did not get to

    # ---------------------------------------------------------------- what is seen

    def look(self) -> DiskSeen:
        """The disk now."""
        free_bytes, free_inodes = free_of(self._home.root)
        limits = self._index.config.retention
        low = self._low(free_bytes, free_inodes)
        short = "" if low else waiting_words(self._training_bytes(), free_bytes, limits.min_free_mb << 20)
        home_bytes = self.usage.bytes if self.usage else 0
        return DiskSeen(free_bytes=free_bytes, free_inodes=free_inodes, home_bytes=home_bytes, low=low, short=short)

    def _low(self, free_bytes: int, free_inodes: int | None) -> str:
        """Why training waits. Once under a floor, it waits until there is a little more than that."""
        limits = self._index.config.retention
        floor, again = limits.min_free_mb << 20, room_again(limits)
        is_low, words = self._is_low, []
        is_low["bytes"] = free_bytes < (again[0] if is_low["bytes"] else floor)
        is_low["inodes"] = free_inodes is not None and free_inodes < (again[1] if is_low["inodes"] else limits.min_free_inodes)
        if is_low["bytes"]:
            words.append(f"{free_bytes >> 20} MB free of the {limits.min_free_mb} MB floor (retention.min_free_mb)")
        if is_low["inodes"]:
            words.append(f"{free_inodes} inodes free of the floor of {limits.min_free_inodes} (retention.min_free_inodes)")
        return " and ".join(words)

    def _training_bytes(self) -> int:
        """What a training of the present config is expected to write; a sidecar that asks for more is not looked at."""
        config, index = self._index.config, self._index
        key = (index.base_sha256, config.lora.r, config.training.checkpoints)
        if self._needs is None or self._needs[0] != key:
            is_there = index.backend.name != "stub" and index.base_sha256 is not None
            shape, _ = described_base(config) if is_there else ({}, 0)
            self._needs = (key, training_needs(adapter_bytes(shape, config.lora.r), config.training.checkpoints))
        return self._needs[1]

    # ---------------------------------------------------------------- once a tick

    def tend(self, seen: DiskSeen, now: datetime) -> None:
        """Keep the reserve, tell of a low disk, ask for counts and collections, move what may go. Raises OSError."""
        self._keep_reserve(seen)
        self._tell_low(seen, now)
        since_count, since_collection = monotonic_s() - self._counted_s, monotonic_s() - self._collected_s
        over = self._is_over_budget()
        if since_collection > (COLLECT_LOW_EVERY_S if seen.low or over else COLLECT_EVERY_S) and self.usage is not None:
            self.collect("the disk is low" if seen.low else "home is over its budget" if over else "once a day")
        elif since_count > (COUNT_LOW_EVERY_S if seen.low else COUNT_EVERY_S):
            self._counted_s = monotonic_s()
            self._worker.submit(Chore(kind="statistics", key="count"))
            if has_plain_parts(self._home.journal) or has_plain_parts(self._home.status_log):
                self._worker.submit(Chore(kind="compress", key="compress"))
        self._go_on(now)

    @property
    def is_busy(self) -> bool:
        """Whether things are on their way into the trash: the next tick should come soon."""
        return self._collection is not None and bool(self._collection.waiting)

    def _is_over_budget(self) -> bool:
        budget = self._index.config.retention.budget_gb
        return bool(budget and self.usage and self.usage.bytes > budget * 1e9)

    def _keep_reserve(self, seen: DiskSeen) -> None:
        size = self._index.config.retention.reserve_mb << 20
        if not size:
            return
        inodes = INODES * ROOM if seen.free_inodes is None else seen.free_inodes
        if seen.free_bytes < size or inodes < INODES:
            self.give_up("little room is left")
        elif seen.free_bytes >= size * ROOM and inodes >= INODES * ROOM and not has_reserve(self._home, size) and not self._worker.is_busy("reserve"):
            self._worker.submit(Chore(kind="reserve", key="reserve", spec={"bytes": size}))

    def failed(self, error: BaseException) -> None:
        """A write of the daemon failed: on a full disk the reserve is given up at once. Raises StateError for a broken disk."""
        raise_if_broken(error)
        if isinstance(error, StateError) and error.code == DISK_BROKEN:
            raise error
        if isinstance(error, OSError) and error.errno in FULL:
            self.give_up("a write found the disk full")

    def give_up(self, why: str) -> None:
        """Free the reserve, so that state can be written. Nothing happens where there is none."""
        if give_up(self._home):
            log.warning("the reserve is given up: %s", why, extra={"action": "reserve_given_up"})

    def _tell_low(self, seen: DiskSeen, now: datetime) -> None:
        incident = self._index.incident
        if seen.low:
            code = "DISK_LOW" if self._is_low["bytes"] else "INODES_LOW"
            what = f"{seen.low}: training waits"
            if incident is None or incident.code in CODES or not self._was_low:
                self._index.incident = Incident(now, code, what, self._cure(), "")
            if not self._was_low:
                log.error("%s; %s", what, self._cure(), extra={"action": "disk_low"})
                self._tell(now, "disk.low", code=code, reason=what)
                self._collected_s = self._counted_s = float("-inf")  # look now
        elif self._was_low:
            log.info("the disk of home has room again: training goes on", extra={"action": "disk_ok"})
            self._tell(now, "disk.ok", free_bytes=seen.free_bytes)
        if not seen.low and incident is not None and incident.code in CODES and seen.has_room():
            self._index.incident = None
        self._was_low = seen.low

    def _cure(self) -> str:
        """What to do about a low disk."""
        text = "`lorad gc` frees what retention allows, or free space on the disk; lorad goes on by itself"
        if self.usage is None or not self.usage.bytes:
            return text
        name, most = self.usage.most()
        used = shutil.disk_usage(self._home.root).used
        others = "; most of what fills the disk is not lorad's" if used > 2 * self.usage.bytes else ""
        return f"{text}; home holds {gigabytes(self.usage.bytes)}, most of it {self._home.root / name} with {gigabytes(most)}{others}"

    # ---------------------------------------------------------------- gc

    def collect(self, why: str, command: Command | None = None) -> None:
        """Begin a gc, or join the one that is under way. A command is answered once it has ended."""
        if self._collection is None:
            self._collection = _Collection(why=why)
            self._collected_s = self._counted_s = monotonic_s()
            config = self._index.config
            spec = {"plan": True, "retention": config.retention.model_dump(mode="json"), "targets": [target.name for target in config.deploy.targets]}
            if not self._worker.submit(Chore(kind="statistics", key="gc", spec=spec)):
                self._collection = None
                if command is not None:
                    self._answer([command], ok=False, message="too many background chores wait", code="BUSY")
                return
        if command is not None:
            self._collection.commands.append(command)

    def _on_counted(self, done: ChoreDone) -> None:
        if done.ok:
            self.usage = usage_of(done.result)
        work = self._collection
        if done.key != "gc" or work is None:
            return
        if not done.ok:
            self._collection = None
            self._answer(work.commands, ok=False, message=f"home could not be looked at: {done.message}", code="GC_FAILED")
            return
        work.plan = plan_of(done.result)
        work.waiting = deque(work.plan.going)

    def _go_on(self, now: datetime) -> None:
        """Move the next things into the trash; after the last, have the trash emptied."""
        work = self._collection
        if work is None or work.plan is None or work.is_deleting:
            return
        if work.waiting:
            self._move_some(work, now)
        if not work.waiting:
            work.is_deleting = self._worker.submit(Chore(kind="trash", key="trash", spec={"logs": logs_of(one.item for one in work.gone)}))

    def _move_some(self, work: _Collection, now: datetime) -> None:
        """What the survey found may be needed by now: each thing is looked at again before it goes."""
        index = self._index
        targets = [target.name for target in index.config.deploy.targets]
        needed = references_of(self._home, index.views.active.values(), targets, index.damaged)
        for _ in range(min(MOVES_A_TICK, len(work.waiting))):
            one = work.waiting.popleft()
            item = one.item
            is_needed = item.owner in needed.releases or item.owner in index.jobs
            if needed.trouble or is_needed or not throw_away(self._home, item, one.why, now.isoformat()):
                continue
            work.gone.append(one)
            if item.part is Part.RELEASE:
                index.releases.pop(item.owner, None)
                index.gone[item.adapter] = max(index.gone.get(item.adapter, 0), item.version)
            if item.part in (Part.RELEASE, Part.RUNS, Part.REJECTED):
                self._journal(now, "gc.removed", part=item.part.value, owner=item.owner, adapter=item.adapter, why=one.why)

    def _on_deleted(self, done: ChoreDone) -> None:
        work = self._collection
        if work is None or not work.is_deleting or work.plan is None:
            return
        self._collection, now = None, clock.now()
        report = report_of(work.gone, work.plan, now, work.why)
        write_report(self._home, report)
        if work.gone or work.commands or report.refused:
            self._journal(now, "gc.done", why=work.why, freed_bytes=report.bytes, items=report.num_items, reason=report.sentence())
        self._answer(work.commands, ok=not report.refused and done.ok, message=report.sentence() if done.ok else done.message, code="GC_REFUSED")
        self._counted_s = float("-inf")  # the numbers have changed

    def _answer(self, commands: list[Command], *, ok: bool, message: str, code: str) -> None:
        hint = "" if ok else "see the daemon's log; `lorad gc --dry-run` shows what may go"
        for command in commands:
            put_answer(self._home, Answer(command=command.id, ok=ok, message=message, hint=hint, code="" if ok else code))

    def _journal(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
