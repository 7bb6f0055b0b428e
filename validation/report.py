"""The report on one file: for a terminal, as Markdown, as JSON. Findings stand in order of harm."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from validation import commands
from validation.findings import Finding, Level, Severity

if TYPE_CHECKING:
    from validation.pages import View

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
    options: commands.Options | None = None
    """Those of the check, if they are known, which its commands carry: whoever types one means the same rows."""

    def with_options(self, options: commands.Options) -> "Report":
        """The report with commands that carry these options, and none that would leave out more than half of the rows."""
        is_said = any(name == "--schema" for name, _ in options)
        findings = tuple(replace(finding, fix=commands.told(self._sparing(finding, is_said), options)) for finding in self.findings)
        return replace(self, findings=findings, options=options)

    def _sparing(self, finding: Finding, is_said: bool) -> str:
        """The finding's command without what nobody may have wanted. `is_said`: whether the schema is known to be the right one."""
        command, is_most = commands.parse(finding.fix), finding.count * 2 > self.rows
        if command is None:
            return finding.fix
        if not is_said and is_most and (spec_id := as_it_is(finding)):
            return f"lorad check {commands.quoted(command.file)} --schema {spec_id}"
        if not is_said and finding.id[:1] in ("F", "J"):  # taken apart or decoded first, the rows may be those of another schema
            command = replace(command, options=tuple(option for option in command.options if option[0] != "--schema"))
        if is_most and command.is_dropping:
            left = command.without_drop()
            return left.text() if left else ""
        return command.text()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse the file, most harmful first."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def verdict(self) -> Literal["accepted", "refused"]:
        """Refused where there is an error."""
        return "refused" if self.errors else "accepted"

    def headline(self) -> str:
        """The verdict in one line."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        named = f"{self.file}: {self.verdict.upper()}, {rows}, {self.schema}"
        counts = {word: sum(finding.severity is word for finding in self.findings) for word in (Severity.ERROR, Severity.WARNING)}
        told = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items() if count]
        return f"{named}: {', '.join(told)}" if told else f"{named}: nothing to complain about"

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
        """One JSON object; always UTF-8 and always JSON, whatever a file name or a figure may be."""
        return as_json(self.to_plain())

    def to_text(self, view: "View | None" = None) -> str:
        """For a terminal; plain unless the view paints."""
        from validation.pages import View, text_page

        return text_page(self, view or View())

    def to_markdown(self, view: "View | None" = None) -> str:
        """For a person who opens the folder later."""
        from validation.pages import View, markdown_page

        return markdown_page(self, view or View())


def as_it_is(finding: Finding) -> str:
    """The spec whose rows these are already; empty where they are those of another tool."""
    from validation.layouts import AS_IT_IS

    return finding.hint.removeprefix(AS_IT_IS).partition(":")[0] if finding.id == "S06" and finding.hint.startswith(AS_IT_IS) else ""


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
        """The numbers as JSON values."""
        return asdict(self)


def as_json(value: object, ascii_only: bool = False) -> str:
    """JSON text of plain values. A float that JSON has not becomes null, half of a surrogate pair its escape."""
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=ascii_only, indent=1, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
