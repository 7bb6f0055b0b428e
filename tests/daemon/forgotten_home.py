"""A home with accepted drops, a released job that learnt from them, and all that may hold their rows; and a box that obeys."""

import hashlib
import json
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from filled_index import index_of

from core.commands import Command, CommandKind
from core.facts import Facts, TargetSeen
from core.forgets import Forget
from core.forgetting import decide_forgets
from core.lifecycle import Event, step
from core.records import Accepted, Claim, Drop, DropState, Ended, Job, JobCard, JobState, Queued, Releasing
from core.steps import BeginForget, Move, Record, RecordForget, SetWish, WorkForget
from core.wire import Active, Manifest, Observed
from daemon.chores import work_of
from daemon.forgetting import Forgets
from daemon.index import Index
from daemon.worker import Chore, ChoreDone
from store import jobs
from store.child import clock
from store.codec import put
from store.forgets import read_orders
from store.keys import ensure_keys
from store.paths import Home
from store.seals import seal
from store.targets import desired_of, set_wish
from store.wire import write_manifest

AT = datetime(2026, 3, 1, tzinfo=UTC)
ADAPTER = "default/main"
COMMAND = Command(id="command-20260302-120000-000-abc", kind=CommandKind.FORGET, made_at=AT, expires_at=AT + timedelta(minutes=1))


def row(text: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]}).encode() + b"\n"


def add_drop(home: Home, number: int, rows: list[bytes], **facts: Any) -> str:
    """An accepted drop whose rows are of one group each."""
    drop = f"drop-20260301-00000{number}-000-00000{number}"
    folder = home.drop(DropState.ACCEPTED, drop)
    (folder / "rows").mkdir(parents=True)
    raw = b"".join(rows)
    (folder / "rows" / "rows.jsonl.zst").write_bytes(zstandard.compress(raw))
    index = [{"line": line, "group": hashlib.sha256(one).hexdigest(), "split": ("train", "dev", "gate")[line % 3]} for line, one in enumerate(rows, 1)]
    (folder / "rows" / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
    (folder / "rows" / "report.json").write_text(json.dumps({"file": "x.jsonl", "verdict": "accepted", "findings": [{"message": raw.decode()}]}))
    seal(folder / "rows")
    claim = Claim(drop=drop, adapter=ADAPTER, source="x.jsonl", device=1, inode=number, size_bytes=len(raw), mtime_ns=1, file="x.jsonl", claimed_at=AT)
    given = {"job": f"job-{number}", "sha256": hashlib.sha256(raw).hexdigest(), "identity": str(number), "rows": len(rows), "schema_id": "chat_sft_v1"}
    put(folder / "claim.json", claim)
    put(folder / "accepted.json", Accepted(at=AT, job_made=True, **{**given, **facts}))
    (folder / "original.job.json").write_text('{"learning_rate": 1e-4, "notes": "about somebody"}')
    return drop


def add_release(home: Home, version: int, job: str, drops: tuple[str, ...]) -> str:
    folder = home.release(ADAPTER, version)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    known = {"tokenizer_sha256": "stub", "template_sha256": "stub", "parent": None, "checkpoint_sha256": "0", "verdict_sha256": "0", "files": {}}
    made: dict[str, Any] = {"format": 1, "adapter": ADAPTER, "version": version, "job": job, "backend": "stub", "base_sha256": "stub", "created_at": AT}
    release = write_manifest(folder, Manifest(drops=drops, **made, **known), home.keys)
    seal(folder)
    return release


class SameMoment:
    """A background worker whose chores are done at once, in this process."""

    def __init__(self, home: Home) -> None:
        self.home, self.waiting, self.hears = home, deque[Chore](), lambda done: None

    def hear(self, kind: str, listener: Any) -> None:
        self.hears = listener

    def submit(self, chore: Chore) -> bool:
        self.waiting.append(chore)
        return True

    def turn(self) -> None:
        while self.waiting:
            chore = self.waiting.popleft()
            result = json.loads(json.dumps(work_of(chore.kind)(self.home, chore.spec)))
            self.hears(ChoreDone(kind=chore.kind, key=chore.key, ok=True, result=result))


@dataclass
class Ground:
    """`live` and `purged` are the box's; everything else is read from the home again after each `restart`."""

    folder: Path
    live: dict[str, str | None] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)
    box_up: bool = True
    index: Index = field(init=False)
    forgets: Forgets = field(init=False)
    worker: SameMoment = field(init=False)
    now: datetime = field(default_factory=clock)

    def __post_init__(self) -> None:
        self.restart()
        ensure_keys(self.home.keys)

    @property
    def home(self) -> Home:
        return self.index.home

    def restart(self) -> None:
        """Everything that was in memory is gone, and half-made things are swept."""
        self.index = index_of(self.folder)
        jobs.sweep_tmp(self.home)
        self.worker = SameMoment(self.home)
        self.forgets = Forgets(self.index, self.worker, self._train, lambda *told, **fields: None)  # type: ignore[arg-type]

    def _train(self, drop: Drop, job: str, now: datetime) -> str:
        assert isinstance(drop.facts, Accepted)
        self.make_job(job, drop.id, now)
        return job

    def make_job(self, job: str, drop: str, now: datetime = AT) -> Job:
        known = self.index.drops[drop]
        rows = self.index.shelf.list_for(known, set())
        card = JobCard(
            id=job, adapter=ADAPTER, drop=drop, file="x.jsonl", sha256="0", identity=job, created_at=now, rows_of=rows, base_sha256="stub", backend="stub"
        )
        made = jobs.create_job(self.home, card, Queued(since=now), {"values": {}, "origins": {}, "job": {}})
        self.index.keep_job(made)
        return made

    def release(self, job: Job, version: int) -> str:
        """Let a job be released: what it made goes live on the box."""
        shas = tuple(ref.sha256 for ref in self.index.shelf.refs_of(job.card))
        release = add_release(self.home, version, job.id, shas)
        after = Job(card=job.card, state=JobState.RELEASED, facts=Ended(at=AT, release=release, version=version))
        jobs.move_job(self.home, job, after)
        self.live[ADAPTER] = release
        return release

    def facts(self) -> Facts:
        desired = desired_of(self.home, "local")
        if self.box_up and desired is not None:  # the box obeys at once
            self.live |= {alias: wish.release for alias, wish in desired.aliases.items()}
            self.purged |= set(desired.purge) - set(self.live.values())
        active = Active(box="b", sequence=1, fence_seen=1, at=AT, purged=tuple(sorted(self.purged)))
        target = TargetSeen(name="local", desired=desired, observed=Observed(target="local", at=AT, reachable=True, active=active), live=dict(self.live))
        known = {"jobs": self.index.jobs, "ended": self.index.views.ended, "views": self.index.views, "config": self.index.config}
        return Facts(instance="test", backend="stub", base_sha256="stub", targets=(target,), forgets=self.forgets.look(), **known)  # type: ignore[arg-type]

    def tick(self) -> None:
        self.worker.turn()
        self.now += timedelta(minutes=1)
        for one in decide_forgets(self.facts(), self.now):
            match one:
                case BeginForget() | RecordForget() | WorkForget():
                    self.forgets.apply(one, self.now)
                case Move():
                    before = self.index.job(one.job)
                    after, _ = step(before, one.event, one.facts)
                    jobs.move_job(self.home, before, after)
                    self.index.keep_job(after)
                case Record():
                    after = replace(self.index.job(one.job), facts=one.facts)
                    jobs.record_facts(self.home, after)
                    self.index.keep_job(after)
                case SetWish():
                    set_wish(self.home, one.target, one.alias, one.wish, self.now)

    def begin(self, *, at_once: bool = False, **wanted: list[str]) -> None:
        """A person's order. Keys: rows (fingerprints), drops."""
        command = replace(COMMAND, details={"wanted": json.dumps(wanted), "at_once": "yes" if at_once else ""})
        self.forgets.apply(BeginForget(command=command), self.now)

    @property
    def order(self) -> Forget:
        (found,) = read_orders(self.home)
        return found

    def let_retraining_win(self) -> None:
        """Whatever is queued by an order is trained and goes live."""
        for job in [self.index.job(one) for one in self.order.retraining.values() if one in self.index.jobs]:
            version = 1 + max(self.index.highest_versions().values(), default=0)
            release = self.release(job, version)
            set_wish(self.home, "local", ADAPTER, _wish(release, self.live), self.now)
            self.restart()


def _wish(release: str, live: dict[str, str | None]) -> Any:
    from core.wire import Wish

    return Wish(release=release, replaces=live.get(ADAPTER))


__all__ = ["ADAPTER", "AT", "COMMAND", "Event", "Ground", "Releasing", "add_drop", "row"]
