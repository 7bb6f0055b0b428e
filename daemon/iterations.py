"""Follows every drop that the loop made by itself, from its signals to a release that serves (core/rounds.py decides).

What is decided is written to `iterations/` before it is acted on; a daemon that starts finds the open ones there, and where
they have got to in their drops, jobs and targets. It also knows whose loop a person stopped.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from core.alerts import Alert
from core.commands import Answer
from core.criteria import MISSING, UNTOKENISED
from core.errors import IntegrityError, LoradError
from core.iterations import Gated, Iteration, IterationSeen, Measured, begun
from core.loopsteps import RecordIteration, SetContinuous, WorkIteration
from core.records import Accepted, Drop, DropState, Held, Job, Ranking, Releasing
from daemon import clock
from daemon.findings import in_words
from daemon.index import Index
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.codec import dump_as, parse
from store.commands import put_answer
from store.drops import drop_folder, read_report, read_sidecar, rows_folder
from store.iterations import Continuous, Stop, open_iterations, read_continuous, write_continuous, write_iteration
from store.jobs import read_config
from store.journal import write_entry

log = logging.getLogger(__name__)

ITERATION = "iteration"  # the kind of its chores
LOOP = frozenset({"feedback", "curriculum"})  # who makes drops by itself, as their lineage says
OF_THE_WAY = frozenset({"no_activation", "rolled_back"})  # alerts about how a release got there, or about the one before
REST = timedelta(seconds=30)  # after a chore that failed
MOST_TRIES = 3


@dataclass(slots=True)
class _Known:
    """What is known of an open iteration beyond its file."""

    iteration: Iteration
    is_new: bool = False
    gate_mark: tuple[object, ...] = ()
    gated: Gated | None = None
    measured: Measured | None = None
    busy: str = ""  # key of the chore at work
    rest_until: datetime | None = None
    tries: int = 0
    trouble: str = ""
    is_gone: bool = False  # its drop left, refused or not: the folder was looked at
    refused: str = ""


class Iterations:
    """The open iterations. Args: tell: called with (now, action, fields) for every stage. critical: the critical alerts that are open."""

    def __init__(self, index: Index, worker: BackgroundWorker, tell: Callable[..., None], critical: Callable[[], tuple[Alert, ...]] = tuple) -> None:
        self._index, self._home, self._worker, self._tell, self._critical = index, index.home, worker, tell, critical
        self._open = {one.id: _Known(one) for one in open_iterations(self._home)}
        self._followed = {known.iteration.drop for known in self._open.values()}
        self._others: set[str] = set()  # drops on their way that are nobody's iteration
        self._continuous: Continuous | None = self._read_continuous()
        worker.hear(ITERATION, self._on_done)

    def is_stopped(self, adapter: str) -> bool:
        """Whether a person stopped the loop of this adapter; where the file is damaged, it counts as stopped for all."""
        return self._continuous is None or adapter in self._continuous.stopped

    def look(self) -> tuple[IterationSeen, ...]:
        """The iterations that have not ended, with those of drops that have just come in."""
        self._notice(clock.now())
        if not self._open:
            return ()
        alerts = self._critical()
        return tuple(self._seen(known, alerts) for _, known in sorted(self._open.items()))

    def apply(self, step: RecordIteration | WorkIteration | SetContinuous, now: datetime) -> None:
        """Carry out one step. Raises OSError, LoradError; the next tick decides again."""
        match step:
            case RecordIteration():
                self._record(step.iteration, now)
            case WorkIteration():
                self._measure(self._open[step.iteration], step.job)
            case SetContinuous():
                self._set(step, now)

    # ---------------------------------------------------------------- what is seen

    def _notice(self, now: datetime) -> None:
        jobless = self._index.shelf.jobless
        self._others &= jobless
        for drop_id in jobless - self._others - self._followed:
            drop = self._index.drops[drop_id]
            try:
                lineage = self._lineage(drop)
            except (OSError, LoradError):  # the gate tells what is wrong with the sidecar
                lineage = None
            if lineage is None or str(lineage.get("made_by")) not in LOOP:
                if lineage is not None or drop.state is not DropState.SETTLING:
                    self._others.add(drop_id)
                continue
            try:
                iteration = begun(drop, MappingProxyType(lineage), now)
            except (TypeError, ValueError, AttributeError) as error:  # anybody may write a sidecar
                log.warning("the lineage of %s is none that lorad makes: %s", drop_id, error, extra={"action": "lineage_strange"})
                self._others.add(drop_id)
                continue
            self._open[iteration.id] = _Known(iteration, is_new=True)
            self._followed.add(drop_id)

    def _lineage(self, drop: Drop) -> dict[str, Any] | None:
        """What the sidecar says that the rows were made of; None while it does not lie in the drop's folder."""
        if drop.claim.sidecar is None:
            return {}
        values = read_sidecar(drop_folder(self._home, drop))
        found = values.get("lineage") if values else None
        return found if isinstance(found, dict) else {} if values else None

    def _seen(self, known: _Known, alerts: tuple[Alert, ...]) -> IterationSeen:
        iteration = known.iteration
        drop = self._index.drops.get(iteration.drop)
        if drop is None:
            self._look_where_it_went(known)
        elif isinstance(drop.facts, Accepted):
            self._read_gate(known, drop.facts)
        mine = [alert for alert in alerts if alert.adapter == iteration.adapter and alert.job in ("", iteration.job) and alert.rule not in OF_THE_WAY]
        elsewhere = [alert for alert in alerts if not alert.adapter]
        return IterationSeen(
            iteration=iteration,
            is_new=known.is_new,
            drop=drop,
            refused=known.refused,
            gated=known.gated,
            measured=known.measured,
            busy=bool(known.busy),
            rest_until=known.rest_until,
            trouble=known.trouble,
            critical=tuple(f"{alert.rule}: {alert.title}" for alert in mine),
            elsewhere=tuple(f"{alert.rule}: {alert.title}" for alert in elsewhere),
        )

    def _look_where_it_went(self, known: _Known) -> None:
        if known.is_gone:
            return
        known.is_gone = True
        folder = self._home.drop(DropState.REJECTED, known.iteration.drop)
        report = read_report(folder)
        if report is not None:
            errors = [finding for finding in report.get("findings", ()) if finding.get("severity") == "error"]
            known.refused = "; ".join(in_words(finding) for finding in errors[:3]) or "the report says why"
        elif folder.is_dir():
            known.refused = "the report says why"

    def _read_gate(self, known: _Known, facts: Accepted) -> None:
        """Count what the gate let pass. Findings that are errors are of rows that were put aside: nothing trains on them."""
        mark = (facts.rows, facts.quarantined, facts.level, facts.is_proven)
        if mark == known.gate_mark:
            return
        known.gate_mark = mark
        report = read_report(rows_folder(self._home, known.iteration.drop)) or {}
        let_pass = [finding for finding in report.get("findings", ()) if finding.get("severity") != "error"]
        missing, untokenised = (sum(int(one.get("count") or 0) for one in let_pass if one.get("id") in ids) for ids in (MISSING, UNTOKENISED))
        known.gated = Gated(rows=facts.rows, quarantined=facts.quarantined, missing=missing, untokenised=untokenised)

    # ---------------------------------------------------------------- what is written

    def _record(self, iteration: Iteration, now: datetime) -> None:
        write_iteration(self._home, iteration)
        known = self._open[iteration.id]
        before, known.iteration = known.iteration, iteration
        if known.is_new or before.state is not iteration.state or before.pause != iteration.pause:
            known.is_new = False
            words = {"iteration": iteration.id, "adapter": iteration.adapter, "drop": iteration.drop, "job": iteration.job, "release": iteration.release}
            action = f"iteration.{'paused' if iteration.pause else iteration.state.value.replace(' ', '_')}"
            told = words | {"made_by": iteration.made_by, "of": iteration.of, "reason": iteration.pause or iteration.reason}
            write_entry(self._home.journal, now, action, **told)
            self._tell(now, action, **told)
        if not iteration.is_open:
            del self._open[iteration.id]
            self._followed.discard(iteration.drop)

    def _set(self, step: SetContinuous, now: datetime) -> None:
        """Write who stopped the loop of an adapter, or take that back, then answer: a repeat changes nothing."""
        command, home = step.command, self._home
        stops = command.details.get("what") == "stop"
        if self._continuous is None:
            self._continuous = self._read_continuous()
        if self._continuous is None:
            hint = "move it away; then stop again each loop that is not to run"
            put_answer(home, Answer(command=command.id, ok=False, message=f"{home.continuous} is damaged: no loop runs", hint=hint, code="RECORD_DAMAGED"))
            return
        known = dict(self._continuous.stopped)
        if stops != (command.adapter in known):
            if stops:
                known[command.adapter] = Stop(at=now, actor=command.actor, reason=command.reason)
            else:
                del known[command.adapter]
            after = replace(self._continuous, stopped=known)
            write_continuous(home, after)
            self._continuous = after
            told = {"adapter": command.adapter, "actor": command.actor, "reason": command.reason}
            write_entry(home.journal, now, f"continuous.{'stopped' if stops else 'started'}", **told)
            self._tell(now, f"continuous.{'stopped' if stops else 'started'}", **told)
        says = f"{command.adapter}: no trigger fires and no teacher is asked by itself until `lorad continuous start`; what is under way goes on"
        put_answer(home, Answer(command=command.id, ok=True, message=says if stops else f"{command.adapter}: the loop runs by itself"))

    def _read_continuous(self) -> Continuous | None:
        try:
            return read_continuous(self._home)
        except IntegrityError as error:
            log.error("%s; no loop runs by itself until it is mended", error.what, extra={"action": "record_damaged"})
            return None

    # ---------------------------------------------------------------- the chore

    def _measure(self, known: _Known, job_id: str) -> None:
        job = self._index.job(job_id)
        work = job.facts
        ranking = work if isinstance(work, Ranking) else work.ranking if isinstance(work, Held | Releasing) else None
        drop = self._index.drops.get(job.card.drop)
        assert ranking is not None, "only what was judged is measured"
        best = next(candidate for candidate in ranking.candidates if candidate.id == ranking.best)
        spec = {
            "job": job.id,
            "verdict": ranking.verdict,
            "candidate": {"path": best.path, "sha256": best.sha256},
            "dev_losses": [candidate.dev_loss for candidate in ranking.candidates],
            "answers": [path for key, path in ranking.scores.items() if key.startswith("answers/") and key.endswith(f"/{best.id}")],
            "rows": [self._rows_of(job, drop, drop.facts)] if drop is not None and isinstance(drop.facts, Accepted) else [],
            "specs": dict(self._index.config.specs),
            "metric": self._index.config.criteria.primary_metric,
        }
        key = f"{known.iteration.id} {ranking.verdict}"
        if self._worker.submit(Chore(kind=ITERATION, key=key, spec=spec)):
            known.busy = key

    def _rows_of(self, job: Job, drop: Drop, facts: Accepted) -> dict[str, Any]:
        columns = read_config(self._home, job)["values"].get("columns") or ()
        return {"drop": drop.id, "schema_id": facts.schema_id, "columns": list(columns)}

    def _on_done(self, done: ChoreDone) -> None:
        known = next((one for one in self._open.values() if one.busy == done.key), None)
        if known is None:
            return
        known.busy = ""
        if done.ok:
            known.measured = parse(Measured, dump_as(Any, done.result["measured"]))
            known.tries, known.trouble, known.rest_until = 0, "", None
            return
        known.tries, known.rest_until = known.tries + 1, clock.now() + REST
        known.trouble = done.message if known.tries >= MOST_TRIES else ""
