"""Carries out the steps of a decision. Every transition is durable before its effect runs; every step can be repeated."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from core import steps as f
from core.commands import Answer, Command
from core.errors import LockHeldError, LoradError
from core.exits import ChildExit
from core.facts import EndedJob
from core.lifecycle import Event, step
from core.progress import with_child
from core.records import (
    Accepted,
    ChildRef,
    Drop,
    DropRef,
    Ended,
    Job,
    JobCard,
    JobState,
    Queued,
    Releasing,
    Training,
)
from core.steps import Step
from core.tasks import ExitNote
from daemon.children import Children
from daemon.gatespec import accepted_of
from daemon.index import Incident, Index
from daemon.intake import Gates, Intake
from daemon.tasks import WORDS, make_task
from store import jobs, runs
from store.commands import put_answer
from store.journal import write_entry
from store.releases import place_release, read_releases
from store.targets import set_wish

log = logging.getLogger(__name__)


class Applier:
    """Applies steps to home, index and children. `tell` is called for every transition with its words."""

    def __init__(self, index: Index, instance: str, children: Children, gates: Gates, tell: Callable[..., None]) -> None:
        self._index = index
        self._home = index.home
        self._instance = instance
        self._children = children
        self._intake = Intake(index, gates, self._journal)
        self._tell = tell

    def apply(self, the_step: Step, now: datetime) -> None:
        """Carry out one step. Raises OSError and LoradError; the next tick decides again."""
        match the_step:
            case f.MakeJob():
                self._make_job(the_step.drop, now)
            case f.TakeOut():
                self._take_out(the_step, now)
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
            case _:
                self._intake.apply(the_step, now)

    def _journal(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, ""))
        log.info("%s %s", action, words, extra={"action": action})

    # ---------------------------------------------------------------- jobs

    def _make_job(self, drop_id: str, now: datetime) -> None:
        drop = self._index.drops[drop_id]
        accepted = drop.facts
        assert isinstance(accepted, Accepted)
        if accepted.job not in self._index.jobs and accepted.job not in self._index.ended:
            frozen = self._index.resolved_for(drop)
            self._create(drop, accepted.job, int(frozen["job"].get("priority", 0)), frozen, now)
        self._intake.job_was_made(drop)

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
        for drop in accepted_of(self._index, own.claim.adapter):
            assert isinstance(drop.facts, Accepted)
            if drop.id == own.id or (drop.id < own.id and (drop.facts.set_aside is None or drop.id in released)):
                refs.append(DropRef(id=drop.id, sha256=drop.facts.sha256))
        return tuple(refs)

    def _move(self, job: Job, event: Event, facts: object, now: datetime) -> None:
        after, _ = step(job, event, facts)  # type: ignore[arg-type]
        jobs.move_job(self._home, job, after)
        self._index.keep_job(after)
        reason = getattr(after.facts, "reason", "")
        self._journal(now, f"job.{after.state.value}", job=job.id, adapter=job.card.adapter, event=event.value, reason=reason)
        if isinstance(after.facts, Ended) and after.state in (JobState.FAILED, JobState.REFUSED):
            self._index.incident = Incident(now, after.facts.code or after.state.value.upper(), after.facts.reason, after.facts.hint, job.id)

    def _take_out(self, the_step: f.TakeOut, now: datetime) -> None:
        job = self._index.job(the_step.job)
        refs = tuple(ref for ref in job.card.drops if ref.id != the_step.drop)
        after = replace(job, card=replace(job.card, drops=refs))
        jobs.replace_card(self._home, after)
        self._index.keep_job(after)
        self._journal(now, "job.drop_taken_out", job=job.id, drop=the_step.drop)

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
