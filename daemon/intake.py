"""Carries out the steps about drops: claim, gate, reject, accept, and the deep check of what was accepted."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core import steps as f
from core.facts import Entry
from core.gate import ACCEPTED_DROP, first_level
from core.names import stamp_after
from core.records import Accepted, Claim, Deep, DeepState, Drop, DropState, Gating, Settling
from core.steps import Step
from daemon.findings import in_words
from daemon.gatekeeper import Gatekeeper
from daemon.gatespec import make_gate_spec
from daemon.index import Incident, Index
from daemon.known import KnownFiles
from daemon.rejection import Rejection
from store import drops


@dataclass(frozen=True, slots=True)
class Gates:
    """The two gate children: of new drops, and of accepted ones in the background."""

    new: Gatekeeper
    background: Gatekeeper


class Intake:
    """Applies steps to drops. `tell` is called for every transition with its words."""

    def __init__(self, index: Index, gates: Gates, tell: Callable[..., None]) -> None:
        self._index = index
        self._home = index.home
        self._gate, self._deep = gates.new, gates.background
        self._tell = tell
        self._known = KnownFiles(index)
        self._newest_job = max(index.jobs.newest(), index.ended.newest())

    def apply(self, the_step: Step, now: datetime) -> None:
        """Carry out one step. Raises OSError and LoradError; the next tick decides again."""
        match the_step:
            case f.TakeDrop():
                self._take([the_step], now)
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
                self._accept([the_step], now)
            case f.SetAside():
                drop, accepted = self._accepted(the_step.drop)
                self._change(drop, replace(accepted, set_aside=the_step.reason))
                self._tell(now, "drop.set_aside", drop=drop.id, reason=the_step.reason)
            case _:
                self._apply_to_accepted(the_step, now)

    def apply_together(self, steps: Sequence[Step], now: datetime) -> bool:
        """Carry out steps of one kind, in order, with their syncs shared. False, and nothing done, for a kind that shares none.

        After an error some steps may be done, each wholly or not at all as far as a reader can see; all may be repeated.
        """
        if takes := [step for step in steps if isinstance(step, f.TakeDrop)]:
            self._take(takes, now)
        elif accepts := [step for step in steps if isinstance(step, f.AcceptDrop)]:
            self._accept(accepts, now)
        elif gates := [step for step in steps if isinstance(step, f.GateDrop)]:
            for step in gates:  # none is checked as if one behind it had been accepted
                if self._gate.takes(step.drop):
                    self._gate.clear(step.drop)
            for step in gates:
                self._gate_drop(step, now)
        else:
            return False
        return True

    def _apply_to_accepted(self, the_step: Step, now: datetime) -> None:
        """The check at level deep in the background."""
        match the_step:
            case f.DeepenDrop():
                self._deepen(the_step, now)
            case f.StopDeep():
                self._deep.close()
                self._deep.clear()
            case f.PassDeep():
                self._pass(the_step, now)
            case f.RefuseDeep():
                self._refuse(the_step, now)
            case f.PostponeDeep():
                drop, accepted = self._accepted(the_step.drop)
                self._change(drop, replace(accepted, deep=replace(accepted.deep or Deep(), not_before=the_step.until)))
                self._deep.clear()
            case _:
                raise AssertionError(f"nobody carries out {the_step}")

    def _accepted(self, drop_id: str) -> tuple[Drop, Accepted]:
        drop = self._index.drops[drop_id]
        assert isinstance(drop.facts, Accepted)
        return drop, drop.facts

    def _change(self, drop: Drop, facts: Accepted) -> Drop:
        """Make a change of an accepted drop's facts durable."""
        after = replace(drop, facts=facts)
        drops.move_drop(self._home, drop, after)
        self._index.keep_drop(after)
        return after

    # ---------------------------------------------------------------- into the gate

    def _take(self, steps: Sequence[f.TakeDrop], now: datetime) -> None:
        claims = []
        newest = self._index.shelf.newest
        for entry in (step.entry for step in steps):
            newest = f"drop-{stamp_after(newest, now, secrets.token_hex(3))}"
            claims.append(_claim(newest, entry, now))
        claimed = drops.begin_claims(self._home, claims)
        for drop in claimed:
            self._index.keep_drop(drop)
        drops.finish_claims(self._home, claimed)
        for claim in claims:
            self._tell(now, "drop.claimed", drop=claim.drop, adapter=claim.adapter, file=claim.file)

    def _forget(self, drop: str, now: datetime) -> None:
        drops.forget_claim(self._home, self._index.drops[drop])
        self._tell(now, "drop.vanished", drop=drop, file=self._index.drops[drop].claim.file)
        self._index.lose_drop(drop)

    def _gate_drop(self, the_step: f.GateDrop, now: datetime) -> None:
        drop = self._index.drops[the_step.drop]
        if not self._gate.takes(drop.id):
            return  # its child has just died over another one
        seen = self._index.sidecars[drop.id]
        gating = replace(drop, state=DropState.GATING, facts=Gating(since=now, crashes=the_step.crashes))
        drops.to_gate(self._home, drop, gating)
        self._index.keep_drop(gating)
        level = first_level(seen.level, self._index.config.validation.background_deep)
        self._gate.clear(drop.id)
        self._gate.submit(make_gate_spec(self._index, replace(seen, drop=gating), level, self._known, self._gate.waiting()))

    def _settle_again(self, drop_id: str, now: datetime) -> None:
        drop = self._index.drops[drop_id]
        self._gate.clear(drop.id)
        found = (drops.drop_folder(self._home, drop) / drops.ORIGINAL).lstat()
        claim = replace(drop.claim, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)
        quiet_until = datetime.fromtimestamp(now.timestamp() + self._index.config.validation.settle_s, now.tzinfo)
        again = Drop(claim=claim, state=DropState.SETTLING, facts=Settling(since=now, quiet_until=quiet_until))
        drops.move_drop(self._home, drop, again)
        self._index.keep_drop(again)
        self._tell(now, "drop.changed_while_read", drop=drop.id, file=claim.file)

    # ---------------------------------------------------------------- out of the gate

    def _reject(self, the_step: f.RejectDrop, now: datetime) -> None:
        drop = self._index.drops[the_step.drop]
        reports, report = Rejection(self._index, drop, self._gate).reports(the_step)
        folder = drops.reject_drop(self._home, drop, reports)
        self._gate.clear(drop.id)
        self._index.lose_drop(drop.id)
        first: dict[str, Any] = next((finding for finding in report["findings"] if finding["severity"] == "error"), {})
        self._index.note_findings(now, drop, "refused", report)
        what = the_step.message or in_words(first)
        hint = the_step.hint or f"read {folder / 'report.md'}"
        self._index.incident = Incident(now, str(first.get("id", "")), f"{drop.claim.file} was refused: {what}", hint, drop.id)
        self._tell(now, "drop.rejected", drop=drop.id, file=drop.claim.file, code=first.get("id", ""))

    def _accept(self, steps: Sequence[f.AcceptDrop], now: datetime) -> None:
        moves, newest = [], self._newest_job
        for step in steps:
            drop = self._index.drops[step.drop]
            newest = f"job-{stamp_after(newest, now, secrets.token_hex(3))}"
            accepted = Accepted(
                at=now,
                job=newest,
                sha256=step.sha256,
                identity=step.identity,
                rows=step.rows,
                quarantined=step.quarantined,
                schema_id=step.schema_id,
                level=step.level,
                again=self._index.sidecars[drop.id].again,
                deep=Deep() if step.deep else None,
            )
            moves.append((drop, replace(drop, state=DropState.ACCEPTED, facts=accepted), self._gate.folder_of(drop.id) / ACCEPTED_DROP))
        self._newest_job = newest
        drops.accept_drops(self._home, moves, self._index.keep_drop)
        for _, after, _ in moves:
            assert isinstance(after.facts, Accepted)
            self._gate.clear(after.id)
            self._note(now, after)
            counts = {"rows": after.facts.rows, "quarantined": after.facts.quarantined or None}
            self._tell(now, "drop.accepted", drop=after.id, file=after.claim.file, **counts, sha256=after.facts.sha256, job=after.facts.job)

    def _note(self, now: datetime, drop: Drop) -> None:
        """Remember what the gate found in an accepted drop."""
        report = drops.read_report(drops.rows_folder(self._home, drop.id))
        if report is not None and report.get("findings"):
            self._index.note_findings(now, drop, "accepted", report)

    def jobs_were_made(self, made: Sequence[Drop]) -> None:
        """Mark the drops; what was dropped is kept only while a check is open that may send it back."""
        marked = [replace(drop, facts=replace(self._accepted(drop.id)[1], job_made=True)) for drop in made]
        drops.mark_drops(self._home, marked)
        for drop in marked:
            self._index.keep_drop(drop)
            if self._accepted(drop.id)[1].is_proven:
                drops.discard_original(self._home, drop)

    # ---------------------------------------------------------------- the deep check of an accepted drop

    def _deepen(self, the_step: f.DeepenDrop, now: datetime) -> None:
        drop, accepted = self._accepted(the_step.drop)
        if accepted.deep is None or accepted.deep.crashes != the_step.crashes:
            drop = self._change(drop, replace(accepted, deep=replace(accepted.deep or Deep(), crashes=the_step.crashes)))
        seen = self._index.sidecars[drop.id]
        self._deep.submit(make_gate_spec(self._index, replace(seen, drop=drop), "deep", self._known))
        self._tell(now, "drop.deep_check", drop=drop.id, file=drop.claim.file)

    def _pass(self, the_step: f.PassDeep, now: datetime) -> None:
        drop, accepted = self._accepted(the_step.drop)
        drops.take_over(self._home, drop, self._deep.folder_of(drop.id) / ACCEPTED_DROP)
        passed = replace(accepted.deep or Deep(), state=DeepState.PASSED)
        after = self._change(drop, replace(accepted, level="deep", deep=passed, rows=the_step.rows, quarantined=the_step.quarantined))
        self._deep.clear()
        drops.discard_original(self._home, after)
        self._note(now, after)
        self._tell(now, "drop.deep_passed", drop=drop.id, file=drop.claim.file)

    def _refuse(self, the_step: f.RefuseDeep, now: datetime) -> None:
        drop, accepted = self._accepted(the_step.drop)
        reports, report = Rejection(self._index, drop, self._deep).reports(the_step)
        drops.keep_reports(self._home, drop, reports)
        code = next((str(finding["id"]) for finding in report["findings"] if finding["severity"] == "error"), the_step.code)
        self._change(drop, replace(accepted, deep=replace(accepted.deep or Deep(), state=DeepState.REFUSED, code=code)))
        if self._deep.is_at(drop.id):
            self._deep.clear()
        self._tell(now, "drop.deep_refused", drop=drop.id, file=drop.claim.file, code=code)


def _claim(drop: str, entry: Entry, now: datetime) -> Claim:
    return Claim(
        drop=drop,
        adapter=entry.adapter,
        source=entry.source,
        device=entry.device,
        inode=entry.inode,
        size_bytes=entry.size_bytes,
        mtime_ns=entry.mtime_ns,
        total_bytes=entry.total_bytes,
        file=Path(entry.source).name,
        sidecar=entry.sidecar,
        problem=entry.problem,
        claimed_at=now,
    )
