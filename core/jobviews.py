"""The jobs by what decisions ask of them, kept in step one job at a time, so that a tick never walks all that ended. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from core.records import Ended, Held, Job, JobState, Queued, Releasing, StateFacts
from core.waiting import Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """What later decisions need of an ended job."""

    id: str
    adapter: str
    drop: str
    identity: str
    state: str
    facts: Ended


@dataclass(slots=True)
class JobViews:
    """Written by `put` alone: each job as it stands, whenever it changes."""

    queued: Waiting = field(default_factory=Waiting)
    active: dict[str, Job] = field(default_factory=dict)  # neither queued nor ended
    ended: dict[str, EndedJob] = field(default_factory=dict)
    counts: Counter[JobState] = field(default_factory=Counter)
    versions: dict[str, int] = field(default_factory=dict)  # adapter -> highest version that a job took or reserved
    newest_released: dict[str, str] = field(default_factory=dict)  # adapter -> id of its newest released job
    released_drops: set[str] = field(default_factory=set)  # drops whose own job was released
    served: dict[str, datetime] = field(default_factory=dict)  # adapter -> when a job of it was last at work
    _same: dict[str, dict[str, JobState]] = field(default_factory=dict)  # identity -> jobs with it, at work or released

    @classmethod
    def of(cls, jobs: Iterable[Job], ended: Iterable[EndedJob] = ()) -> "JobViews":
        """The views of these jobs."""
        views = cls()
        for job in jobs:
            views.put(job)
        for one in ended:
            views.put_ended(one)
        return views

    def put(self, job: Job) -> None:
        """Take over how the job stands now."""
        self._take(job)
        if isinstance(job.facts, Ended):
            card = job.card
            self.put_ended(EndedJob(id=job.id, adapter=card.adapter, drop=card.drop, identity=card.identity, state=job.state.value, facts=job.facts))
            return
        self.counts[job.state] += 1
        if isinstance(job.facts, Queued):
            self.queued.put(job)
        else:
            self.active[job.id] = job
        if job.id in self.active or job.id in self.queued.special:
            self._same.setdefault(job.card.identity, {})[job.id] = job.state
        version = job.facts.version if isinstance(job.facts, Releasing) else None
        self._note(job.card.adapter, version, _at_work(job.facts))

    def _take(self, job: Job) -> None:
        """Forget how a job that has not ended stood before."""
        before = self.active.pop(job.id, None)
        if before is not None:
            self.counts[before.state] -= 1
        elif self.queued.take(job.card):
            self.counts[JobState.QUEUED] -= 1
        self._forget_same(job.card.identity, job.id)

    def _forget_same(self, identity: str, job: str) -> None:
        if same := self._same.get(identity):
            same.pop(job, None)
            if not same:
                del self._same[identity]

    def put_ended(self, job: EndedJob) -> None:
        """Take over how a job ended."""
        state = JobState(job.state)
        if job.id not in self.ended:
            self.counts[state] += 1
        self.ended[job.id] = job
        self._note(job.adapter, job.facts.version, job.facts.started_at)
        if state is JobState.RELEASED:
            self.newest_released[job.adapter] = max(self.newest_released.get(job.adapter, ""), job.id)
            self.released_drops.add(job.drop)
            self._same.setdefault(job.identity, {})[job.id] = state
        else:
            self._forget_same(job.identity, job.id)

    def _note(self, adapter: str, version: int | None, at: datetime | None) -> None:
        if version is not None:
            self.versions[adapter] = max(self.versions.get(adapter, 0), version)
        if at is not None and (adapter not in self.served or at > self.served[adapter]):
            self.served[adapter] = at

    def with_identity(self, identity: str) -> dict[str, JobState]:
        """The jobs with this identity that are on their way or released, with their states."""
        found = self._same.get(identity, {}) | dict.fromkeys(self.queued.with_identity(identity), JobState.QUEUED)
        return dict(sorted(found.items()))


def _at_work(facts: StateFacts) -> datetime | None:
    """The newest moment at which the job is known to have been at work."""
    match facts:
        case Queued():
            return facts.since if facts.checkpoint or facts.attempts else None
        case Ended():
            return facts.started_at
        case Held() | Releasing():  # whose own time is that of a verdict or a person
            return facts.ranking.since
    return facts.since
