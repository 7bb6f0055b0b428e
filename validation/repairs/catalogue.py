"""The repairs that `lorad fix` offers, in the order in which they are applied."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.errors import UsageError
from validation import commands
from validation.findings import Finding
from validation.repairs import rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One repair. One that loses nothing is applied wherever the report offers it; any other must be asked for by name.

    `offered_by` are the findings that it mends; `by_name` says why it must be asked for, empty where it need not be.
    """

    name: str
    title: str
    offered_by: tuple[str, ...] = ()
    by_name: str = ""
    must_be_told: bool = False
    """Whether a finding offers it only by its command: not every row with such a finding can be mended without loss."""
    row: rows.Mend | None = None
    """Mends one row that is an object; None where the repair works on bytes or on the file as a whole."""


_ALL = (
    Repair(name="encoding", title="bytes that are no UTF-8, taken as Windows-1252", offered_by=("F05",), by_name="the encoding is a guess"),
    Repair(name="bom", title="byte order mark, taken away", offered_by=("F04", "J01")),
    Repair(name="unroll", title="values of an array or of several lines, one a line", offered_by=("J01", "J02", "J03")),
    Repair(name="decode", title="lists and objects that stood there as text, decoded", offered_by=("S05", "T01"), row=rows.decode),
    Repair(name="convert", title="rows of another layout, converted", offered_by=("S06", "S02"), must_be_told=True, row=rows.convert),
    Repair(name="nulls", title="keys that may be left out, but were null, left out", offered_by=("S04",), must_be_told=True, row=rows.nulls),
    Repair(name="columns", title="extra columns, moved into metadata", offered_by=("S03",), row=rows.columns),
    Repair(name="roles", title="roles under other names, renamed", offered_by=("M02",), row=rows.roles),
    Repair(name="mojibake", title="texts that were decoded wrongly, decoded rightly", offered_by=("B06",), row=rows.mojibake),
    Repair(name="redact", title="secrets and personal data, replaced by marks", offered_by=("D07", "D08"), by_name="text is lost"),
    Repair(name="drop", title="rows, left out", by_name="rows are lost"),
    Repair(name="dedup", title="rows that stood there before, left out", offered_by=("B02",), by_name="rows are lost"),
)
REPAIRS: Mapping[str, Repair] = MappingProxyType({repair.name: repair for repair in _ALL})


def chosen(names: Iterable[str]) -> frozenset[str]:
    """The repairs of these names. Raises UsageError, which names the nearest."""
    for name in names:
        if name not in REPAIRS:
            near = difflib.get_close_matches(name, REPAIRS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"there is no repair {name!r}", hint=f"{hint}Repairs: {', '.join(REPAIRS)}", code="REPAIR_UNKNOWN")
    return frozenset(names)


def offered(findings: Iterable[Finding]) -> frozenset[str]:
    """The repairs that these findings call for and that lose nothing."""
    told = [(finding.id, commands.parse(finding.fix) is not None) for finding in findings]
    return frozenset(repair.name for repair in _ALL if not repair.by_name and any(_offers(id, by_command, repair) for id, by_command in told))


def _offers(id: str, by_command: bool, repair: Repair) -> bool:
    return id in repair.offered_by and (by_command or not repair.must_be_told)
