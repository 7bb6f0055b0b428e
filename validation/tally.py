"""Gathers problems into findings: one for each check and cause, with its count and first lines."""

from dataclasses import dataclass, field

from validation.checks.registry import Check
from validation.findings import SHOWN_LINES, Finding, Problem, Severity, command

MOST_KINDS = 20  # causes of one check that are told apart; a hostile file could bring a million
_ORDER = {severity: place for place, severity in enumerate(Severity)}


@dataclass(slots=True)
class _Place:
    check: Check
    first: Problem
    count: int = 0
    lines: list[int] = field(default_factory=list)
    last_line: int = 0


class Tally:
    """The problems of one file so far."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], _Place] = {}
        self._kinds: dict[str, int] = {}
        self.num_errors = 0

    def add(self, check: Check, problem: Problem, line: int = 0) -> None:
        """Enter a problem in a line; 0 is the whole file. A line counts once for each finding."""
        if (problem.severity or check.severity) is Severity.ERROR:
            self.num_errors += 1
        place = self._places.get((check.id, problem.kind)) or self._new_place(check, problem)
        if line and line == place.last_line:
            return
        place.last_line = line
        place.count += problem.count or 1
        for number in problem.lines or ((line,) if line else ()):
            if len(place.lines) < SHOWN_LINES:
                place.lines.append(number)

    def _new_place(self, check: Check, problem: Problem) -> _Place:
        kind = problem.kind
        self._kinds[check.id] = self._kinds.get(check.id, 0) + 1
        if self._kinds[check.id] > MOST_KINDS:
            kind = "\0further"
            problem = Problem(message=f"further causes of the same kind; the first: {problem.message}", path=problem.path, hint=problem.hint)
        return self._places.setdefault((check.id, kind), _Place(check, problem))

    def findings(self, file: str) -> tuple[Finding, ...]:
        """Most harmful first: errors, then by how much of the file they touch. `file` goes into the fix commands."""
        found = [self._finding(place, file) for place in self._places.values()]
        # A problem of the whole file has no lines; it comes before any number of rows.
        found.sort(key=lambda finding: (_ORDER[finding.severity], bool(finding.lines), -finding.count, finding.id))
        return tuple(found)

    def _finding(self, place: _Place, file: str) -> Finding:
        check, problem = place.check, place.first
        return Finding(
            id=check.id,
            severity=problem.severity or check.severity,
            name=check.name,
            count=place.count,
            lines=tuple(place.lines),
            path=problem.path,
            message=problem.message,
            hint=problem.hint or check.hint,
            fix=command(problem.fix, file),
        )
