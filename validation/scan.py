"""One pass over the bytes of a file, which feeds every check.

A row that the typed decoder takes costs one decode and the ROW checks. Only a row that it refuses is parsed again, by a
forgiving parser that can say why.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from rendering.specs import BAD_JSON, Message, Spec, SpecRow
from validation.checks import CHECKS, Need, checks_for
from validation.checks.files import BOM
from validation.checks.parse import forgiving
from validation.checks.registry import Broken, Case, Line, Opened, Totals, Value
from validation.checks.shape import loosened
from validation.control import ControlTokens
from validation.findings import SHOWN_LINES, Level, Limits, Problem, Severity
from validation.layouts import UNKNOWN, layout_of
from validation.report import Report
from validation.source import lines
from validation.tally import Tally

HEAD_BYTES = 512

OnRow = Callable[[int, SpecRow, list[Message]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a file is checked."""

    spec: Spec
    level: Level
    limits: Limits
    control: ControlTokens


class Scan:
    """The state of one pass. Use once: `opened`, then `read` unless that found an obstacle."""

    def __init__(self, plan: Plan, on_row: OnRow | None = None) -> None:
        self.tally = Tally()
        self.totals = Totals(spec=plan.spec)
        self.sha256 = ""
        self._plan = plan
        self._on_row = on_row
        self._checks = checks_for(plan.spec, plan.level)
        self._blank: list[int] = []  # blank lines since the last row
        self._num_blank = 0

    def opened(self, opened: Opened) -> bool:
        """Judge the file before it is read. False: there is nothing to read."""
        self._run(Need.FILE, opened)
        return self.tally.num_errors == 0

    def read(self, blocks: Iterable[bytes]) -> None:
        """Read to the end, hash, and feed every check."""
        stream = self._hashed(blocks)
        first = next(stream, b"")
        self._run(Need.HEAD, first[:HEAD_BYTES])
        if self.tally.num_errors:
            for _ in stream:  # the rest is noise, but its hash names the file
                pass
            return
        for line in lines(chain((first,), stream), self._plan.limits):
            self._line(line)
        self._run(Need.END, self.totals)

    def report(self, file: str, seconds: float) -> Report:
        """What the pass found, under the name `file`."""
        plan, totals = self._plan, self.totals
        return Report(
            file=file,
            sha256=self.sha256,
            schema=plan.spec.id,
            level=plan.level,
            rows=totals.rows,
            findings=self.tally.findings(file),
            stats={
                "bytes": totals.size_bytes,
                "lines": totals.lines,
                "blank_lines": totals.blank_lines,
                "rows_of_the_schema": totals.typed_rows,
                "turns": totals.turns,
                "longest_row_bytes": totals.longest_row_bytes,
            },
            levels_run=tuple(level for level in plan.level.included if any(check.level is level for check in CHECKS)),
            seconds=seconds,
        )

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
            self.totals.size_bytes += len(block)
            yield block
        self.sha256 = digest.hexdigest()

    def _line(self, line: Line) -> None:
        totals = self.totals
        totals.lines += 1
        if line.number == 1 and line.raw.startswith(BOM):
            line = Line(1, len(BOM), line.raw[len(BOM) :], line.size_bytes - len(BOM), line.ended, line.limits)
        too_large = line.size_bytes > line.limits.max_row_bytes
        if not too_large and not line.raw.strip():
            self._blank_line(line.number)
            return
        self._row_begins(line)
        self._run(Need.LINE, line, line.number)
        if too_large:
            totals.unreadable_rows += 1
            return
        try:
            row = self._plan.spec.decode(line.raw)
        except BAD_JSON as error:
            self._refused_row(line, str(error))
        else:
            self._typed_row(line, row)

    def _blank_line(self, number: int) -> None:
        self.totals.blank_lines += 1
        self._num_blank += 1
        if len(self._blank) < SHOWN_LINES:
            self._blank.append(number)

    def _row_begins(self, line: Line) -> None:
        totals = self.totals
        totals.rows += 1
        totals.longest_row_bytes = max(totals.longest_row_bytes, line.size_bytes)
        if self._num_blank:
            totals.num_blank_inside += self._num_blank
            totals.blank_inside += self._blank[: SHOWN_LINES - len(totals.blank_inside)]
            self._blank, self._num_blank = [], 0

    def _typed_row(self, line: Line, row: SpecRow) -> None:
        totals, spec = self.totals, self._plan.spec
        messages = spec.messages(row)
        totals.typed_rows += 1
        totals.turns += len(messages)
        totals.learnt_rows += row.weight > 0
        self._note_layout(spec.id, line.number)
        self._judge(line, row, messages)
        if self._on_row and not self.tally.num_errors:
            self._on_row(line.number, row, messages)

    def _judge(self, line: Line, row: SpecRow, messages: list[Message]) -> None:
        case = Case(line.raw, row, messages, self._plan.control)
        for check in self._checks[Need.ROW]:
            problem = check.find(case)
            if isinstance(problem, Problem):
                self.tally.add(check, problem, line.number)

    def _refused_row(self, line: Line, complaint: str) -> None:
        text: str | None = None
        try:
            text = line.raw.decode()
            plain, marks = forgiving(text)
        except json.JSONDecodeError as error:
            self._broken(Broken(line, text, error.msg, error.pos))
            return
        except (UnicodeDecodeError, RecursionError) as error:
            self._broken(Broken(line, text, str(error), 0))
            return
        spec = self._plan.spec
        self.totals.unreadable_rows += not isinstance(plain, dict)
        if isinstance(plain, dict):
            layout = layout_of(plain, spec.id)
            self._note_layout(layout.id if layout else UNKNOWN, line.number)
        value = Value(line, plain, spec, complaint, marks)
        for check in self._checks[Need.VALUE]:
            for problem in _each(check.find(value)):
                value.num_errors += (problem.severity or check.severity) is Severity.ERROR
                self.tally.add(check, problem, line.number)
        row = loosened(plain, spec)
        if row is not None:
            self._judge(line, row, spec.messages(row))

    def _broken(self, broken: Broken) -> None:
        self.totals.unreadable_rows += 1
        for check in self._checks[Need.BROKEN]:
            problem = check.find(broken)
            if isinstance(problem, Problem):
                self.tally.add(check, problem, broken.line.number)
                return

    def _note_layout(self, name: str, line: int) -> None:
        totals = self.totals
        if name == UNKNOWN:
            return
        totals.layout_rows[name] = totals.layout_rows.get(name, 0) + 1
        first = totals.layouts.setdefault(name, [])
        if len(first) < SHOWN_LINES:
            first.append(line)

    def _run(self, need: Need, fed: object, line: int = 0) -> None:
        for check in self._checks[need]:
            for problem in _each(check.find(fed)):
                self.tally.add(check, problem, line)


def _each(found: Problem | Iterable[Problem] | None) -> Iterable[Problem]:
    if found is None:
        return ()
    return (found,) if isinstance(found, Problem) else found
