"""Decides about what people ask for. Each command is answered once; repeating one does nothing. Pure.

A daemon that is killed between the steps of a command and its answer finds the command again. What it had done then
bears a time that is not before the command was made: so it knows its own work from that of others, and answers yes.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from core.commands import Answer, Command, CommandKind
from core.errors import IllegalTransition
from core.facts import Facts, incumbent_of, live_release
from core.forgetting import is_touched
from core.housekeeping import KINDS, decide_housekeeping
from core.lifecycle import Event, step
from core.loopsteps import FireTrigger, HearFeedback, SetContinuous, SetLevel
from core.progress import ended_by_person
from core.queue import pause_words
from core.rated import decide_rating, is_rated_since
from core.records import Held, Job, JobState, Queued, Ranking, Releasing, StateFacts, Training
from core.rounds import asked_of
from core.safeguards import ask_trial, trial_of
from core.steps import (
    BeginForget,
    Move,
    PauseQueue,
    Record,
    RecordForget,
    ReloadConfig,
    Reply,
    ResumeQueue,
    RetryJob,
    SetAside,
    SetWish,
    Step,
)
from core.wire import Wish

EVIDENCE_MISSING = "evidence missing"  # begins the reason of a job that is held because nothing could be judged


def decide_requests(facts: Facts, now: datetime) -> Iterator[Step]:
    """The steps of every waiting command, each closed by its answer.

    Of those about the same job, adapter, or the whole queue, one a tick: the second is decided on what the first has made.
    """
    begun: set[str] = set()
    for command in facts.commands:
        about = command.job or command.adapter
        if about in begun:
            continue
        begun.add(about)
        if done := _done_before(command, facts):
            yield _yes(command, done)
        elif now >= command.expires_at:
            yield _no(command, "the daemon read it too late", "say it again", "EXPIRED")
        else:
            yield from _decide(command, facts, max(now, command.made_at))


def _done_before(command: Command, facts: Facts) -> str:
    """What this very command has led to before the daemon was killed, in words; empty: nothing yet."""
    ended, job = facts.views.ended.get(command.job), facts.jobs.get(command.job)
    match command.kind:
        case CommandKind.CANCEL | CommandKind.REFUSE if ended is not None and ended.facts.at >= command.made_at:
            wanted = JobState.CANCELLED if command.kind is CommandKind.CANCEL else JobState.REFUSED
            return f"job {ended.id} is {wanted.value}" if ended.state == wanted else ""
        case CommandKind.APPROVE if ended is not None and ended.facts.at >= command.made_at:
            return f"job {ended.id} is released" if ended.state == JobState.RELEASED else ""
        case CommandKind.APPROVE if job is not None and isinstance(job.facts, Ranking | Releasing) and job.facts.since >= command.made_at:
            ranking = job.facts if isinstance(job.facts, Ranking) else job.facts.ranking
            mine = ranking.approved_by == (command.actor or "a person") or ranking.reason == "incumbent changed"
            return f"job {job.id} is approved and on its way" if mine else ""
        case CommandKind.RATE if job is not None and is_rated_since(job, command.made_at):
            return f"job {job.id} is judged again with the rating"
    return ""


def _decide(command: Command, facts: Facts, now: datetime) -> Iterator[Step]:
    match command.kind:
        case CommandKind.ROLLBACK:
            yield from _rollback(command, facts, now)
        case CommandKind.RETRY:
            yield from _retry(command, facts)
        case CommandKind.REHEARSE:
            yield from _rehearse(command, facts)
        case CommandKind.RELOAD:
            yield ReloadConfig(command=command)
        case CommandKind.FORGET:
            yield from _forget(command, facts)
        case CommandKind.FEEDBACK:
            yield HearFeedback(command=command)
        case CommandKind.TRIGGER:
            yield FireTrigger(command=command)
        case CommandKind.CURRICULUM:
            yield SetLevel(command=command)
        case CommandKind.CONTINUOUS:
            yield SetContinuous(command=command)
        case CommandKind.ITERATION:
            asked = asked_of(command, facts)
            yield from _decide(asked, facts, now) if isinstance(asked, Command) else asked
        case kind if kind in KINDS:
            yield from decide_housekeeping(command, facts)
        case CommandKind.PAUSE | CommandKind.RESUME if not command.job:
            yield from _on_queue(command, facts)
        case CommandKind.CANCEL | CommandKind.APPROVE | CommandKind.REFUSE | CommandKind.PAUSE | CommandKind.RESUME | CommandKind.RATE:
            job = facts.jobs.get(command.job)
            if job is None:
                yield _unknown(command, facts)
                return
            try:
                yield from _on_job(command, job, facts, now)
            except IllegalTransition as error:
                yield _no(command, error.what, error.hint, error.code)


def _on_job(command: Command, job: Job, facts: Facts, now: datetime) -> Iterator[Step]:
    if command.kind is CommandKind.CANCEL:
        yield _cancel(job, now)
        if isinstance(job.facts, Releasing):
            yield from _wish_for_live(job, job.facts, facts)
        kept = f"; its newest checkpoint stays, `lorad jobs show {job.id}` says where" if isinstance(job.facts, Training | Ranking | Held) else ""
        yield _yes(command, f"job {job.id} is being cancelled{kept}")
    elif command.kind in (CommandKind.PAUSE, CommandKind.RESUME):
        yield from _pause(command, job)
    elif command.kind is CommandKind.RATE:
        yield from decide_rating(command, job, now)
    elif command.kind is CommandKind.REFUSE:
        ranking = job.facts.ranking if isinstance(job.facts, Held) else None
        move = _checked(job, Event.REFUSE, ended_by_person(ranking, command.reason or "refused by a person", now, command.actor))
        yield SetAside(drop=job.card.drop, job=job.id, reason=f"refused by {command.actor or 'a person'}: {command.reason}")
        yield move
        yield _yes(command, f"job {job.id} is refused; later jobs do not train on its drop")
    else:
        yield from _approve(command, job, facts, now)


def _checked(job: Job, event: Event, facts: StateFacts) -> Move:
    step(job, event, facts)  # raises IllegalTransition with a hint
    return Move(job=job.id, event=event, facts=facts)


def _cancel(job: Job, now: datetime) -> Step:
    if isinstance(job.facts, Releasing) or (isinstance(job.facts, Training | Ranking) and job.facts.child is not None):
        return Record(job=job.id, facts=replace(job.facts, cancel=True))
    ranking = job.facts.ranking if isinstance(job.facts, Held) else job.facts if isinstance(job.facts, Ranking) else None
    return _checked(job, Event.CANCEL, ended_by_person(ranking, "cancelled", now))


def _pause(command: Command, job: Job) -> Iterator[Step]:
    """Pause or resume one job. What is so already is answered with yes: the wish holds."""
    work = job.facts
    if not isinstance(work, Queued | Training) or (isinstance(work, Training) and work.cancel):
        state = "being cancelled" if getattr(work, "cancel", False) else job.state.value
        hint = f"only a job that is queued or training can be paused and resumed; `lorad jobs cancel {job.id}` ends this one"
        yield _no(command, f"job {job.id} is {state}", hint, "ILLEGAL_TRANSITION")
        return
    words = pause_words(command.actor, command.reason) if command.kind is CommandKind.PAUSE else ""
    known = work.paused if isinstance(work, Queued) else work.pause
    if bool(words) == bool(known):
        yield _yes(command, f"job {job.id} is {known} already" if known else f"job {job.id} is not paused")
        return
    after = replace(work, paused=words) if isinstance(work, Queued) else replace(work, pause=words)
    yield Record(job=job.id, facts=after)
    if not words:
        yield _yes(command, f"job {job.id} may run again")
    elif isinstance(work, Training):
        yield _yes(command, f"job {job.id} writes a checkpoint and waits; `lorad jobs resume {job.id}` goes on from it")
    else:
        yield _yes(command, f"job {job.id} waits until `lorad jobs resume {job.id}`")


def _on_queue(command: Command, facts: Facts) -> Iterator[Step]:
    """Pause or resume everything."""
    if command.kind is CommandKind.PAUSE:
        if facts.paused:
            yield _yes(command, f"the queue is {facts.paused} already")
            return
        yield PauseQueue(actor=command.actor, reason=command.reason)
        yield _yes(command, "nothing trains until `lorad jobs resume`; a training under way writes a checkpoint and waits")
        return
    if facts.paused:
        yield ResumeQueue()
    waiting = f"; {len(facts.views.queued)} jobs wait" if facts.views.queued else ""
    yield _yes(command, f"the queue goes on{waiting}" if facts.paused else f"the queue is not paused{waiting}")


def _wish_for_live(job: Job, work: Releasing, facts: Facts) -> Iterator[Step]:
    """Take a release back from the targets that were asked for it: the job leaves once they have spoken."""
    for target in facts.targets:
        if target.name in work.fences:
            live = target.live.get(job.card.adapter)
            yield SetWish(target=target.name, alias=job.card.adapter, wish=Wish(release=live, replaces=live))


def _approve(command: Command, job: Job, facts: Facts, now: datetime) -> Iterator[Step]:
    if not isinstance(job.facts, Held):
        step(job, Event.APPROVE, job.facts)  # raises: only a held job can be approved
        return
    ranking = job.facts.ranking
    if ranking.verdict is None or ranking.best is None:
        hint = "drop a file with more rows: `lorad jobs cancel` ends this one"
        yield _no(command, f"job {job.id} has no verdict to approve: {job.facts.reason}", hint, "EVIDENCE_MISSING")
        return
    if job.card.backend == "stub" and not facts.config.allow_stub:
        yield _no(command, f"job {job.id} was made up by the stub backend", "set allow_stub in config.json for a dry run", "STUB_NOT_PROMOTED")
        return
    live, forced = incumbent_of(job.card.adapter, facts), command.details.get("force") == "yes"
    unread = job.facts.reason.startswith(EVIDENCE_MISSING)
    if unread and not forced:
        hint = "`lorad jobs retry` after `lorad jobs cancel` scores again; --force releases it unproven, and the journal says so"
        yield _no(command, f"job {job.id} has no verdict to approve: {job.facts.reason}", hint, "EVIDENCE_MISSING")
        return
    if live != ranking.incumbent and not forced:
        fresh = replace(ranking, since=now, incumbent=live, order=None, best=None, verdict=None, word=None, reason="incumbent changed")
        yield _checked(job, Event.INCUMBENT_CHANGED, fresh)
        yield _yes(command, f"job {job.id} is judged again: another release is live since its verdict")
        return
    against = "its evidence is missing" if unread else "its verdict is against another release than the one that is live" if live != ranking.incumbent else ""
    yield _checked(job, Event.APPROVE, Releasing(since=now, ranking=replace(ranking, incumbent=live, approved_by=command.actor or "a person")))
    yield _yes(command, f"job {job.id} is approved {f'by force, although {against}, ' if against else ''}and on its way")


def _retry(command: Command, facts: Facts) -> Iterator[Step]:
    ended = facts.ended.get(command.job)
    if ended is not None and (command.job_made in facts.jobs or command.job_made in facts.ended):
        yield RetryJob(command=command, of=ended)  # made before the daemon was killed: it only has to be answered
        return
    if ended is None:
        job = facts.jobs.get(command.job)
        if job is not None:
            yield _no(command, f"job {job.id} is {job.state.value}", "only an ended job can be tried again", "ILLEGAL_TRANSITION")
        else:
            yield _unknown(command, facts)
        return
    same = [job for job in facts.views.with_identity(ended.identity) if job != ended.id]
    if same:
        yield _no(command, f"job {same[0]} has the same rows and is on its way or released", "`lorad drop --again` trains on them once more", "DUPLICATE")
        return
    if ended.state == JobState.RELEASED:
        yield _no(command, f"job {ended.id} is released", "drop the file with --again to train on it once more", "ILLEGAL_TRANSITION")
        return
    if facts.base_sha256 is None:
        yield _no(command, "there is no base model to train on", "run `lorad models pull`, then try again", "BASE_MISSING")
        return
    yield RetryJob(command=command, of=ended)


def _rollback(command: Command, facts: Facts, now: datetime) -> Iterator[Step]:
    alias = command.adapter
    live = live_release(alias, facts)
    if live == command.to_release and live != command.from_release:
        yield _yes(command, f"{alias} serves {live[:12] if live else 'the base'}")
        return
    if live != command.from_release:
        yield _no(command, f"{alias} serves {live or 'the base'} now, not {command.from_release or 'the base'}", "look again and repeat", "INCUMBENT_CHANGED")
        return
    if command.to_release is not None and command.to_release not in facts.releases:
        yield _no(command, f"release {command.to_release!r} is not on this box", f"`lorad adapters show {alias}` lists them", "RELEASE_UNKNOWN")
        return
    if is_touched(command.to_release, facts):
        what = f"release {(command.to_release or '')[:12]} learnt from rows that are being forgotten"
        yield _no(command, what, "choose another release, or base", "FORGOTTEN")
        return
    for job in facts.views.active.values():
        if job.card.adapter == alias and isinstance(job.facts, Ranking | Releasing) and not job.facts.cancel:
            yield Record(job=job.id, facts=replace(job.facts, cancel=True))
    for target in facts.targets:
        wish = Wish(release=command.to_release, replaces=target.live.get(alias), allow=True)
        if target.desired is None or target.desired.aliases.get(alias) != wish:
            yield SetWish(target=target.name, alias=alias, wish=wish)
    yield _yes(command, f"{alias} goes back to {command.to_release[:12] if command.to_release else 'the base'}")


def _rehearse(command: Command, facts: Facts) -> Iterator[Step]:
    """Ask the targets (details `target`: only that one) to try a release; the command's id is that of the trial."""
    release, wanted = command.to_release or "", command.details.get("target", "")
    targets = [target for target in facts.targets if wanted in ("", target.name)]
    if release not in facts.releases:
        yield _no(command, f"release {release!r} is not on this box", f"`lorad adapters show {command.adapter}` lists them", "RELEASE_UNKNOWN")
    elif not targets:
        names = ", ".join(target.name for target in facts.targets)
        yield _no(command, f"no target {wanted!r}", f"targets: {names}", "TARGET_UNKNOWN")
    else:
        trial = trial_of(facts.config.deploy.rehearsal, command.id, command.adapter)
        for target in targets:
            yield from ask_trial(target, release, trial)
        yield _yes(command, f"asked {', '.join(target.name for target in targets)} to rehearse {release[:12]}")


def _forget(command: Command, facts: Facts) -> Iterator[Step]:
    """A new order to forget, or (details `now`) one that waits for no new release any more."""
    wanted = command.details.get("now", "")
    if not wanted:
        yield BeginForget(command=command)
        yield _reply(command, Answer(command=command.id, ok=True, message=f"order {command.forget_made} stands", made=command.forget_made))
        return
    order = next((seen.order for seen in facts.forgets if seen.order.id == wanted), None)
    if order is None:
        yield _no(command, f"no order {wanted!r} is open", "`lorad forget status` names them", "FORGET_UNKNOWN")
        return
    yield RecordForget(order=replace(order, at_once=True, waits=""))
    yield _yes(command, f"{order.id} waits for no new release any more")


def _unknown(command: Command, facts: Facts) -> Reply:
    ended = facts.ended.get(command.job)
    if ended is not None:
        return _no(command, f"job {ended.id} is {ended.state} already", f"`lorad jobs show {ended.id}` tells how it ended", "ILLEGAL_TRANSITION")
    return _no(command, f"no job {command.job!r}", "`lorad jobs list` names them", "JOB_UNKNOWN")


def _yes(command: Command, message: str) -> Reply:
    return _reply(command, Answer(command=command.id, ok=True, message=message))


def _no(command: Command, message: str, hint: str, code: str) -> Reply:
    return _reply(command, Answer(command=command.id, ok=False, message=message, hint=hint, code=code))


def _reply(command: Command, answer: Answer) -> Reply:
    return Reply(answer=answer, log=command.kind.value, actor=command.actor, reason=command.reason)
