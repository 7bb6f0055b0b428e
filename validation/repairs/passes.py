"""One pass of repairs over a file: read, mend, write elsewhere, count.

Holds one row at a time, besides eight bytes for each line (where it came from) and, to find doubles, a hash for each row.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from core.errors import LoradError
from rendering.specs import BAD_JSON, Spec
from validation.case import Case
from validation.checks.files import BOM
from validation.checks.parse import MAX_DEPTH, forgiving
from validation.control import ControlTokens
from validation.findings import SHOWN_LINES, printable, shown
from validation.repairs.catalogue import REPAIRS
from validation.repairs.rows import Change
from validation.repairs.units import Unit, as_utf8, blocks_of, line_units, unrolled

_NO_TOKENS = ControlTokens()
_MOST_DIGITS = 300  # of an integer; the forgiving parser cuts longer ones
DOUBLE = "double"
_ROW_REPAIRS = tuple(repair for repair in REPAIRS.values() if repair.row)
_OF_TYPED_ROWS = ("mojibake", "redact")
_TEXT_OF_JSON = (b'"[', b'"{', b'"\\"')  # a string that may hold JSON: a row with one may still be a row of the spec


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPlan:
    """What a pass does. `drop` maps lines of the file that is read to the reason why they are left out."""

    spec: Spec
    active: frozenset[str]
    drop: Mapping[int, str] = field(default_factory=dict)
    origins: "array[int] | None" = None  # lines of the first file that the lines of this one came from; None: this is the first


@dataclass(slots=True)
class Applied:
    """What one repair did: rows, the first lines of the file as it was given, and one example, safe to print."""

    name: str
    rows: int = 0
    lines: list[int] = field(default_factory=list)
    before: str = ""
    after: str = ""

    def add(self, line: int, before: str = "", after: str = "") -> None:
        """One more row."""
        self.rows += 1
        if len(self.lines) < SHOWN_LINES and line not in self.lines:
            self.lines.append(line)
        if self.rows == 1:
            self.before, self.after = _safe(before), _safe(after)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a pass has done. `origins` has an entry for each line that was written."""

    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    applied: dict[str, Applied] = field(default_factory=dict)
    origins: "array[int]" = field(default_factory=lambda: array("Q"))

    def note(self, name: str, line: int, before: str = "", after: str = "") -> None:
        """One row of the first file was mended by this repair."""
        self.applied.setdefault(name, Applied(name)).add(line, before, after)

    def check(self) -> None:
        """Raises LoradError where a row got lost: what was read is what was written and what was left out."""
        if self.rows_in != self.rows_out + self.dropped.total():
            raise LoradError(
                f"{self.rows_in:,} rows were read, {self.rows_out:,} written and {self.dropped.total():,} left out",
                hint="nothing was written; please report this as a bug, with the command",
                code="COUNTS_DIFFER",
            )


def run_pass(source: BinaryIO, destination: BinaryIO, plan: PassPlan) -> Outcome:
    """Copy the source with the active repairs. Raises LoradError UNROLL_BROKEN, COUNTS_DIFFER; OSError."""
    outcome = Outcome()
    rows = _Rows(plan, outcome)
    for unit in _units(source, plan, outcome):
        outcome.rows_in += unit.is_row
        unit = rows.mended(unit)
        if not rows.stays(unit):
            continue
        destination.write(unit.raw + unit.end)
        outcome.rows_out += unit.is_row
        if unit.piece <= 1:
            outcome.origins.append(_origin(plan, unit.line))
    outcome.check()
    return outcome


def _origin(plan: PassPlan, line: int) -> int:
    return plan.origins[line - 1] if plan.origins is not None else line


def _units(source: BinaryIO, plan: PassPlan, outcome: Outcome) -> Iterator[Unit]:
    blocks = blocks_of(source)
    if "encoding" in plan.active:
        blocks = as_utf8(blocks, _once_a_line(plan, outcome))
    if "bom" in plan.active:
        blocks = _without_mark(blocks, plan, outcome)
    if "unroll" not in plan.active:
        yield from line_units(blocks)
        return
    for unit in unrolled(blocks):
        if unit.changed:
            outcome.note("unroll", _origin(plan, unit.line), f"a value that begins in line {_origin(plan, unit.line)}", "a line of its own")
        yield unit


def _once_a_line(plan: PassPlan, outcome: Outcome) -> Any:
    last = 0

    def told(line: int, wrong: bytes, right: str) -> None:
        nonlocal last
        if line != last:
            outcome.note("encoding", _origin(plan, line), " ".join(f"0x{byte:02x}" for byte in wrong), right)
            last = line

    return told


def _without_mark(blocks: Iterable[bytes], plan: PassPlan, outcome: Outcome) -> Iterator[bytes]:
    """The first mark lies before the first value, in whatever it may be wrapped; those inside are taken off row by row."""
    stream = iter(blocks)
    first = next(stream, b"")
    while len(first) < len(BOM) and (more := next(stream, b"")):
        first += more
    if first.startswith(BOM):
        outcome.note("bom", _origin(plan, 1), "0xef 0xbb 0xbf")
    yield first.removeprefix(BOM)
    yield from stream


class _Rows:
    """Mends rows one by one and says which stay."""

    def __init__(self, plan: PassPlan, outcome: Outcome) -> None:
        self._plan = plan
        self._outcome = outcome
        self._repairs = [repair for repair in _ROW_REPAIRS if repair.name in plan.active]
        self._works_on_rows = bool(self._repairs) or "redact" in plan.active
        self._seen: set[int] = set()

    def mended(self, unit: Unit) -> Unit:
        """The unit with the row repairs that apply to it; the very same where none does."""
        if unit.piece or not unit.is_row:
            return unit
        if "bom" in self._plan.active and unit.raw.startswith(BOM):
            unit.raw = unit.raw.removeprefix(BOM)
            self._note("bom", unit, "0xef 0xbb 0xbf", "")
        if self._works_on_rows and self._worth_a_look(unit.raw):
            unit.raw = self._mended_row(unit)
        return unit

    def _worth_a_look(self, raw: bytes) -> bool:
        """Whether a repair may have something to do: a row of the spec needs none of its form."""
        if any(name in self._plan.active for name in _OF_TYPED_ROWS) or any(mark in raw for mark in _TEXT_OF_JSON):
            return True
        try:
            self._plan.spec.decode(raw)
        except BAD_JSON:
            return True
        return False

    def _mended_row(self, unit: Unit) -> bytes:
        plain = _plain(unit.raw)
        if plain is None:
            return unit.raw
        changed = False
        for repair in self._repairs:
            assert repair.row is not None
            change = repair.row(plain, self._plan.spec)
            if change is not None:
                plain, changed = change.plain, True
                self._note(repair.name, unit, change.before, change.after)
        if "redact" in self._plan.active and (redacted := _redacted(plain)) is not None:
            plain, changed = redacted.plain, True
            self._note("redact", unit, redacted.before, redacted.after)
        if not changed:
            return unit.raw
        return json.dumps(plain, ensure_ascii=False).encode() + (b"\r" if unit.raw.endswith(b"\r") else b"")

    def stays(self, unit: Unit) -> bool:
        """Whether the row is written; counts it where it is not."""
        reason = self._plan.drop.get(unit.line, "")
        name = "drop"
        if not reason and "dedup" in self._plan.active and unit.is_row and not unit.piece and self._is_double(unit.raw):
            reason, name = DOUBLE, "dedup"
        if reason and unit.is_row:
            self._outcome.dropped[reason] += 1
            self._note(name, unit, "", "")
        return not reason

    def _is_double(self, raw: bytes) -> bool:
        from validation.folding import key_of

        spec = self._plan.spec
        try:
            row = spec.decode(raw.removeprefix(BOM))
        except BAD_JSON:
            return False
        key = key_of(Case(0, raw, row, spec, _NO_TOKENS)).row
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _note(self, name: str, unit: Unit, before: str, after: str) -> None:
        self._outcome.note(name, _origin(self._plan, unit.line), before, after)


def _plain(raw: bytes) -> dict[str, Any] | None:
    """The row as plain values; None where writing them again would not give the same row."""
    try:
        plain, marks = forgiving(raw.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict) or marks.duplicates or marks.nonfinite or marks.surrogate or marks.depth > MAX_DEPTH:
        return None
    if len(marks.big_integer) > _MOST_DIGITS:
        return None
    return plain


def _redacted(plain: dict[str, Any]) -> Change | None:
    """Every text of the row without secrets and personal data. The example shows the marks alone, never what was there."""
    from validation.redaction import mark, redact_value

    value, kinds = redact_value(plain)
    return Change(value, "", ", ".join(mark(kind) for kind in dict.fromkeys(kinds))) if kinds else None


def _safe(text: str) -> str:
    """An example that is short, printable, and free of secrets."""
    if not text:
        return ""
    from validation.redaction import redact

    return printable(shown(redact(text)[0])[1:-1])
