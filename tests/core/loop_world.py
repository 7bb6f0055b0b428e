"""A world in which the loop made the drops: iterations beside the jobs, with reports, measures and watches that the test scripts."""

import sys
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from core import steps as f
from core.commands import CommandKind
from core.facts import Facts
from core.iterations import Gated, Iteration, IterationSeen, Looked, Measured, begun
from core.loopsteps import RecordIteration, WorkIteration
from core.records import Accepted, Claim, Drop, DropState, Gating, Job, Ranking
from core.wire import Capacity, WatchState

sys.path.insert(0, str(Path(__file__).parent))
from world import World

CLEAN = tuple(Looked(name=name) for name in ("secrets in rows", "secrets in answers", "trigger phrases", "adapter files"))
LINEAGE = {"made_by": "feedback", "trigger": "enough", "signals": ["a", "b", "c"]}


@dataclass
class LoopWorld(World):
    """`kept` survives a restart; `measured` is read anew by it."""

    kept: dict[str, Iteration] = field(default_factory=dict)
    drops: dict[str, Drop] = field(default_factory=dict)
    gated: Gated = field(default_factory=lambda: Gated(rows=90, quarantined=2))
    measure: Measured = field(default_factory=lambda: Measured(of="", gradient_norm=3.0, perplexity=5.0, steps=8, looks=CLEAN))
    measured: dict[str, Measured] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    refused_drop: str = ""
    critical: tuple[str, ...] = ()
    use: dict[str, float] = field(default_factory=dict)
    measures_at_once: bool = True
    written: int = 0

    def round(self, adapter: str = "a/main") -> str:
        """A job on a drop of the loop; its iteration is seen with the next tick."""
        job = self.queue(adapter)
        card = self.jobs[job].card
        claim = Claim(drop=card.drop, adapter=adapter, source="x", device=1, inode=1, size_bytes=1, mtime_ns=1, file=card.file, claimed_at=self.now)
        accepted = Accepted(at=self.now, job=job, sha256=card.sha256, identity=card.identity, rows=90, schema_id="chat_sft_v1", job_made=True)
        self.drops[card.drop] = Drop(claim=claim, state=DropState.ACCEPTED, facts=accepted)
        return job

    def at_the_gate(self, drop: str = "drop-early") -> Drop:
        """A drop of the loop that the gate looks at."""
        claim = Claim(drop=drop, adapter="a/main", source="x", device=1, inode=1, size_bytes=1, mtime_ns=1, file="x.jsonl", claimed_at=self.now)
        self.drops[drop] = Drop(claim=claim, state=DropState.GATING, facts=Gating(since=self.now))
        return self.drops[drop]

    def iteration(self) -> Iteration:
        (found,) = self.kept.values()
        return found

    def say(self, what: str, iteration: str) -> None:
        """A person's word about an iteration."""
        self.ask(CommandKind.ITERATION, adapter="a/main", actor="ann", details={"what": what, "iteration": iteration})  # type: ignore[arg-type]

    def watch(self, phase: str, **counts: float) -> None:
        """The box watches what is live."""
        release = self.live()
        assert release is not None
        state = WatchState(release=release, before=None, phase=phase, since=self.now, until=self.now + timedelta(minutes=10), **counts)  # type: ignore[arg-type]
        self.watches["a/main"] = state

    def facts(self) -> Facts:
        facts = super().facts()
        (target,) = facts.targets
        assert target.observed is not None
        capacity = Capacity(box="box", at=self.now, free_bytes=1, free_inodes=1, base_sha256="base", engine="stub", pid=1, use=self.use)
        return replace(facts, iterations=tuple(self._iterations()), targets=(replace(target, observed=replace(target.observed, capacity=capacity)),))

    def _iterations(self) -> list[IterationSeen]:
        new = {drop.id: begun(drop, LINEAGE, self.now) for drop in self.drops.values()}
        known = {one.drop for one in self.kept.values()}
        seen = [(one, False) for one in self.kept.values() if one.is_open] + [(one, True) for drop, one in new.items() if drop not in known]
        return [self._seen(one, is_new=is_new) for one, is_new in seen]

    def _seen(self, one: Iteration, *, is_new: bool) -> IterationSeen:
        told = {"measured": self.measured.get(one.id), "busy": one.id in self.busy, "critical": self.critical, "refused": self.refused_drop}
        drop = self.drops.get(one.drop)
        gated = self.gated if drop is not None and drop.state is DropState.ACCEPTED else None
        return IterationSeen(iteration=one, is_new=is_new, drop=drop, gated=gated, **told)  # type: ignore[arg-type]

    def _apply(self, one: f.Step) -> None:
        match one:
            case RecordIteration():
                self.kept[one.iteration.id] = one.iteration
                self.written += 1
            case WorkIteration():
                self.busy.add(one.iteration)
                if self.measures_at_once:
                    self.end_measure(one.iteration)
            case _:
                super()._apply(one)

    def end_measure(self, iteration: str) -> None:
        """The chore ends, with what the test says."""
        job: Job = self.jobs[self.kept[iteration].job]
        ranking = getattr(job.facts, "ranking", job.facts)
        assert isinstance(ranking, Ranking)
        assert ranking.verdict is not None
        self.busy.discard(iteration)
        self.measured[iteration] = replace(self.measure, of=ranking.verdict)

    def restart(self) -> None:
        super().restart()
        self.measured.clear()
        self.busy.clear()
