"""Carries out the steps of a decision. Every transition is durable before its effect runs; every step can be repeated."""

import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core import facts as f
from core.commands import Answer, Command
from core.errors import LockHeldError, LoradError
from core.exits import ChildExit
from core.facts import EndedJob, Step
from core.gate import GateSpec
from core.lifecycle import Event, step
from core.names import stamp
from core.progress import with_child
from core.records import (
    Accepted,
    ChildRef,
    Claim,
    Drop,
    DropRef,
    DropState,
    Ended,
    Gating,
    Job,
    JobCard,
    JobState,
    Queued,
    Releasing,
    Settling,
    Training,
)
from core.tasks import ExitNote
from daemon.children import Children
from daemon.findings import in_words
from daemon.gatekeeper import Gatekeeper
from daemon.index import Incident, Index
from daemon.rejection import reports_for
from daemon.tasks import WORDS, make_task
from store import drops, jobs, runs
from store.bases import TOKENIZER, base_folder
from store.commands import put_answer
from store.journal import write_entry
from store.releases import place_release, read_releases
from store.targets import set_wish

log = logging.getLogger(__name__)


class Applier:
    """Applies steps to home, index and children. `tell` is called for every transition with its words."""

    def __init__(self, index: Index, instance: str, children: Children, gate: Gatekeeper, tell: Callable[..., None]) -> None:
        self._index = index
        self._home = index.home
        self._instance = instance
        self._children = children
        self._gate = gate
        self._tell = tell

    def apply(self, the_step: Step, now: datetime) -> None:
        """Carry out one step. Raises OSError and LoradError; the next tick decides again."""
        match the_step:
            case f.TakeDrop():
                self._take(the_step, now)
            case f.FinishClaim():
                drops.finish_claim(self._home, self._index.drops[the_step.drop])
            case f.ForgetClaim():
                self._forget(the_step.drop, now)
            case f.GateDrop():
                self._gate_drop(the_step, now)
            case f.SettleAgain():
                self._settle_again(the_step.drop, now)
            case f.RejectDrop():
                self._reject(the_step, now)
            case f.AcceptDrop():
                self._accept(the_step, now)
            case f.MakeJob():
                self._make_job(the_step.drop, now)
            case f.SetAside():
                self._set_aside(the_step, now)
            case _:
                self._apply_to_job(the_step, now)

    def _apply_to_job(self, the_step: Step, now: datetime) -> None:
        match the_step:
            case f.Move():
                self._move(self._index.job(the_step.job), the_step.event, the_step.facts, now)
            case f.Record():
                self._record(replace(self._index.job(the_step.job), facts=the_step.facts))
            case f.StartChild():
                self._start(the_step, now)
            case f.StopChild():
                self._children.stop(the_step.job)
            case f.PlaceRelease():
                self._place(the_step, now)
            case f.SetWish():
                desired = set_wish(self._home, the_step.target, the_step.alias, the_step.wish, now)
                self._journal(now, "wish", target=the_step.target, adapter=the_step.alias, release=the_step.wish.release or "base", fence=desired.fence)
            case f.RetryJob():
                self._retry(the_step.command, the_step.of, now)
            case f.Reply():
                put_answer(self._home, the_step.answer)
                answer = the_step.answer
                who = {"actor": the_step.actor, "reason": the_step.reason}
                self._journal(now, f"command.{the_step.log}", command=answer.command, ok=answer.ok, message=answer.message, **who)

    def _journal(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, ""))
        log.info("%s %s", action, words, extra={"action": action})

    # ---------------------------------------------------------------- drops

    def _take(self, the_step: f.TakeDrop, now: datetime) -> None:
        entry = the_step.entry
        claim = Claim(
            drop=f"drop-{stamp(now, secrets.token_hex(3))}",
            adapter=entry.adapter,
            source=entry.source,
            device=entry.device,
            inode=entry.inode,
            size_bytes=entry.size_bytes,
            mtime_ns=entry.mtime_ns,
            file=Path(entry.source).name,
            sidecar=entry.sidecar,
            problem=entry.problem,
            claimed_at=now,
        )
        drop = drops.begin_claim(self._home, claim, Settling(since=now))
        self._index.keep_drop(drop)
        drops.finish_claim(self._home, drop)
        self._journal(now, "drop.claimed", drop=drop.id, adapter=claim.adapter, file=claim.file)

    def _forget(self, drop: str, now: datetime) -> None:
        drops.forget_claim(self._home, self._index.drops[drop])
        self._journal(now, "drop.vanished", drop=drop, file=self._index.drops[drop].claim.file)
        self._index.lose_drop(drop)

    def _gate_drop(self, the_step: f.GateDrop, now: datetime) -> None:
        drop = self._index.drops[the_step.drop]
        seen = self._index.sidecars[drop.id]
        assert seen.config is not None
        gating = replace(drop, state=DropState.GATING, facts=Gating(since=now, crashes=the_step.crashes))
        drops.move_drop(self._home, drop, gating)
        self._index.keep_drop(gating)
        limits = seen.config.validation
        self._gate.submit(
            GateSpec(
                drop=drop.id,
                adapter=drop.claim.adapter,
                file=str(drops.drop_folder(self._home, gating) / drops.ORIGINAL),
                name=drop.claim.file,
                schema_id=seen.config.schema_id,
                level=limits.level,
                max_row_bytes=limits.max_row_bytes,
                max_file_bytes=limits.max_file_bytes,
                tokenizer=str(base_folder(self._index.config) / TOKENIZER) if self._index.backend.name != "stub" else "",
                known_indexes=tuple(str(drops.rows_folder(self._home, other.id) / "index.jsonl") for other in self._accepted_of(drop.claim.adapter)),
            )
        )

    def _accepted_of(self, adapter: str) -> list[Drop]:
        """The adapter's accepted drops in claim order."""
        return sorted(
            (drop for drop in self._index.drops.values() if drop.state is DropState.ACCEPTED and drop.claim.adapter == adapter), key=lambda drop: drop.id
        )

    def _settle_again(self, drop_id: str, now: datetime) -> None:
        drop = self._index.drops[drop_id]
        if drop.state is DropState.GATING:
            self._gate.clear()
        found = (drops.drop_folder(self._home, drop) / drops.ORIGINAL).lstat()
        claim = replace(drop.claim, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)
        quiet_until = datetime.fromtimestamp(now.timestamp() + self._index.config.validation.settle_s, now.tzinfo)
        again = Drop(claim=claim, state=DropState.SETTLING, facts=Settling(since=now, quiet_until=quiet_until))
        drops.move_drop(self._home, drop, again)
        self._index.keep_drop(again)
        self._journal(now, "drop.changed_while_read", drop=drop.id, file=claim.file)

    def _reject(self, the_step: f.RejectDrop, now: datetime) -> None:
        drop = self._index.drops[the_step.drop]
        reports, report = reports_for(drop, the_step, self._gate, self._index)
        folder = drops.reject_drop(self._home, drop, reports)
        if drop.state is DropState.GATING:
            self._gate.clear()
        self._index.lose_drop(drop.id)
        first: dict[str, Any] = next((finding for finding in report["findings"] if finding["severity"] == "error"), {})
        self._index.note_findings(now, drop, "refused", report)
        what = the_step.message or in_words(first)
        hint = the_step.hint or f"read {folder / 'report.md'}"
        self._index.incident = Incident(now, str(first.get("id", "")), f"{drop.claim.file} was refused: {what}", hint, drop.id)
        self._journal(now, "drop.rejected", drop=drop.id, file=drop.claim.file, code=first.get("id", ""))

    def _accept(self, the_step: f.AcceptDrop, now: datetime) -> None:
        drop, seen = self._index.drops[the_step.drop], self._index.sidecars[the_step.drop]
        drops.place_rows(self._home, drop, self._gate.folder / "drop")
        accepted = Accepted(
            at=now,
            job=f"job-{stamp(now, secrets.token_hex(3))}",
            sha256=the_step.sha256,
            identity=the_step.identity,
            rows=the_step.rows,
            schema_id=the_step.schema_id,
            again=seen.again,
        )
        after = replace(drop, state=DropState.ACCEPTED, facts=accepted)
        drops.move_drop(self._home, drop, after)
        self._gate.clear()
        self._index.keep_drop(after)
        report = drops.read_report(drops.rows_folder(self._home, drop.id))
        if report is not None and report.get("findings"):
            self._index.note_findings(now, after, "accepted", report)
        self._journal(now, "drop.accepted", drop=drop.id, file=drop.claim.file, rows=accepted.rows, sha256=accepted.sha256, job=accepted.job)

    def _make_job(self, drop_id: str, now: datetime) -> None:
        drop = self._index.drops[drop_id]
        accepted = drop.facts
        assert isinstance(accepted, Accepted)
        if accepted.job not in self._index.jobs and accepted.job not in self._index.ended:
            frozen = self._index.resolved_for(drop)
            self._create(drop, accepted.job, int(frozen["job"].get("priority", 0)), frozen, now)
        made = replace(drop, facts=replace(accepted, job_made=True))
        drops.move_drop(self._home, drop, made)
        self._index.keep_drop(made)
        drops.discard_original(self._home, made)

    def _create(self, drop: Drop, job_id: str, priority: int, frozen: dict[str, object], now: datetime, retry_of: str | None = None) -> Job:
        accepted = drop.facts
        assert isinstance(accepted, Accepted)
        assert self._index.base_sha256 is not None
        card = JobCard(
            id=job_id,
            adapter=drop.claim.adapter,
            drop=drop.id,
            file=drop.claim.file,
            sha256=accepted.sha256,
            identity=accepted.identity,
            priority=priority,
            created_at=now,
            drops=self._to_train_on(drop),
            base_sha256=self._index.base_sha256,
            backend=self._index.backend.name,
            retry_of=retry_of,
        )
        job = jobs.create_job(self._home, card, Queued(since=now), frozen)
        self._index.keep_job(job)
        self._journal(now, "job.queued", job=job.id, adapter=card.adapter, drop=drop.id, file=card.file, retry_of=retry_of)
        return job

    def _to_train_on(self, own: Drop) -> tuple[DropRef, ...]:
        """All accepted drops of the adapter up to its own that are not set aside; its own always."""
        refs = []
        released = {job.card.drop for job in self._index.ended.values() if job.state is JobState.RELEASED}  # a retry may have been
        for drop in self._accepted_of(own.claim.adapter):
            assert isinstance(drop.facts, Accepted)
            if drop.id == own.id or (drop.id < own.id and (drop.facts.set_aside is None or drop.id in released)):
                refs.append(DropRef(id=drop.id, sha256=drop.facts.sha256))
        return tuple(refs)

    def _set_aside(self, the_step: f.SetAside, now: datetime) -> None:
        drop = self._index.drops[the_step.drop]
        assert isinstance(drop.facts, Accepted)
        after = replace(drop, facts=replace(drop.facts, set_aside=the_step.reason))
        drops.move_drop(self._home, drop, after)
        self._index.keep_drop(after)
        self._journal(now, "drop.set_aside", drop=drop.id, reason=the_step.reason)

    # ---------------------------------------------------------------- jobs

    def _move(self, job: Job, event: Event, facts: object, now: datetime) -> None:
        after, _ = step(job, event, facts)  # type: ignore[arg-type]
        jobs.move_job(self._home, job, after)
        self._index.keep_job(after)
        reason = getattr(after.facts, "reason", "")
        self._journal(now, f"job.{after.state.value}", job=job.id, adapter=job.card.adapter, event=event.value, reason=reason)
        if isinstance(after.facts, Ended) and after.state in (JobState.FAILED, JobState.REFUSED):
            self._index.incident = Incident(now, after.facts.code or after.state.value.upper(), after.facts.reason, after.facts.hint, job.id)

    def _record(self, after: Job) -> None:
        jobs.record_facts(self._home, after)
        self._index.keep_job(after)

    def _start(self, the_step: f.StartChild, now: datetime) -> None:
        job = self._index.job(the_step.job)
        task = make_task(self._index, job, the_step.kind, the_step.purpose)
        run = runs.new_run(self._home, job.id, the_step.kind)
        runs.write_spec(run, task)
        child = ChildRef(run=run.name, kind=the_step.kind, purpose=the_step.purpose, instance=self._instance, slot=the_step.slot, started_at=now)
        if isinstance(job.facts, Queued):
            queued = job.facts
            training = Training(since=now, child=child, attempts=queued.attempts, checkpoint=queued.checkpoint, micro_batch=queued.micro_batch)
            self._move(job, Event.START, training, now)
        else:
            self._record(replace(job, facts=with_child(job.facts, child)))
            self._journal(now, f"job.{the_step.kind.value}", job=job.id, adapter=job.card.adapter, purpose=the_step.purpose, run=run.name)
        try:
            self._children.start(job.id, run, WORDS[the_step.kind], the_step.slot, self._index.config.training.threads)
        except LockHeldError:
            note = ExitNote(code=ChildExit.STOPPED, ended_at=now, reason=f"slot {the_step.slot} was taken in between")
            runs.write_exit(run, note)  # the child never started: nobody else writes here, and it is no attempt

    def _place(self, the_step: f.PlaceRelease, now: datetime) -> None:
        job = self._index.job(the_step.job)
        work = job.facts
        assert isinstance(work, Releasing)
        assert work.version is not None
        packed = self._home.runs(job.id) / the_step.run / "release"
        place_release(self._home, packed, job.card.adapter, work.version, the_step.release)
        self._index.releases = {release.id: release for release in read_releases(self._home)}
        self._record(replace(job, facts=replace(work, child=None, release=the_step.release, attempts=0)))
        self._journal(now, "release.packed", job=job.id, adapter=job.card.adapter, version=work.version, release=the_step.release)

    def _retry(self, command: Command, of: EndedJob, now: datetime) -> None:
        """The command's id becomes part of the job's id, so that a repeat after a crash finds it made."""
        job_id = f"job-{command.id.removeprefix('command-')}"
        drop = self._index.drops.get(of.drop)
        if drop is None:
            put_answer(self._home, Answer(command=command.id, ok=False, message=f"the drop of {of.id} is gone", hint="drop the file again", code="DROP_GONE"))
            return
        if job_id not in self._index.jobs and job_id not in self._index.ended:
            frozen = jobs.read_config(self._home, self._index.job(of.id))
            priority = self._index.job(of.id).card.priority
            self._create(drop, job_id, priority, frozen, now, retry_of=of.id)
        put_answer(self._home, Answer(command=command.id, ok=True, message=f"job {job_id} tries {of.id} again", made=job_id))


def describe(error: Exception) -> tuple[str, str, str]:
    """(code, what, hint) of a failed step, for status."""
    if isinstance(error, LoradError):
        return error.code, error.what, error.hint
    if isinstance(error, OSError) and error.errno is not None:
        hint = "free some space: lorad goes on by itself" if error.errno == 28 else "check the disk and its permissions"
        return ("DISK_FULL" if error.errno == 28 else "OS_ERROR"), f"{os.strerror(error.errno)}: {error.filename or ''}", hint
    return "STEP_FAILED", f"{type(error).__name__}: {error}", "see the daemon's log"
