"""Carries out the steps of a decision. Every transition is durable before its effect runs; every step can be repeated."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from core import steps as f
from core.commands import Answer, Command
from core.errors import LockHeldError, LoradError
from core.exits import ChildExit
from core.jobviews import EndedJob
from core.lifecycle import Event, step
from core.names import stamp
from core.progress import with_child
from core.queue import QueuePause
from core.ratings import RATING
from core.records import (
    Accepted,
    ChildRef,
    Drop,
    Ended,
    Job,
    JobCard,
    JobState,
    Queued,
    Releasing,
    Training,
)
from core.safeguards import terms_of
from core.steps import Step
from core.tasks import ExitNote
from daemon.children import Children
from daemon.disk import raise_if_broken
from daemon.experience import note_training
from daemon.index import Incident, Index
from daemon.intake import Gates, Intake
from daemon.schedules import mark_of
from daemon.tasks import WORDS, make_task
from store import jobs, runs
from store.codec import write
from store.commands import put_answer
from store.durable import FULL
from store.journal import write_entry
from store.pauses import clear_pause, write_pause
from store.releases import place_release, read_releases
from store.targets import set_terms, set_trial, set_wish

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
            case f.CannotDecide():
                raise the_step.error  # the tick tells every step that fails
            case f.MakeJob():
                self._make_jobs([the_step], now)
            case f.TakeOut():
                self._take_out(the_step, now)
            case f.KeepRating():
                write(self._home.runs(the_step.job) / RATING, the_step.rating)
            case f.Move():
                self._move(self._index.job(the_step.job), the_step.event, the_step.facts, now)
            case f.Record():
                self._record(replace(self._index.job(the_step.job), facts=the_step.facts))
            case f.StartChild():
                self._start(the_step, now)
            case f.StopChild():
                self._children.stop(the_step.job, hung=the_step.hung)
            case f.HoldSlot():
                self._children.hold(the_step.slot, the_step.why)
                self._tell(now, "slot.paused" if the_step.why else "slot.goes_on", slot=the_step.slot, reason=the_step.why)
            case f.PlaceRelease():
                self._place(the_step, now)
            case f.SetWish():
                desired = set_wish(self._home, the_step.target, the_step.alias, the_step.wish, now, terms_of(self._index.config.deploy))
                wished = {"target": the_step.target, "adapter": the_step.alias, "release": the_step.wish.release or "base"}
                self._journal(now, "wish", **wished, fence=desired.fence, reason=the_step.reason)
            case f.SetTerms():
                set_terms(self._home, the_step.target, the_step.terms, now)
                self._journal(now, "terms", target=the_step.target)
            case f.SetTrial():
                set_trial(self._home, the_step.target, the_step.release, the_step.trial, now)
                self._journal(now, "rehearsal", target=the_step.target, release=the_step.release, trial=the_step.trial.id)
            case f.RetryJob():
                self._retry(the_step.command, the_step.of, now)
            case f.FireDue():
                self._fire(the_step, now)
            case f.PauseQueue() | f.ResumeQueue():
                self._pause(the_step, now)
            case f.Reply():
                put_answer(self._home, the_step.answer)
                answer = the_step.answer
                who = {"actor": the_step.actor, "reason": the_step.reason}
                self._journal(now, f"command.{the_step.log}", command=answer.command, ok=answer.ok, message=answer.message, **who)
            case _:
                self._intake.apply(the_step, now)

    def apply_together(self, steps: Sequence[Step], now: datetime) -> list[tuple[Step, Exception]]:
        """Carry out steps of one kind in order, with their syncs shared where the kind has any. Returns the steps that failed.

        Where one fails, each is carried out by itself: what is wrong with one holds up no other.
        """
        try:
            if makes := [one for one in steps if isinstance(one, f.MakeJob)]:
                self._make_jobs(makes, now)
                return []
            if self._intake.apply_together(steps, now):
                return []
        except Exception as error:  # part of the tick's border
            raise_if_broken(error)  # a sync that failed is not tried again
            log.warning("%s steps together failed, one by one now: %s", len(steps), error, extra={"action": "together_failed"})
        failed: list[tuple[Step, Exception]] = []
        for one in steps:
            try:
                self.apply(one, now)
            except Exception as error:  # part of the tick's border
                raise_if_broken(error)
                failed.append((one, error))
        return failed

    def _journal(self, now: datetime, action: str, **fields: object) -> None:
        write_entry(self._home.journal, now, action, **fields)
        self._tell(now, action, **fields)
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, ""))
        log.info("%s %s", action, words, extra={"action": action})

    # ---------------------------------------------------------------- jobs

    def _make_jobs(self, steps: Sequence[f.MakeJob], now: datetime) -> None:
        made_for = [self._index.drops[step.drop] for step in steps]
        wanted = []
        for drop in made_for:
            accepted = drop.facts
            assert isinstance(accepted, Accepted)
            if accepted.job not in self._index.jobs and accepted.job not in self._index.ended:
                frozen = self._index.resolved_for(drop)
                not_before = frozen["job"].get("not_before")
                queued = Queued(since=now, not_before=datetime.fromisoformat(not_before) if not_before else None)
                wanted.append((self._card(drop, accepted.job, int(frozen["job"].get("priority", 0)), now), queued, frozen))
        self._create(wanted)
        self._intake.jobs_were_made(made_for)

    def _create(self, wanted: Sequence[tuple[JobCard, Queued, Mapping[str, Any]]]) -> list[Job]:
        made = jobs.create_jobs(self._home, wanted)
        for job in made:
            card = job.card
            self._index.keep_job(job)
            self._journal(card.created_at, "job.queued", job=job.id, adapter=card.adapter, drop=card.drop, file=card.file, retry_of=card.retry_of)
        return made

    def _card(self, drop: Drop, job_id: str, priority: int, now: datetime, retry_of: str | None = None) -> JobCard:
        accepted = drop.facts
        assert isinstance(accepted, Accepted)
        assert self._index.base_sha256 is not None
        return JobCard(
            id=job_id,
            adapter=drop.claim.adapter,
            drop=drop.id,
            file=drop.claim.file,
            sha256=accepted.sha256,
            identity=accepted.identity,
            priority=priority,
            created_at=now,
            rows_of=self._index.shelf.list_for(drop, self._index.views.released_drops),
            base_sha256=self._index.base_sha256,
            backend=self._index.backend.name,
            retry_of=retry_of,
        )

    def _move(self, job: Job, event: Event, facts: object, now: datetime) -> None:
        after, _ = step(job, event, facts)  # type: ignore[arg-type]
        jobs.move_job(self._home, job, after)
        self._index.keep_job(after)
        if event is Event.TRAINED:
            note_training(self._index, job, after, now)
        reason = getattr(after.facts, "reason", "")
        self._journal(now, f"job.{after.state.value}", job=job.id, adapter=job.card.adapter, event=event.value, reason=reason)
        if isinstance(after.facts, Ended) and after.state in (JobState.FAILED, JobState.REFUSED):
            self._index.incident = Incident(now, after.facts.code or after.state.value.upper(), after.facts.reason, after.facts.hint, job.id)

    def _take_out(self, the_step: f.TakeOut, now: datetime) -> None:
        job = self._index.job(the_step.job)
        after = replace(job, card=self._index.shelf.without(job.card, the_step.drop))
        jobs.replace_card(self._home, after)
        self._index.keep_job(after)
        self._journal(now, "job.drop_taken_out", job=job.id, drop=the_step.drop)

    def _record(self, after: Job) -> None:
        jobs.record_facts(self._home, after)
        self._index.keep_job(after)

    def _start(self, the_step: f.StartChild, now: datetime) -> None:
        job = self._index.job(the_step.job)
        task = make_task(self._index, job, the_step)
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
        job_id = command.job_made
        drop = self._index.drops.get(of.drop)
        if drop is None:
            put_answer(self._home, Answer(command=command.id, ok=False, message=f"the drop of {of.id} is gone", hint="drop the file again", code="DROP_GONE"))
            return
        if job_id not in self._index.jobs and job_id not in self._index.ended:
            frozen = jobs.read_config(self._home, self._index.job(of.id))
            priority = self._index.job(of.id).card.priority
            self._create([(self._card(drop, job_id, priority, now, retry_of=of.id), Queued(since=now), frozen)])
        put_answer(self._home, Answer(command=command.id, ok=True, message=f"job {job_id} tries {of.id} again", made=job_id))

    # ---------------------------------------------------------------- the queue and the schedule

    def _pause(self, the_step: f.PauseQueue | f.ResumeQueue, now: datetime) -> None:
        if isinstance(the_step, f.PauseQueue):
            pause = QueuePause(at=now, actor=the_step.actor, reason=the_step.reason)
            write_pause(self._home, pause)
            self._index.pause = pause
        else:
            clear_pause(self._home)
            self._index.pause = None

    def _fire(self, the_step: f.FireDue, now: datetime) -> None:
        """The job's id ends with a mark of the entry and its time, so that a repeat after a crash finds it made."""
        due, made, views = the_step.due, "", self._index.views
        if the_step.skip:
            self._journal(now, "schedule.skipped", entry=due.entry, reason=the_step.skip)
        elif due.does == "train":
            mark = mark_of(due)
            found = (job for known in (views.active, views.queued, views.ended) for job in known if job.endswith(mark))
            made = next(found, "") or self.train_again(self._index.drops[due.drop], f"job-{stamp(now, mark)}", now)
        self._index.schedules.fired(due)
        self._journal(now, "schedule.fired", entry=due.entry, does=due.does, due=due.at.isoformat(), job=made)

    def train_again(self, drop: Drop, job_id: str, now: datetime) -> str:
        """Make a queued job on an accepted drop under this id, by its own config. Returns the id."""
        frozen = self._index.resolved_for(drop)
        (job,) = self._create([(self._card(drop, job_id, int(frozen["job"].get("priority", 0)), now), Queued(since=now), frozen)])
        return job.id


def describe(error: Exception) -> tuple[str, str, str]:
    """(code, what, hint) of a failed step, for status."""
    if isinstance(error, LoradError):
        return error.code, error.what, error.hint
    if isinstance(error, OSError) and error.errno is not None:
        hint = "free some space: lorad goes on by itself" if error.errno in FULL else "check the disk and its permissions"
        return ("DISK_FULL" if error.errno in FULL else "OS_ERROR"), f"{os.strerror(error.errno)}: {error.filename or ''}", hint
    return "STEP_FAILED", f"{type(error).__name__}: {error}", "see the daemon's log"
