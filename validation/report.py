"""The report on one file: for a terminal, as Markdown, as JSON. Findings stand in order of harm."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from validation.findings import Finding, Level, Severity, printable

REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the gate says of one file."""

    file: str
    sha256: str
    schema: str
    level: Level
    rows: int
    findings: tuple[Finding, ...]
    stats: Mapping[str, object] = field(default_factory=dict)
    sampled: "Sampled | None" = None
    seconds: float = 0.0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse the file, most harmful first."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def verdict(self) -> Literal["accepted", "refused"]:
        return "refused" if self.errors else "accepted"

    def headline(self) -> str:
        """The verdict in one line."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        named = f"{self.file}: {self.verdict.upper()}, {rows}, {self.schema}"
        counts = {word: sum(finding.severity is word for finding in self.findings) for word in (Severity.ERROR, Severity.WARNING)}
        told = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items() if count]
        return f"{named}: {', '.join(told)}" if told else f"{named}: nothing to complain about"

    def levels(self) -> str:
        """Which levels ran, in one line."""
        run = self.stats.get("levels_run")
        return f"Levels run: {', '.join(map(str, run))}" if isinstance(run, list) and run else "The rows were not read"

    def to_plain(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "schema": self.schema,
            "level": self.level.value,
            "verdict": self.verdict,
            "rows": self.rows,
            "findings": [_plain_finding(finding) for finding in self.findings],
            "stats": dict(self.stats),
            "sampled": self.sampled.to_plain() if self.sampled else None,
            "seconds": round(self.seconds, 4),
        }

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_plain(), ensure_ascii=False, indent=1)

    def to_text(self) -> str:
        """For a terminal, plain."""
        parts = [self.headline()]
        for finding in self.findings:
            parts.append("")
            parts.append(f"{finding.severity.value:7}  {finding.id} {finding.name}{_where(finding)}")
            parts.append(f"         {finding.message}")
            parts.append(f"         {finding.hint}")
            if finding.fix:
                parts.append(f"         $ {finding.fix}")
        parts += ["", f"{self.levels()}; {self.seconds:.2f} s"]
        return _lines(parts)

    def to_markdown(self) -> str:
        """For a person who opens the folder later."""
        parts = [f"# {_plain(self.file)}: {self.verdict}", "", _plain(self.headline()), ""]
        for finding in self.findings:
            parts += [f"## {finding.severity.value}: {finding.id} {finding.name}{_plain(_where(finding))}", "", _plain(finding.message), ""]
            if finding.hint:
                parts += [f"**What to do:** {_plain(finding.hint)}", ""]
            if finding.fix:
                # Indented code: a row's own text cannot end it, as it could end a fence.
                parts += [f"    {finding.fix}", ""]
        parts += ["---", "", f"{self.levels()}. SHA-256 `{self.sha256 or 'not read to the end'}`.", ""]
        return _lines(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Some checks saw `rows` of `of` rows: one of each stratum of neighbours.

    `margin` is half the 95 % interval of a share of one half (the widest); a trouble in more than `missed_share` of all
    rows is seen with 95 % certainty (the rule of three).
    """

    rows: int
    of: int
    margin: float
    missed_share: float

    @classmethod
    def of_rows(cls, rows: int, of: int) -> "Sampled | None":
        """None where every row was seen."""
        if rows >= of or not rows:
            return None
        left = (1 - rows / of) ** 0.5  # of a finite file; Cochran, Sampling Techniques, section 2.6
        return cls(rows=rows, of=of, margin=round(0.98 / rows**0.5 * left, 6), missed_share=round(3 / rows, 6))

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def _plain_finding(finding: Finding) -> dict[str, Any]:
    message = f"{finding.message}: {finding.why}" if finding.why else finding.message
    return {
        "id": finding.id,
        "severity": finding.severity.value,
        "count": finding.count,
        "lines": list(finding.lines),
        "path": finding.path,
        "message": message,
        "hint": finding.hint,
        "fix": finding.fix,
    }


def single(file: str, schema: str, *, code: str, message: str, hint: str) -> Report:
    """The report on a file that never reached the gate: a bad sidecar, a duplicate, not a file at all. `code` is the finding's id."""
    finding = Finding(id=code, severity=Severity.ERROR, name=f"drop.{code.lower()}", message=message, hint=hint)
    return Report(file=file, sha256="", schema=schema, level=Level.QUICK, rows=0, findings=(finding,))


def _lines(parts: list[str]) -> str:
    """One line a part, whatever a file name, a schema or a key may hold: no control character reaches a terminal."""
    return "".join(f"{printable(part)}\n" for part in parts)


def _where(finding: Finding) -> str:
    if not finding.lines:
        return f", {finding.path}" if finding.path else ""
    lines = ", ".join(str(line) for line in finding.lines)
    more = f" and {finding.count - len(finding.lines):,} more" if finding.count > len(finding.lines) else ""
    places = f", line{'' if len(finding.lines) == 1 and not more else 's'} {lines}{more}"
    return places + (f", {finding.path}" if finding.path else "")


_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#"})


def _plain(text: str) -> str:
    return text.translate(_MARKDOWN)
