"""A world in memory: applies the steps of `decide` the way the daemon does, with children and a box that the test scripts."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from core import steps as f
from core.commands import Command, CommandKind
from core.config import Config
from core.exits import ChildExit
from core.facts import Facts, TargetSeen
from core.jobviews import EndedJob
from core.lifecycle import Event, step
from core.names import stamp
from core.progress import models_to_score, with_child
from core.reconcile import decide
from core.records import (
    Candidate,
    ChildRef,
    DropList,
    Ended,
    Job,
    JobCard,
    JobState,
    Kind,
    Queued,
    Ranking,
    Releasing,
    Training,
    VerdictWord,
)
from core.safeguards import terms_of
from core.tasks import ChildSeen, ExitNote
from core.trends import Regression
from core.wire import Active, AliasState, Desired, Observed, Outcome, TrialResult, WatchState

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class World:
    """`jobs`, `box` and `children` survive a restart of the daemon; `alive` does not."""

    now: datetime = START
    instance: str = "daemon-1"
    config: Config = field(default_factory=lambda: Config(allow_stub=True))
    jobs: dict[str, Job] = field(default_factory=dict)
    ended: dict[str, Job] = field(default_factory=dict)
    notes: dict[tuple[str, str], ExitNote] = field(default_factory=dict)  # (job, run) -> exit.json
    alive: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[str, int] = field(default_factory=dict)
    releases: dict[str, int] = field(default_factory=dict)
    set_aside: set[str] = field(default_factory=set)
    answers: list[f.Reply] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    desired: Desired | None = None
    ledger: list[tuple[str, str | None]] = field(default_factory=list)  # (alias, release) in order of going live
    outcomes: dict[str, AliasState] = field(default_factory=dict)
    trials: dict[str, TrialResult] = field(default_factory=dict)
    watches: dict[str, WatchState] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    regressions: tuple[Regression, ...] = ()
    box_up: bool = True
    stopping: bool = False
    paused: str = ""
    closed: str = ""
    starts: list[str] = field(default_factory=list)

    # ---------------------------------------------------------------- making things

    def queue(self, adapter: str = "a/main", priority: int = 0) -> str:
        """A new queued job on a new drop."""
        self.now += timedelta(milliseconds=5)
        number = len(self.jobs) + len(self.ended)
        job_id = f"job-{stamp(self.now, f'{number:06x}')}"
        card = JobCard(
            id=job_id,
            adapter=adapter,
            drop=f"drop-{number}",
            file="x.jsonl",
            sha256=f"{number:064x}",
            identity=f"{number:064x}",
            priority=priority,
            created_at=self.now,
            rows_of=DropList(upto=f"drop-{number}", count=1, sha256="0"),
            base_sha256="base",
            backend="stub",
        )
        self.jobs[job_id] = Job(card=card, state=JobState.QUEUED, facts=Queued(since=self.now))
        return job_id

    def ask(self, kind: CommandKind, **fields: str | None) -> None:
        made: dict[str, object] = {"id": f"command-{len(self.answers)}", "made_at": self.now, "expires_at": self.now + timedelta(seconds=60), **fields}
        self.commands.append(Command(kind=kind, **made))  # type: ignore[arg-type]

    # ---------------------------------------------------------------- the outside

    def live(self, alias: str = "a/main") -> str | None:
        return next((release for name, release in reversed(self.ledger) if name == alias), None)

    def state(self, job: str) -> JobState:
        return (self.jobs.get(job) or self.ended[job]).state

    def working(self) -> list[tuple[str, str]]:
        return sorted(self.alive)

    def finish(self, job: str, *, code: int = ChildExit.DONE, word: VerdictWord = VerdictWord.PROMOTE) -> None:
        """The job's child ends with a whole exit.json that fits its kind."""
        facts = self.jobs[job].facts
        assert isinstance(facts, Training | Ranking | Releasing)
        assert facts.child is not None
        ref = facts.child
        note = ExitNote(code=code, ended_at=self.now, reason="said so" if code else "")
        if code == ChildExit.DONE and isinstance(facts, Ranking):
            if ref.kind is Kind.SCORE:
                models = models_to_score(replace(facts, child=None), ref.purpose)
                note = replace(note, scores={f"{ref.purpose}/{model}": f"scores/{ref.purpose}-{model}.jsonl" for model in models})
            elif ref.purpose == "order":
                note = replace(note, best=facts.candidates[-1].id)
            else:
                note = replace(note, word=word, reason=f"the verdict is {word}")
        elif code == ChildExit.DONE and isinstance(facts, Releasing):
            note = replace(note, release=f"release-of-{job}")
        self.notes[(job, ref.run)] = note
        self.alive.discard((job, ref.run))

    def lose(self, job: str) -> None:
        """The job's child is killed: no exit.json."""
        self.alive = {(owner, run) for owner, run in self.alive if owner != job}

    def restart(self) -> None:
        """kill -9 of the daemon: its children die with it."""
        self.alive.clear()
        self.instance = f"daemon-{int(self.instance.split('-')[1]) + 1}"

    def serve(self, *, refuse: str = "", defer: str = "") -> None:
        """The box acts on the wish, as serving does."""
        if not self.box_up or self.desired is None:
            return
        for alias, wish in self.desired.aliases.items():
            fence = self.desired.fences[alias]
            before = self.outcomes.get(alias, AliasState(release=None))
            if fence <= before.fence and before.outcome is not Outcome.DEFERRED:
                continue
            said = replace(before, fence=fence, wanted=wish.release, code="", reason="", outcome=Outcome.LIVE)
            if wish.replaces != before.release:
                said = replace(said, outcome=Outcome.REFUSED, code="INCUMBENT_CHANGED", reason="another release is live")
            elif refuse or defer:
                said = replace(said, outcome=Outcome.REFUSED if refuse else Outcome.DEFERRED, code=refuse or defer, reason="scripted")
            elif wish.release != before.release:
                said = replace(said, release=wish.release, previous=before.release)
                self.ledger.append((alias, wish.release))
            self.outcomes[alias] = said

    # ---------------------------------------------------------------- the tick

    def facts(self) -> Facts:
        told = {"aliases": dict(self.outcomes), "trials": dict(self.trials), "watches": dict(self.watches)}
        active = Active(box="box", sequence=len(self.ledger), fence_seen=self.desired.fence if self.desired else 0, at=self.now, **told)
        observed = Observed(target="local", at=self.now, reachable=self.box_up, active=active, reason="" if self.box_up else "it gives no sign of life")
        live = dict(self.ledger)
        target = TargetSeen(
            name="local",
            desired=self.desired,
            observed=observed,
            live=live,
            was_live=frozenset(release for _, release in self.ledger if release),
            refused=frozenset(self.refused),
        )
        versions: dict[str, int] = {}
        for job in (*self.jobs.values(), *self.ended.values()):
            version = getattr(job.facts, "version", None) or 0
            versions[job.card.adapter] = max(versions.get(job.card.adapter, 0), version)
        return Facts(
            instance=self.instance,
            config=self.config,
            backend="stub",
            base_sha256="base",
            stopping=self.stopping,
            paused=self.paused,
            closed=self.closed,
            jobs=dict(self.jobs),
            ended={job.id: self._ended(job) for job in self.ended.values()},
            children={job.id: seen for job in self.jobs.values() if (seen := self._child(job))},
            free_slots=() if any(self._slot_of(owner) is not None for owner, _ in self.alive) else (0,),
            targets=(target,),
            commands=tuple(self.commands),
            versions=versions,
            releases=dict(self.releases),
            regressions=self.regressions,
        )

    @staticmethod
    def _ended(job: Job) -> EndedJob:
        assert isinstance(job.facts, Ended)
        return EndedJob(id=job.id, adapter=job.card.adapter, drop=job.card.drop, identity=job.card.identity, state=job.state.value, facts=job.facts)

    def _slot_of(self, job: str) -> int | None:
        facts = self.jobs[job].facts
        return facts.child.slot if isinstance(facts, Training | Ranking | Releasing) and facts.child else None

    def _child(self, job: Job) -> ChildSeen | None:
        ref = job.facts.child if isinstance(job.facts, Training | Ranking | Releasing) else None
        if ref is None:
            return None
        if (job.id, ref.run) in self.alive:
            return ChildSeen(ref=ref, alive=True)
        note = self.notes.get((job.id, ref.run))
        done = note is not None and note.code == ChildExit.DONE
        candidates = (Candidate(step=4, path="x", sha256="a" * 64), Candidate(step=8, path="y", sha256="b" * 64)) if ref.kind is Kind.TRAIN and done else ()
        return ChildSeen(ref=ref, alive=False, note=note, candidates=candidates)

    def tick(self) -> int:
        """One tick. Returns the number of steps."""
        self.now += timedelta(seconds=1)
        steps = decide(self.facts(), self.now).steps
        for one in steps:
            self._apply(one)
        return len(steps)

    def settle(self, limit: int = 60) -> None:
        """Tick until nothing is left to do without an event from outside."""
        for _ in range(limit):
            self.serve()
            if not self.tick() and not self.wait():
                return
        raise AssertionError(f"never settles: {decide(self.facts(), self.now).steps}")

    def wait(self) -> bool:
        """Let the time pass until a job may be tried again. False where none waits for that."""
        moments = [job.facts.not_before for job in self.jobs.values() if isinstance(job.facts, Queued) and job.facts.not_before and not job.facts.paused]
        later = [moment for moment in moments if moment > self.now]
        free = not self.paused and not self.closed and bool(self.facts().free_slots) and not self.stopping
        self.now = min(later) if later and free else self.now
        return bool(later) and free

    def _apply(self, one: f.Step) -> None:
        match one:
            case f.Move():
                self._move(one.job, one.event, one.facts)
            case f.Record():
                self.jobs[one.job] = replace(self.jobs[one.job], facts=one.facts)
            case f.StartChild():
                self._start(one)
            case f.StopChild():
                self.finish(one.job, code=ChildExit.STOPPED)
            case f.PlaceRelease():
                work = self.jobs[one.job].facts
                assert isinstance(work, Releasing)
                self.releases[one.release] = work.version or 0
                self.jobs[one.job] = replace(self.jobs[one.job], facts=replace(work, child=None, release=one.release))
            case f.SetWish():
                fence = (self.desired.fence if self.desired else 0) + 1
                aliases = {**(self.desired.aliases if self.desired else {}), one.alias: one.wish}
                fences = {**(self.desired.fences if self.desired else {}), one.alias: fence}
                known, terms = self._known(), terms_of(self.config.deploy)
                self.desired = replace(known, fence=fence, aliases=aliases, fences=fences, watch=terms.watch, sets=terms.sets)
            case f.SetTerms():
                known = self._known()
                self.desired = replace(known, fence=known.fence + 1, watch=one.terms.watch, sets=one.terms.sets)
            case f.SetTrial():
                known = self._known()
                self.desired = replace(known, fence=known.fence + 1, trials={**known.trials, one.release: one.trial})
            case f.PauseQueue():
                self.paused = f"paused by {one.actor or 'a person'}"
            case f.ResumeQueue():
                self.paused = ""
            case f.SetAside():
                self.set_aside.add(one.drop)
            case f.Reply():
                self.answers.append(one)
                self.commands = [command for command in self.commands if command.id != one.answer.command]
            case _:
                raise AssertionError(f"not for this world: {one}")

    def _known(self) -> Desired:
        return self.desired or Desired(fence=0, aliases={}, fences={}, made_at=self.now)

    def _move(self, job_id: str, event: Event, facts: object) -> None:
        job, _ = step(self.jobs.pop(job_id), event, facts)  # type: ignore[arg-type]
        (self.ended if isinstance(job.facts, Ended) else self.jobs)[job.id] = job

    def _start(self, one: f.StartChild) -> None:
        job = self.jobs[one.job]
        self.runs[job.id] = self.runs.get(job.id, 0) + 1
        run = f"{self.runs[job.id]:02d}-{one.kind.value}"
        ref = ChildRef(run=run, kind=one.kind, purpose=one.purpose, instance=self.instance, slot=one.slot, started_at=self.now)
        self.starts.append(f"{one.kind.value} {one.purpose}".strip())
        if isinstance(job.facts, Queued):
            queued = job.facts
            training = Training(since=self.now, child=ref, attempts=queued.attempts, checkpoint=queued.checkpoint, micro_batch=queued.micro_batch)
            self._move(job.id, Event.START, training)
        else:
            self.jobs[job.id] = replace(job, facts=with_child(job.facts, ref))
        self.alive.add((job.id, run))

    def run_to_end(self, job: str, limit: int = 60) -> JobState:
        """Let every child succeed until the job has ended or is held."""
        for _ in range(limit):
            self.settle()
            if job in self.ended or self.jobs[job].state is JobState.HELD:
                return self.state(job)
            for owner, _run in self.working():
                self.finish(owner)
        raise AssertionError(f"{job} never ends: {self.jobs[job]}")
