"""What is told of each stage of an iteration: how much of it is done, its criteria, and what it waits for. Pure."""

from datetime import datetime
from typing import Any

from core import criteria
from core.facts import Facts
from core.iterations import IterationSeen, Measured, State
from core.queue import why_waits
from core.records import DropState, Job, Queued, Ranking, Releasing, Training

S = State
SCANS = 4  # checks of the security scan
FILES = 4  # of a ranking: dev scores, order, gate scores, verdict


def part_of(stage: State, seen: IterationSeen, job: Job | None, facts: Facts) -> dict[str, Any]:
    """What is known now of a stage that has begun, as changes of its Part; empty: nothing more than before."""
    bounds, measured = facts.config.criteria, _measured(seen, job)
    match stage:
        case S.DROP if stage is not seen.iteration.state:
            return {"done": 1, "total": 1, "unit": "files"}
        case S.GATE if seen.gated is not None:
            rows = seen.gated.rows
            return {"done": rows, "total": rows + seen.gated.quarantined, "unit": "rows", "criteria": criteria.of_gate(seen.gated, bounds)}
        case S.TRAIN:
            return _of_training(seen, job, facts) | ({"criteria": criteria.of_training(measured, bounds)} if measured else {})
        case S.VERDICT:
            told = {"criteria": criteria.of_verdict(measured, bounds)} if measured else {}
            return told | {"done": _files(job), "total": FILES, "unit": "files"}
        case S.SECURITY:
            return {"done": len(measured.looks), "total": SCANS, "unit": "checks", "criteria": criteria.of_security(measured)} if measured else {}
        case S.REHEARSAL:
            return _of_rehearsal(seen, job, facts)
        case S.LIVE:
            return _of_live(seen, facts)
    return {}


def _measured(seen: IterationSeen, job: Job | None) -> Measured | None:
    """What was measured, unless another verdict has come since."""
    work = job.facts if job else None
    ranking = work if isinstance(work, Ranking) else getattr(work, "ranking", None)
    if seen.measured is None or (isinstance(ranking, Ranking) and ranking.verdict and ranking.verdict != seen.measured.of):
        return None
    return seen.measured


def _of_training(seen: IterationSeen, job: Job | None, facts: Facts) -> dict[str, Any]:
    child = facts.children.get(job.id) if job is not None and isinstance(job.facts, Training) else None
    if child is not None and child.alive and child.step:
        return {"done": child.step, "total": child.steps, "unit": "steps"}
    if seen.measured is not None and seen.measured.steps:
        return {"done": seen.measured.steps, "total": seen.measured.steps, "unit": "steps"}
    return {}


def _files(job: Job | None) -> int:
    """How many of the four files of a ranking are there."""
    work = job.facts if job else None
    ranking = work if isinstance(work, Ranking) else getattr(work, "ranking", None)
    if not isinstance(ranking, Ranking):
        return FILES
    done = [any(name.startswith("dev/") for name in ranking.scores), ranking.order, any(name.startswith("gate/") for name in ranking.scores), ranking.verdict]
    return sum(map(bool, done))


def _of_rehearsal(seen: IterationSeen, job: Job | None, facts: Facts) -> dict[str, Any]:
    if not facts.config.deploy.rehearsal.enabled:
        return {"reason": "not asked for (deploy.rehearsal.enabled)"}
    release = seen.iteration.release
    if not release or not facts.targets:
        return {}
    trial = criteria.trial_result(facts.targets[0], seen, release)
    if trial is None:
        return {"total": facts.config.deploy.rehearsal.requests, "unit": "answers"} if isinstance(job.facts if job else None, Releasing) else {}
    found = criteria.of_rehearsal(trial, facts.targets[0], facts.config.criteria)
    return {"done": trial.requests - trial.errors, "total": trial.requests, "unit": "answers", "criteria": found}


def _of_live(seen: IterationSeen, facts: Facts) -> dict[str, Any]:
    iteration = seen.iteration
    live = [target for target in facts.targets if iteration.release and target.live.get(iteration.adapter) == iteration.release]
    told: dict[str, Any] = {"done": len(live), "total": len(facts.targets), "unit": "targets"}
    return told | ({"criteria": criteria.of_live(seen, facts.targets[0], facts)} if live and facts.targets[0] in live else {})


# ---------------------------------------------------------------- what it waits for


def waits_for(seen: IterationSeen, job: Job | None, facts: Facts, now: datetime) -> str:
    """What has to happen before it goes on, in words."""
    iteration = seen.iteration
    if iteration.pause:
        return "a person"
    if job is not None:
        return _of_job(seen, job, facts, now)
    if iteration.state is S.LIVE:
        return _watch(seen, facts)
    if seen.drop is not None and seen.drop.state is DropState.SETTLING:
        return "the file to be taken in"
    return "the gate" if seen.drop is not None and seen.drop.state is DropState.GATING else "its job"


def _of_job(seen: IterationSeen, job: Job, facts: Facts, now: datetime) -> str:
    work = job.facts
    match work:
        case Queued():
            return why_waits(job, facts, now) or "a free slot"
        case Training():
            return "the training"
        case Ranking(reason="turn"):
            return "its turn: an older job of the adapter is judged or on its way"
        case Ranking() if seen.iteration.state is S.SECURITY:
            return "the security scan"
        case Ranking():
            return work.reason or "the verdict"
        case Releasing(release=None):
            return "the release to be packed"
        case Releasing():
            return work.reason or "the targets"
    return ""


def _watch(seen: IterationSeen, facts: Facts) -> str:
    for target in facts.targets:
        state = criteria.watch_of(target, seen.iteration.adapter, seen.iteration.release)
        if state is not None:
            return f"target {target.name}, which watches it ({state.phase}) until {state.until:%Y-%m-%d %H:%M:%S} UTC"
    return "the targets' word of their watch"
