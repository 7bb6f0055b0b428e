"""Findings as status and journal may show them: without their messages, which quote the rows.

Row text lies in the inbox, the drops and few other places alone, so that forgetting a row can be proven.
"""

from typing import Any


def shown(finding: dict[str, Any]) -> dict[str, Any]:
    """A finding as status may show it: without its message, which quotes the row (row text lies in the drop's folder alone)."""
    return {key: finding.get(key) for key in ("id", "name", "severity", "count", "lines")}


def in_words(finding: dict[str, Any]) -> str:
    """`M02 msg.role, line 2`."""
    lines = ", ".join(str(line) for line in finding.get("lines") or [])
    return f"{finding.get('id', '')} {finding.get('name', '')}" + (f", line {lines}" if lines else "")
