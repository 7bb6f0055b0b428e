"""The report of a rejected drop: the gate's own, or one made here for a drop on which the gate gave no verdict."""

import json
import shlex
from pathlib import Path
from typing import Any

from core.gate import ACCEPTED_DROP
from core.records import Accepted, Deep, DeepState, Drop, DropState
from core.steps import RefuseDeep, RejectDrop
from daemon.gatekeeper import Gatekeeper
from daemon.index import Index
from store.drops import drop_folder
from validation.findings import Finding, Level, Severity
from validation.report import REPORT_JSON, REPORT_MARKDOWN, Report

CRASH = "GATE_CRASH"


class Rejection:
    """Finds or makes the reports of one drop. `gate` is the child that was asked about it."""

    def __init__(self, index: Index, drop: Drop, gate: Gatekeeper) -> None:
        self._index, self._drop, self._gate = index, drop, gate

    def reports(self, step: RejectDrop | RefuseDeep) -> tuple[dict[str, str], dict[str, Any]]:
        """(file name -> content) to write beside the file, and the report as plain values."""
        if not step.code:
            return _read(self._where_the_gate_wrote())
        finding = self._finding(step)
        if self._gate.is_at(self._drop.id) and (self._gate.folder_of(self._drop.id) / ACCEPTED_DROP / REPORT_JSON).is_file():
            return _with(finding, *_read(self._gate.folder_of(self._drop.id) / ACCEPTED_DROP))  # accepted by the gate, refused for another reason
        report = Report(
            file=self._drop.claim.file,
            sha256="",
            schema=self._config.schema_id,
            level=Level(self._level if step.code == CRASH else Level.QUICK),
            rows=0,
            findings=(finding,),
            stats={"log": self._gate.log_tail()} if step.code == CRASH else {},
        )
        tail = "".join(f"    {line}\n" for line in self._gate.log_tail()) if step.code == CRASH else ""
        page = report.to_markdown() + (f"\n## The end of the gate's log\n\n{tail}" if tail else "")
        raw = report.to_json()
        return {REPORT_JSON: raw + "\n", REPORT_MARKDOWN: page}, json.loads(raw)

    def _where_the_gate_wrote(self) -> Path:
        facts = self._drop.facts
        is_kept = isinstance(facts, Accepted) and isinstance(facts.deep, Deep) and facts.deep.state is DeepState.REFUSED
        return drop_folder(self._index.home, self._drop) if is_kept else self._gate.folder_of(self._drop.id)

    def _finding(self, step: RejectDrop | RefuseDeep) -> Finding:
        fix = self._reproduce() if step.code == CRASH else ""
        return Finding(id=step.code, severity=Severity.ERROR, name=f"drop.{step.code.lower()}", message=step.message, hint=step.hint, fix=fix)

    def _reproduce(self) -> str:
        """The command that shows the crash again, on the file where it will lie."""
        config, claim = self._config, self._drop.claim
        file = self._index.home.drop(DropState.REJECTED, self._drop.id) / claim.file
        words = ["lorad", "check", str(file), "--schema", config.schema_id, "--level", self._level, "--config", str(self._index.loader.path)]
        return shlex.join([*words, *(["--columns", ",".join(config.columns)] if config.columns else [])])

    @property
    def _config(self) -> Any:
        seen = self._index.sidecars.get(self._drop.id)
        return seen.config if seen is not None and seen.config is not None else self._index.config

    @property
    def _level(self) -> str:
        if self._drop.state is DropState.ACCEPTED:
            return Level.DEEP.value
        return self._gate.level_of(self._drop.id) or Level.STANDARD.value


def _read(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    raw = (folder / REPORT_JSON).read_text()
    return {REPORT_JSON: raw, REPORT_MARKDOWN: (folder / REPORT_MARKDOWN).read_text()}, json.loads(raw)


def _with(finding: Finding, reports: dict[str, str], plain: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The gate's report with one error more, which comes first."""
    own = Report(file=plain["file"], sha256=plain["sha256"], schema=plain["schema"], level=Level(plain["level"]), rows=plain["rows"], findings=(finding,))
    added = own.to_plain()["findings"]
    told = plain | {"verdict": own.verdict, "findings": [*added, *plain["findings"]]}
    page = f"{own.to_markdown()}\n# What the gate itself said\n\n{reports[REPORT_MARKDOWN]}"
    return {REPORT_JSON: json.dumps(told, ensure_ascii=False, indent=1) + "\n", REPORT_MARKDOWN: page}, told
