"""Carries out orders to forget (core/forgetting.py): the order's file and record, the chores, drops in place of drops, retrainings, burials."""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.commands import Command
from core.forgets import Forget, ForgetSeen, Part, Rebuilt, Removed, Stage, Tombstone, Traces
from core.records import Accepted, Drop, JobState
from core.retention import Item
from core.retention import Part as Kept
from core.steps import BeginForget, RecordForget, WorkForget
from daemon import clock
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.codec import parse, put
from store.drops import CLAIM, accepted_root, drop_folder
from store.durable import sync_dir, sync_tree
from store.forgets import drop_rows, entomb, read_orders, tombs, write_order
from store.journal import write_entry
from store.rebuilding import made_folder, place_drop, take_sidecar
from store.references import set_pin
from store.releases import read_releases
from store.targets import mirror, set_purge
from store.trash import throw_away
from store.wire import read_active

log = logging.getLogger(__name__)

FORGET = "forget"  # the kind of its chores
REST = timedelta(seconds=30)  # after a chore that failed, and between two looks at what is still coming

TrainAgain = Callable[[Drop, str, datetime], str]


@dataclass(slots=True)
class _Known:
    """What is known of an open order beyond its file."""

    order: Forget
    busy: str = ""  # key of the chore at work
    rest_until: datetime | None = None
    trouble: str = ""
    traces: Traces | None = None
    made: Mapping[str, Rebuilt] | None = None
    swept: tuple[Removed, ...] | None = None


class Forgets:
    """The open orders. Args: train_again: makes a job of a drop, by an id. tell: called with (now, action, fields) for every stage."""

    def __init__(self, index: Index, worker: BackgroundWorker, train_again: TrainAgain, tell: Callable[..., None]) -> None:
        self._index, self._home, self._worker = index, index.home, worker
        self._train_again, self._tell = train_again, tell
        self._open: dict[str, _Known] = {}
        for order in read_orders(self._home):
            if order.stage is Stage.DONE:
                drop_rows(self._home, order.id)  # where a kill came before
            else:
                self._open[order.id] = _Known(order)
        self.cut_signals: Callable[[Iterable[str]], None] = lambda ids: None  # nobody stores any, until the daemon names who does
        worker.hear(FORGET, self._on_done)

    def look(self) -> tuple[ForgetSeen, ...]:
        """The orders that are not done, oldest first."""
        return tuple(self._seen(known) for _, known in sorted(self._open.items()))

    def apply(self, step: BeginForget | RecordForget | WorkForget, now: datetime) -> None:
        """Carry out one step. Raises OSError, LoradError; the next tick decides again."""
        match step:
            case BeginForget():
                self._begin(step.command, now)
            case RecordForget():
                self._record(step.order, now)
            case WorkForget(does="replace"):
                self._replace(self._open[step.order], now)
            case WorkForget(does="retrain"):
                self._retrain(self._open[step.order].order, now)
            case WorkForget(does="bury"):
                self._bury(self._open[step.order].order, now)
            case WorkForget():
                self._start(self._open[step.order], step.does)

    def _seen(self, known: _Known) -> ForgetSeen:
        order = known.order
        here = self._here(order)
        touched = here | frozenset(order.releases)
        return ForgetSeen(
            order=order,
            busy=bool(known.busy),
            rest_until=known.rest_until,
            trouble=known.trouble,
            traces=known.traces,
            made=known.made,
            swept=known.swept,
            touched=touched,
            here=here,
            fallback=self._fallbacks(touched),
        )

    def _here(self, order: Forget) -> frozenset[str]:
        shas, known = {part.sha256 for part in order.parts}, set(order.releases)
        return frozenset(release.id for release in self._index.releases.values() if release.id in known or shas & set(release.manifest.drops))

    def _fallbacks(self, touched: frozenset[str]) -> dict[str, str | None]:
        """Adapter -> the newest release that was live once and did not learn from the rows."""
        found: dict[str, str | None] = {}
        ended = self._index.views.ended
        for release in sorted(self._index.releases.values(), key=lambda release: release.version):
            made_by = ended.get(release.manifest.job)
            if release.id not in touched and made_by is not None and made_by.state == JobState.RELEASED:
                found[release.adapter] = release.id
        return found

    # ---------------------------------------------------------------- the order

    def _begin(self, command: Command, now: datetime) -> None:
        if command.forget_made in self._open:
            return
        wanted: dict[str, list[str]] = json.loads(command.details.get("wanted", "{}"))
        order = Forget(
            id=command.forget_made,
            at=command.made_at,
            actor=command.actor,
            reason=command.reason,
            at_once=bool(command.details.get("at_once")),
            rows=tuple(sorted(wanted.get("rows", ()))),
            drops=tuple(sorted(wanted.get("drops", ()))),
        )
        self._record(order, now)

    def _record(self, order: Forget, now: datetime) -> None:
        known = self._open.get(order.id)
        if known is not None and known.order.at_once:
            order = replace(order, at_once=True)  # a person said so since this was decided
        write_order(self._home, order, now, self._confirmed(order))
        if known is None:
            known = self._open[order.id] = _Known(order)
        if known.order.stage is not order.stage or known.order is order:
            known.traces, known.made, known.swept, known.rest_until = None, None, None, None
            counts = {"drops": len(order.parts), "releases": len(order.releases), "waits": order.waits}
            self._note(now, f"forget.{order.stage.value}", order=order.id, actor=order.actor, reason=order.reason, **counts)
        known.order = order
        if order.stage is Stage.DONE:
            del self._open[order.id]

    def _confirmed(self, order: Forget) -> dict[str, list[str]]:
        """Target -> those of the releases that it has confirmed not to hold."""
        found = {}
        for target in self._index.config.deploy.targets:
            active = read_active(mirror(self._home, target.name) / "active.json")
            found[target.name] = sorted(set(order.releases) & set(active.purged if active else ()))
        return found

    def _note(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)

    # ---------------------------------------------------------------- chores

    def _start(self, known: _Known, does: str) -> None:
        key = f"{known.order.id}/{does}/{secrets.token_hex(2)}"  # of an earlier stage's chore nothing is taken
        if self._worker.submit(Chore(kind=FORGET, key=key, spec={"order": known.order.id, "does": does})):
            known.busy = key

    def _on_done(self, done: ChoreDone) -> None:
        known = self._open.get(done.key.split("/")[0])
        if known is None or known.busy != done.key:
            return
        known.busy, known.trouble = "", "" if done.ok else done.message
        known.rest_until = clock.now() + REST
        if not done.ok:
            return
        result: Mapping[str, Any] = done.result
        if "traces" in result:
            known.traces = parse(Traces, json.dumps(result["traces"]))
        elif "made" in result:
            known.made = {drop: parse(Rebuilt, json.dumps(made)) for drop, made in result["made"].items()}
        else:
            self.cut_signals(result.get("signals", ()))
            known.swept = tuple(parse(Removed, json.dumps(one)) for one in result["swept"])

    # ---------------------------------------------------------------- drops in place of drops

    def _replace(self, known: _Known, now: datetime) -> None:
        order, made = known.order, known.made or {}
        stones = {stone.drop: stone for stone in tombs(self._home)}
        parts = tuple(part if part.at is not None else self._replace_one(order, part, made, stones.get(part.drop), now) for part in order.parts)
        self._record(replace(order, parts=parts, stage=Stage.REPLACED, waits=""), now)

    def _replace_one(self, order: Forget, part: Part, made: Mapping[str, Rebuilt], stone: Tombstone | None, now: datetime) -> Part:
        """New drop, tombstone, old drop: in this order, so that no crash loses the rows that stay, and a repeat finishes it."""
        drop = self._index.drops.get(part.drop)
        if drop is not None and isinstance(drop.facts, Accepted):
            rebuilt = made.get(part.drop, Rebuilt())
            after = self._place(order, drop, drop.facts, rebuilt) if rebuilt.rows else None
            stone = Tombstone(drop=drop.id, adapter=drop.claim.adapter, sha256=part.sha256, order=order.id, at=now, replaced_by=after.id if after else "")
            entomb(self._home, stone)
            self._index.bury(stone)
            self._throw_away(drop)
        after_id = stone.replaced_by if stone else ""
        found = self._index.drops[after_id].facts if after_id in self._index.drops else None
        return replace(part, at=now, replaced_by=after_id, new_sha256=found.sha256 if isinstance(found, Accepted) else "")

    def _place(self, order: Forget, drop: Drop, facts: Accepted, rebuilt: Rebuilt) -> Drop:
        aside = facts.set_aside if drop.id not in self._index.views.released_drops else None
        identity = hashlib.sha256(f"{facts.identity} {rebuilt.sha256}".encode()).hexdigest()
        changed = {"sha256": rebuilt.sha256, "rows": rebuilt.rows, "quarantined": rebuilt.quarantined, "identity": identity}
        kept = replace(facts, **changed, job_made=True, set_aside=aside)  # type: ignore[arg-type]
        after = replace(drop, claim=replace(drop.claim, drop=successor(drop.id)), facts=kept)
        folder = made_folder(self._home, order.id, drop.id).parent
        put(folder / CLAIM, after.claim)
        put(folder / "accepted.json", kept)
        take_sidecar(drop_folder(self._home, drop), folder)
        sync_tree(folder)
        place_drop(self._home, folder, drop_folder(self._home, after))
        sync_dir(accepted_root(self._home))
        self._index.keep_drop(after)
        return after

    def _throw_away(self, drop: Drop) -> None:
        self._home.trash.mkdir(parents=True, exist_ok=True)
        os.rename(drop_folder(self._home, drop), _free(self._home.trash / f"accepted+{drop.id}"))
        sync_dir(accepted_root(self._home))
        self._index.lose_drop(drop.id)

    # ---------------------------------------------------------------- retraining, and the old releases

    def _retrain(self, order: Forget, now: datetime) -> None:
        """One job for each adapter, on its newest drop: it trains on all that is left. Its id hangs on the order, so that a repeat finds it."""
        shelf, jobs = self._index.shelf, dict(order.retraining)
        for adapter in order.adapters:
            newest = next((drop for drop in reversed(shelf.accepted_of(adapter)) if drop not in shelf.set_aside), "")
            job = retraining_id(order, adapter)
            if newest and job not in self._index.jobs and job not in self._index.ended:
                self._train_again(self._index.drops[newest], job, now)
            if newest:
                jobs[adapter] = job
        self._record(replace(order, retraining=jobs, stage=Stage.QUEUED, waits=""), now)

    def _bury(self, order: Forget, now: datetime) -> None:
        """Ask every target to delete the releases, then let them go here, with tombstones."""
        for target in self._index.config.deploy.targets:
            set_purge(self._home, target.name, order.releases, now)
        gone = []
        for release in [self._index.releases[id] for id in sorted(self._here(order))]:
            set_pin(self._home, release.id, None, now)
            path = str(release.folder.relative_to(self._home.root))
            item = Item(part=Kept.RELEASE, paths=(path,), owner=release.id, adapter=release.adapter, version=release.version, at=now, bytes=0, inodes=0)
            throw_away(self._home, item, f"rows that it learnt from were forgotten ({order.id})", now.isoformat())
            gone.append(Removed(what="release", name=f"{release.adapter}/v{release.version} {release.id}", at=now))
        self._index.releases = {release.id: release for release in read_releases(self._home)}
        self._record(replace(order, removed=(*order.removed, *gone)), now)


def successor(drop: str) -> str:
    """The id of what takes a drop's place: right behind it in every order by id, so that what superseded what stays as it was."""
    stem, mark, number = drop.partition(".")
    return f"{stem}.{int(number) + 1}" if mark else f"{drop}.1"


def retraining_id(order: Forget, adapter: str) -> str:
    """The id of an order's job for one adapter. An order that goes back for more rows makes another."""
    mark = hashlib.sha256(f"{adapter} {len(order.parts)}".encode()).hexdigest()[:4]
    return f"job-{order.id.removeprefix('forget-')}-{mark}"


def _free(path: Path) -> Path:
    """The path, or one beside it where that is taken."""
    number = 1
    while os.path.lexists(path):
        number += 1
        path = path.with_name(f"{path.name.partition('+again')[0]}+again{number}")
    return path
