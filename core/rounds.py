"""Decides about iterations: how far each is, whether a criterion was missed, and what follows from that. Pure.

Where an iteration stands is seen from its drop, its job and the targets, so that a daemon that was away finds it wherever it
has got to. What was seen is written before it is acted on. Before the release is live a missed criterion holds the job for a
person: queued it is paused, judged or on its way to the targets it is held. Once it is live, what is proven takes it back by
a wish for the release before, and anything else asks a person; `lorad iteration continue` or `stop` says what they decide.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from core import criteria
from core.accounts import part_of, waits_for
from core.commands import Answer, Command, CommandKind
from core.facts import Facts
from core.guarding import OPEN
from core.iterations import Criterion, Event, Flag, Iteration, IterationSeen, State, Weight, differs, missed, moved_to, step, with_part
from core.lifecycle import Event as JobEvent
from core.loopsteps import RecordIteration, WorkIteration
from core.queue import pause_words
from core.records import Accepted, DropState, Held, Job, JobState, Queued, Ranking, Releasing, VerdictWord
from core.steps import CannotDecide, Move, Record, Reply, SetWish, Step
from core.wire import Wish

S, E = State, Event
COUNTS_EVERY = timedelta(seconds=5)  # of what only counts on is written so often
WATCH_BEGINS = timedelta(seconds=30)  # after the flip the box's first word of its watch is waited for so long
OURS = "an iteration"  # who paused a job, in its words


def decide_iterations(facts: Facts, now: datetime, decided: Collection[str] = ()) -> Iterator[Step]:
    """The steps of every iteration that has not ended, and of which nobody has decided in this tick."""
    if facts.stopping:
        return
    for seen in facts.iterations:
        if seen.iteration.id not in decided:
            yield from _of_one(seen, facts, now)


def _of_one(seen: IterationSeen, facts: Facts, now: datetime) -> list[Step]:
    """The steps of one iteration. Where its records cannot be understood, that is told and the others go on."""
    try:
        return list(_decide(seen, facts, now))
    except Exception as error:  # the border of an iteration
        return [CannotDecide(job=seen.iteration.id, error=error)]


def _decide(seen: IterationSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    after = looked(seen, facts, now)
    if seen.is_new or differs(seen.iteration, after) or (after != seen.iteration and abs(now - seen.iteration.at) >= COUNTS_EVERY):
        yield RecordIteration(iteration=replace(after, at=now))
    if after.is_open:
        yield from _acts(replace(seen, iteration=after), facts, now)


def held_back(job: Job, facts: Facts) -> str | None:
    """What keeps a promoted job from its release: None: nothing; empty: it is still looked at; else why a person has to look."""
    ranking = job.facts
    assert isinstance(ranking, Ranking)
    seen = _of_job(job, facts)
    if seen is None or ranking.approved_by:
        return None
    if seen.trouble:
        return f"the security scan could not be done: {seen.trouble}"
    if seen.measured is None or seen.measured.of != ranking.verdict:
        return ""
    bounds, measured = facts.config.criteria, seen.measured
    found = (*criteria.of_training(measured, bounds), *criteria.of_verdict(measured, bounds), *criteria.of_security(measured))
    return _words(one for one in found if one.is_missed and one.weight is not Weight.WARNS) or None


def _of_job(job: Job, facts: Facts) -> IterationSeen | None:
    return next((seen for seen in facts.iterations if seen.iteration.drop == job.card.drop and seen.iteration.job in ("", job.id)), None)


def _words(found: Iterable[Criterion]) -> str:
    return "; ".join(one.words for one in found)


# ---------------------------------------------------------------- where it stands


def looked(seen: IterationSeen, facts: Facts, now: datetime) -> Iteration:
    """The iteration as it stands now."""
    iteration = seen.iteration
    accepted = seen.drop.facts if seen.drop is not None and isinstance(seen.drop.facts, Accepted) else None
    job_id = iteration.job or (accepted.job if accepted else "")
    job, ended = facts.jobs.get(job_id), facts.views.ended.get(job_id)
    if ended is not None:
        iteration = replace(iteration, job=job_id)
        if ended.state == JobState.RELEASED:
            return _released(replace(seen, iteration=replace(iteration, release=ended.facts.release or "", version=ended.facts.version)), facts, now)
        return _ended(iteration, JobState(ended.state), ended.facts.code, f"{job_id} {ended.state}: {ended.facts.reason}", now)
    if job is not None:
        iteration = moved_to(replace(iteration, job=job_id), _stage_of(job, iteration, accepted), now)
        work = job.facts
        if isinstance(work, Releasing):
            iteration = replace(iteration, release=work.release or "", version=work.version)
    elif seen.drop is None:
        if seen.refused:
            iteration = moved_to(iteration, S.GATE, now) if iteration.state in (S.SIGNALS, S.DROP) else iteration
            return step(iteration, E.FAIL, now, f"the gate refused the drop: {seen.refused}")
        return step(iteration, E.STOP, now, "its drop is gone")
    else:
        iteration = moved_to(iteration, S.DROP if seen.drop.state is DropState.SETTLING else S.GATE, now)
    return _told(replace(seen, iteration=iteration), job, facts, now)


def _stage_of(job: Job, iteration: Iteration, accepted: Accepted | None) -> State:
    work = job.facts
    match work:
        case Ranking():
            return S.SECURITY if work.word is VerdictWord.PROMOTE else S.VERDICT
        case Held():
            return iteration.state if iteration.state in (S.SECURITY, S.REHEARSAL, S.LIVE) else S.VERDICT
        case Releasing():
            return S.LIVE if work.fences else S.REHEARSAL
    return S.TRAIN if accepted is None or accepted.is_proven else S.GATE


def _ended(iteration: Iteration, state: JobState, code: str, reason: str, now: datetime) -> Iteration:
    before_verdict = iteration.state in (S.SIGNALS, S.DROP, S.GATE, S.TRAIN)
    if code == "VERDICT_REFUSED" and before_verdict:
        iteration = moved_to(iteration, S.VERDICT, now)
    elif code == "REHEARSAL_FAILED" and (before_verdict or iteration.state in (S.VERDICT, S.SECURITY)):
        iteration = moved_to(iteration, S.REHEARSAL, now)
    return step(iteration, E.STOP if state is JobState.CANCELLED else E.FAIL, now, reason)


def _told(seen: IterationSeen, job: Job | None, facts: Facts, now: datetime) -> Iteration:
    """The iteration with what is known of each stage, whether a person has to look, and what it waits for."""
    iteration, work = seen.iteration, job.facts if job else None
    for stage in iteration.stages:
        iteration = with_part(iteration, stage, **part_of(stage, replace(seen, iteration=iteration), job, facts))
    pause = work.reason if isinstance(work, Held) else work.paused if isinstance(work, Queued) else ""
    iteration = _with_waivers(replace(iteration, pause=pause), job)
    if pause:
        stages = [stage for stage, one in missed(iteration) if one.weight is not Weight.WARNS]
        iteration = replace(iteration, halted=tuple(dict.fromkeys((*iteration.halted, *stages))))
    return replace(_flagged(iteration), waits=waits_for(replace(seen, iteration=iteration), job, facts, now))


def _with_waivers(iteration: Iteration, job: Job | None) -> Iteration:
    """Who let a stage go on in which a person had to look."""
    work = job.facts if job else None
    ranking = work if isinstance(work, Ranking) else work.ranking if isinstance(work, Releasing) else None
    who = (ranking.approved_by or "") if ranking else "a person" if isinstance(work, Queued) and not work.paused else ""
    if who and not iteration.pause:
        for stage in iteration.halted:
            if stage in iteration.stages and not iteration.stages[stage].waived:
                iteration = with_part(iteration, stage, waived=who)
    return iteration


def _flagged(iteration: Iteration) -> Iteration:
    """Each stage that is not failed: completed but for the present one, and paused where a person has to look because of it."""
    to_look_at = {stage for stage, one in missed(iteration) if one.weight is not Weight.WARNS} if iteration.pause else set()
    for stage, part in iteration.stages.items():
        is_present = stage is iteration.state
        flag = Flag.PAUSED if stage in to_look_at or (is_present and iteration.pause) else Flag.IN_PROGRESS if is_present else Flag.COMPLETED
        if part.flag is not flag:
            iteration = with_part(iteration, stage, flag=flag)
    return iteration


# ---------------------------------------------------------------- once it is live


def _released(seen: IterationSeen, facts: Facts, now: datetime) -> Iteration:
    """Every target has said live: watched until the boxes' guards are done, taken back where a criterion is proven to be missed."""
    iteration = moved_to(seen.iteration, S.LIVE, now)
    if not facts.targets:
        return step(iteration, E.PASS, now, "live")
    target = facts.targets[0]
    live = target.live.get(iteration.adapter)
    seen = replace(seen, iteration=iteration)
    iteration = _told(seen, None, facts, now)
    if live != iteration.release:
        if iteration.back or iteration.release in target.refused:
            return step(iteration, E.ROLL_BACK, now, iteration.back or _guard_said(iteration, facts))
        if live is not None and facts.releases.get(live, 0) > (iteration.version or 0):
            return step(iteration, E.PASS, now, f"v{facts.releases[live]} took over")
        return step(iteration, E.ROLL_BACK, now, f"{live[:12] if live else 'the base'} was asked for in its place")
    part = iteration.stages[S.LIVE]
    open_ = () if part.waived else tuple(one for one in part.criteria if one.is_missed)
    proven = [one for one in open_ if one.weight is Weight.ROLLS_BACK]
    asking = [one for one in open_ if one.weight is Weight.ASKS]
    if iteration.back or proven:
        return replace(iteration, back=iteration.back or _words(proven), waits="the targets go back to the release before")
    if asking or (S.LIVE in iteration.halted and not part.waived):
        pause = _words(asking) or seen.iteration.pause or "a criterion was missed for a while"
        halted = tuple(dict.fromkeys((*iteration.halted, S.LIVE)))
        return _flagged(replace(iteration, pause=pause, halted=halted, waits="a person"))
    if _is_watched(iteration, facts, now):
        return iteration
    return step(iteration, E.PASS, now, "live, and its watch is over")


def _guard_said(iteration: Iteration, facts: Facts) -> str:
    for target in facts.targets:
        active = target.observed.active if target.observed else None
        state = active.watches.get(iteration.adapter) if active else None
        if state is not None and state.release == iteration.release and state.reason:
            return f"target {target.name} went back by its own guard: {state.reason}"
    return "a target refused it"


def _is_watched(iteration: Iteration, facts: Facts, now: datetime) -> bool:
    """Whether a target still compares it with the release before."""
    if facts.config.deploy.watch.window_s <= 0:
        return False
    states = [criteria.watch_of(target, iteration.adapter, iteration.release) for target in facts.targets]
    if any(state is not None and state.phase in OPEN for state in states):
        return True
    return not any(states) and abs(now - iteration.stages[S.LIVE].since) < WATCH_BEGINS


# ---------------------------------------------------------------- what follows


def _acts(seen: IterationSeen, facts: Facts, now: datetime) -> Iterator[Step]:
    iteration, job = seen.iteration, facts.jobs.get(seen.iteration.job)
    if iteration.back:
        yield from _go_back(iteration, facts)
        return
    if job is None:
        return
    stages = {stage for stage, one in missed(iteration) if one.weight is not Weight.WARNS}
    work = job.facts
    ranking = work if isinstance(work, Ranking) else work.ranking if isinstance(work, Held | Releasing) else None
    is_old = ranking is not None and (seen.measured is None or seen.measured.of != ranking.verdict)
    may_try = not seen.busy and not seen.trouble and (seen.rest_until is None or now >= seen.rest_until)
    if ranking is not None and ranking.verdict and ranking.best and is_old and may_try:
        yield WorkIteration(iteration=iteration.id, job=job.id)
    if isinstance(work, Queued) and S.GATE in stages and not work.paused:
        yield Record(job=job.id, facts=replace(work, paused=pause_words(OURS, _of_stage(iteration, S.GATE))))
    elif isinstance(work, Releasing) and S.REHEARSAL in stages and work.child is None and not work.fences and not work.cancel:
        reason = f"the rehearsal missed a criterion: {_of_stage(iteration, S.REHEARSAL)}"
        yield Move(job=job.id, event=JobEvent.HOLD, facts=Held(since=now, reason=reason, ranking=work.ranking))


def _of_stage(iteration: Iteration, stage: State) -> str:
    return _words(one for of, one in missed(iteration) if of is stage and one.weight is not Weight.WARNS)


def _go_back(iteration: Iteration, facts: Facts) -> Iterator[Step]:
    """Wishes for the release before, where a target serves this one; nothing while a newer job takes its place anyway."""
    alias = iteration.adapter
    known = _before(iteration, facts)
    if not known or any(job.card.adapter == alias and job.state is JobState.RELEASING for job in facts.views.active.values()):
        return
    for target in facts.targets:
        wish = Wish(release=known[0], replaces=iteration.release)
        is_asked = target.desired is not None and target.desired.aliases.get(alias) == wish
        if target.live.get(alias) == iteration.release and not is_asked:
            yield SetWish(target=target.name, alias=alias, wish=wish, reason=f"{iteration.id}: {iteration.back}")


def _before(iteration: Iteration, facts: Facts) -> tuple[str | None] | None:
    """The release whose place its own took; the base where that is not here, was refused or is being forgotten. None: no target says."""
    for target in facts.targets:
        active = target.observed.active if target.observed else None
        state = active.aliases.get(iteration.adapter) if active else None
        if state is not None and state.release == iteration.release:
            touched = any(state.previous in seen.touched for seen in facts.forgets)
            fit = state.previous in facts.releases and state.previous not in target.refused and not touched
            return (state.previous if fit else None,)
    return None


# ---------------------------------------------------------------- what a person says


def asked_of(command: Command, facts: Facts) -> Command | tuple[Step, ...]:
    """`continue` or `stop` as a command about its job, or as the steps that answer it."""
    wanted, what = command.details.get("iteration", ""), command.details.get("what", "")
    seen = next((one for one in facts.iterations if one.iteration.id == wanted), None)
    if seen is None:
        return (_answer(command, ok=False, message=f"no iteration {wanted!r} is open", hint="`lorad iteration list` names them", code="ITERATION_UNKNOWN"),)
    iteration, job = seen.iteration, facts.jobs.get(seen.iteration.job)
    who = command.actor or "a person"
    if what == "stop":
        return replace(command, kind=CommandKind.CANCEL, job=job.id) if job else _stop(command, iteration, who)
    if job is not None and isinstance(job.facts, Held):
        return replace(command, kind=CommandKind.APPROVE, job=job.id)
    if job is not None and isinstance(job.facts, Queued) and job.facts.paused:
        return replace(command, kind=CommandKind.RESUME, job=job.id)
    yes = _answer(command, message=f"{iteration.id} goes on")
    if iteration.state is S.LIVE and iteration.pause:
        return RecordIteration(iteration=replace(with_part(iteration, S.LIVE, waived=who), pause="")), yes
    return (yes,)


def _stop(command: Command, iteration: Iteration, who: str) -> tuple[Step, ...]:
    if iteration.state is not S.LIVE:
        hint = "it has no job yet: take the file out of the inbox, or wait"
        return (_answer(command, ok=False, message=f"{iteration.id} is at {iteration.state.value}", hint=hint, code="ILLEGAL_TRANSITION"),)
    after = replace(iteration, back=f"stopped by {who}" + (f": {command.reason}" if command.reason else ""))
    return RecordIteration(iteration=after), _answer(command, message=f"{iteration.id} ends: the targets go back to the release before")


def _answer(command: Command, *, ok: bool = True, message: str, hint: str = "", code: str = "") -> Reply:
    answer = Answer(command=command.id, ok=ok, message=message, hint=hint, code=code)
    return Reply(answer=answer, log=command.kind.value, actor=command.actor, reason=command.reason)
