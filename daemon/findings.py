"""Findings as status and journal may show them: without their messages, which quote the rows.

Row text lies in the inbox, the drops and few other places alone, so that forgetting a row can be proven.
"""

from typing import Any

from validation.checks import CHECKS


def shown(finding: dict[str, Any]) -> dict[str, Any]:
    """A finding as status may show it: without its message, which quotes the row (row text lies in the drop's folder alone)."""
    return {"id": finding.get("id"), "name": name_of(finding)} | {key: finding.get(key) for key in ("severity", "count", "lines")}


def name_of(finding: dict[str, Any]) -> str:
    """`msg.role`: the name of the check; of a code that is no check's, such as DUPLICATE, `drop.duplicate`."""
    id = str(finding.get("id", ""))
    return next((check.name for check in CHECKS if check.id == id), f"drop.{id.lower()}")


def in_words(finding: dict[str, Any]) -> str:
    """`M02 msg.role, line 2`."""
    lines = ", ".join(str(line) for line in finding.get("lines") or [])
    return f"{finding.get('id', '')} {name_of(finding)}" + (f", line {lines}" if lines else "")
