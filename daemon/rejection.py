"""The report of a rejected drop: the gate's own, or one made here for a drop that never reached the gate."""

import json
from typing import Any

from core.facts import RejectDrop
from core.records import Drop, DropState
from daemon.gatekeeper import Gatekeeper
from daemon.index import Index
from validation.report import single


def reports_for(drop: Drop, step: RejectDrop, gate: Gatekeeper, index: Index) -> tuple[dict[str, str], dict[str, Any]]:
    """(file name -> content) to write beside the rejected file, and the report as plain values."""
    if not step.code and drop.state is DropState.GATING:
        raw = (gate.folder / "report.json").read_text()
        return {"report.json": raw, "report.md": (gate.folder / "report.md").read_text()}, json.loads(raw)
    seen = index.sidecars.get(drop.id)
    schema = seen.config.schema_id if seen is not None and seen.config is not None else index.config.schema_id
    report = single(file=drop.claim.file, schema=schema, code=step.code, message=step.message, hint=step.hint)
    raw = report.to_json()
    return {"report.json": raw, "report.md": report.to_markdown()}, json.loads(raw)
