"""Gathers problems into findings: one for each check and cause, with its count and first lines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from validation.checks.registry import SURVEYED, Check
from validation.findings import SHOWN_LINES, Finding, Problem, Severity, command
from validation.masking import masked, without_secrets

MOST_KINDS = 20  # causes of one check that are told apart; a hostile file could bring a million
_ORDER = {severity: place for place, severity in enumerate(Severity)}
FURTHER = "\0further"


@dataclass(slots=True)
class _Place:
    first: Problem
    count: int = 0
    lines: list[int] = field(default_factory=list)
    last_line: int = 0


class Tally:
    """The problems of one file, or of a part of one, so far.

    Args: keep_rows: also remember every line that has a problem, with the ids of its checks.
    """

    def __init__(self, keep_rows: bool = False) -> None:
        self._checks: dict[str, dict[str, _Place]] = {}
        self._registry: dict[str, list[Check]] = {}
        self._hits: dict[str, int] = {}  # rows, by check
        self._last: dict[str, int] = {}
        self.num_errors = 0
        """Problems that refuse the file whatever their share."""
        self.rows: dict[int, set[str]] | None = {} if keep_rows else None
        self.error_rows: dict[int, set[str]] = {}
        """Where rows are kept: those whose problem is an error by itself, not by its share."""

    def add(self, check: Check, problem: Problem, line: int = 0) -> None:
        """Enter a problem in a line; 0 is the whole file. A line counts once for each finding."""
        is_error = (problem.severity or check.severity) is Severity.ERROR
        if is_error and "warn_share" not in check.limits:
            self.num_errors += 1
        if self.rows is not None:
            # A survey may blame rows when it concludes; lines that a file as a whole names are not to blame.
            for number in (line,) if line else problem.lines if check.need in SURVEYED else ():
                self.rows.setdefault(number, set()).add(check.id)
                if is_error:
                    self.error_rows.setdefault(number, set()).add(check.id)
        if line and self._last.get(check.id) != line:
            self._hits[check.id] = self._hits.get(check.id, 0) + 1
            self._last[check.id] = line
        place = self._place(check, problem)
        if line and line == place.last_line:
            return
        place.last_line = line
        place.count += problem.count or 1
        for number in problem.lines or ((line,) if line else ()):
            if len(place.lines) < SHOWN_LINES:
                place.lines.append(number)

    def _place(self, check: Check, problem: Problem) -> _Place:
        kinds = self._checks.setdefault(check.id, {})
        registered = self._registry.setdefault(check.id, [])
        if check not in registered:
            registered.append(check)
        if problem.kind not in kinds and len(kinds) >= MOST_KINDS:
            message = f"further causes of the same kind; the first: {problem.message}"
            return kinds.setdefault(FURTHER, _Place(Problem(message=message, path=problem.path, hint=problem.hint, kind=FURTHER, severity=problem.severity)))
        return kinds.setdefault(problem.kind, _Place(problem))

    def merge(self, later: "Tally") -> None:
        """Add the tally of the part that follows."""
        self.num_errors += later.num_errors
        for id, hits in later._hits.items():
            self._hits[id] = self._hits.get(id, 0) + hits
        for id, kinds in later._checks.items():
            for place in kinds.values():
                own = self._place(later._registry[id][0], place.first)
                own.count += place.count
                own.lines += place.lines[: SHOWN_LINES - len(own.lines)]
        if self.rows is not None:
            for own_rows, later_rows in ((self.rows, later.rows or {}), (self.error_rows, later.error_rows)):
                for line, ids in later_rows.items():
                    own_rows.setdefault(line, set()).update(ids)

    def findings(self, file: str, seen: Callable[[Check], int] = lambda check: 0, limit: "Callable[[str, str], float] | None" = None) -> tuple[Finding, ...]:
        """Most harmful first: errors, then by how much of the file they touch.

        Args: file: goes into the fix commands. seen: rows that a check looked at, for its shares. limit: by check id and name.
        """
        found: list[Finding] = []
        for id, kinds in self._checks.items():
            check = self._registry[id][0]
            severity = self._by_share(check, seen(check), limit)
            if severity is not None:
                found += [_finding(check, place, severity, file) for place in kinds.values()]
        # A problem of the whole file has no lines; it comes before any number of rows.
        found.sort(key=lambda finding: (_ORDER[finding.severity], bool(finding.lines), -finding.count, finding.id))
        return tuple(found)

    def _by_share(self, check: Check, seen: int, limit: "Callable[[str, str], float] | None") -> Severity | None:
        """How harmful the check's problems are together; None: few enough to pass over."""

        def threshold(name: str) -> float:
            return limit(check.id, name) if limit else check.limits[name]

        hits = self._hits.get(check.id, 0)
        if not hits or not seen:
            return check.severity
        if "error_share" in check.limits and hits / seen >= threshold("error_share"):
            return Severity.ERROR
        if "warn_share" in check.limits and hits / seen <= threshold("warn_share"):
            return None
        return check.severity

    def to_plain(self) -> dict[str, Any]:
        """For another process."""
        places = {id: [[place.first, place.count, place.lines] for place in kinds.values()] for id, kinds in self._checks.items()}
        rows = None if self.rows is None else _plain_rows(self.rows)
        errors = _plain_rows(self.error_rows)
        return {"places": msgspec.to_builtins(places), "hits": self._hits, "num_errors": self.num_errors, "rows": rows, "error_rows": errors}

    @classmethod
    def of(cls, plain: Mapping[str, Any], checks: Mapping[str, Check]) -> "Tally":
        """From another process; `checks` by id."""
        tally = cls(keep_rows=plain["rows"] is not None)
        tally.num_errors, tally._hits = plain["num_errors"], dict(plain["hits"])
        for id, places in plain["places"].items():
            for first, count, lines in places:
                place = tally._place(checks[id], msgspec.convert(first, Problem))
                place.count, place.lines = count, list(lines)
        if tally.rows is not None:
            tally.rows.update((line, set(ids)) for line, ids in plain["rows"])
            tally.error_rows.update((line, set(ids)) for line, ids in plain["error_rows"])
        return tally


def _plain_rows(rows: Mapping[int, set[str]]) -> list[list[object]]:
    return [[line, sorted(ids)] for line, ids in rows.items()]


def _finding(check: Check, place: _Place, severity: Severity, file: str) -> Finding:
    problem = place.first
    fix = problem.fix if without_secrets(problem.fix) == problem.fix else ""  # a key of the row stands in it, and looks like a secret
    harm = problem.severity or check.severity
    # A share that refuses the file raises warnings; it never makes an error milder.
    harm = severity if severity is not check.severity and _ORDER[severity] < _ORDER[harm] else harm
    return Finding(
        id=check.id,
        severity=harm,
        name=check.name,
        count=place.count,
        lines=tuple(place.lines),
        path=masked(problem.path),
        message=problem.message,
        why=problem.why or check.why,
        hint=without_secrets(problem.hint or check.hint),
        fix=command(fix, file),
    )
