"""`python -m ranking <run folder>`: carries out the RankTask in spec.json and ends with exit.json. Torch-free."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from core.errors import ChildError
from core.evaluation import RankingConfig
from core.exits import ChildExit
from core.records import VerdictWord
from core.tasks import ExitNote, RankTask
from ranking.evidence import RANKING, VERDICT, Rules
from ranking.order import order
from ranking.scores import EvidenceError
from ranking.verdict import judge, without_evidence
from store import codec
from store.child import clock, log_to_stderr, run_child

log = logging.getLogger("ranking")


def rules_of(settings: Mapping[str, object]) -> Rules:
    """What counts as better, from the job's frozen config. Raises ChildError (bad spec)."""
    try:
        ranking = RankingConfig.model_validate(settings.get("ranking", {}))
    except ValidationError as error:
        raise _bad_spec(f"settings.ranking of the spec: {error.errors()[0]['msg']}") from None
    allow_stub = settings.get("allow_stub", False)
    if not isinstance(allow_stub, bool):
        raise _bad_spec(f"settings.allow_stub of the spec is {allow_stub!r}")
    return Rules(
        resamples=ranking.resamples,
        seed=ranking.seed,
        margin=ranking.margin,
        min_gate_groups=ranking.min_gate_groups,
        allow_stub=allow_stub,
        rule=ranking.rule,
        retention=ranking.retention,
        floor=ranking.floor,
        metric=ranking.metric,
        suite_margin=ranking.suite_margin,
        suite_margins=ranking.suite_margins,
        critical_suites=ranking.critical_suites,
        suites=ranking.suites,
        rating=ranking.rating,
    )


def _bad_spec(what: str) -> ChildError:
    return ChildError(what, hint="the daemon wrote this spec: report it as a fault", code="SPEC_WRONG", exit_code=ChildExit.BAD_SPEC)


def rank(folder: Path) -> ExitNote:
    """Write ranking.json or verdict.json into the run folder. Raises ChildError, IntegrityError for a spec that cannot be carried out."""
    task = codec.read(RankTask, folder / "spec.json")
    rules = rules_of(task.settings)
    if task.purpose == "verdict":
        note = _give_verdict(folder, task, rules)
        _write_page(folder, task)
        return note
    if not task.candidates:
        raise _bad_spec("the spec names no candidate")
    try:
        found = order(task, rules)
    except EvidenceError as error:
        # Without an order there is no best to go on with, so this is no answer: the daemon holds the job at once.
        return replace(_hold(error, task), code=ChildExit.BAD_DATA, reason=error.what)
    codec.write(folder / RANKING, found)
    reason = f"{found.best} goes first, by {found.measure}; its dev loss per token is {found.places[0].loss:.4f}, the incumbent's {found.incumbent.loss:.4f}"
    return ExitNote(code=ChildExit.DONE, ended_at=clock(), best=found.best, reason=reason)


def _give_verdict(folder: Path, task: RankTask, rules: Rules) -> ExitNote:
    if task.best not in [candidate.id for candidate in task.candidates]:
        raise _bad_spec(f"the spec asks for a verdict on {task.best!r}, which is not a candidate")
    try:
        verdict = judge(task, rules)
    except EvidenceError as error:
        codec.write(folder / VERDICT, without_evidence(task, rules, error))
        return _hold(error, task)
    codec.write(folder / VERDICT, verdict)
    return ExitNote(code=ChildExit.DONE, ended_at=clock(), best=task.best, word=verdict.word, reason=verdict.sentence)


def _write_page(folder: Path, task: RankTask) -> None:
    """Leave the page for people. The verdict stands without it."""
    from ranking.page.document import write_page

    try:
        write_page(folder, task.job, task.this_drop)
    except OSError as error:
        log.warning("no page was written: %s; `lorad jobs report %s` makes one", error, task.job)


def _hold(error: EvidenceError, task: RankTask) -> ExitNote:
    return ExitNote(
        code=ChildExit.DONE,
        ended_at=clock(),
        best=task.best,
        word=VerdictWord.HOLD,
        reason=f"evidence missing: {error}",
        hint=error.hint,
        error=error.code,
    )


def main(argv: list[str]) -> int:
    """Run one task. Writes into the run folder only, exit.json last. Returns the exit status."""
    log_to_stderr()
    if len(argv) != 2:
        log.error("usage: python -m ranking <run folder>")
        return ChildExit.BAD_SPEC
    return run_child(Path(argv[1]), rank, unfit=ChildExit.BAD_SPEC)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
