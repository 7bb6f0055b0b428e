"""A report as a person reads it: text for a terminal, Markdown for a folder.

Both say the same in the same order: the verdict, the findings by harm (what, where, why, what to do, what to type),
how the file was read, and last the next command.
"""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from validation import commands
from validation.findings import Finding, Severity, fixed_name, printable

if TYPE_CHECKING:
    from validation.report import Report, Sampled

SHOWN_KINDS = 5  # causes of one check with the same advice that a page tells; JSON has all
PAGE_WIDTH = 100
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_INDENT = 9
_LABEL = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a page is drawn, and which commands it may name.

    `paint` colours a piece of text; `again` checks the file once more; `onward` is for a file that was accepted.
    """

    width: int = PAGE_WIDTH
    paint: Callable[[str, str], str] = lambda text, colour: text
    again: str = ""
    onward: str = ""


@dataclass(slots=True)
class Section:
    """Findings of one check that one command mends; they differ in what was found and where."""

    first: Finding
    places: list[Finding] = field(default_factory=list)

    @property
    def amount(self) -> str:
        """How many lines; empty where it is the file as a whole, or where each cause has its own number."""
        count = self.first.count
        return f"{count:,} line{'' if count == 1 else 's'}" if self.first.lines and len(self.places) == 1 else ""

    @property
    def hint(self) -> str:
        """The advice that holds for all of them; empty where each has its own."""
        hints = {finding.hint for finding in self.places}
        return self.first.hint if len(hints) == 1 else ""

    @property
    def more(self) -> str:
        """What is not told of the causes."""
        left = self.places[SHOWN_KINDS:]
        return f"… and {len(left):,} more of this kind, {sum(finding.count for finding in left):,} times" if left else ""


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to type next, and a sentence that says what that does."""

    note: str
    command: str


def sections(findings: Iterable[Finding]) -> list[Section]:
    """The findings in their order, those of one check that the same command mends together."""
    found: dict[tuple[str, ...], Section] = {}
    for finding in findings:
        key = (finding.id, finding.severity.value, finding.why, finding.fix)
        found.setdefault(key, Section(finding)).places.append(finding)
    return list(found.values())


def where(finding: Finding) -> str:
    """`lines 13, 14 and 7 more, at $.source`; empty for the file as a whole."""
    parts = []
    if finding.lines:
        numbers = ", ".join(str(line) for line in finding.lines)
        more = f" and {finding.count - len(finding.lines):,} more" if finding.count > len(finding.lines) else ""
        parts.append(f"line{'' if len(finding.lines) == 1 and not more else 's'} {numbers}{more}")
    if finding.path:
        parts.append(f"at {finding.path}")
    return ", ".join(parts)


# --- how the file was read


def reading(report: "Report") -> str:
    """Levels, sampling, what did not run and why, what is off, profile and time, in one paragraph."""
    levels = report.stats.get("levels_run")
    parts = [f"Levels run: {', '.join(map(str, levels))}" if isinstance(levels, list) and levels else "The rows were not read"]
    aside, kept = report.stats.get("quarantined"), report.stats.get("kept")
    if isinstance(aside, int) and isinstance(kept, int):
        parts.append(f"{aside + kept:,} rows = {kept:,} kept + {aside:,} put aside with their errors")
    if report.sampled:
        parts.append(_sampling(report.sampled))
    parts += [f"not run: {told}" for told in _grouped(report.stats.get("checks_not_run"))]
    off = report.stats.get("checks_off")
    profile = report.stats.get("profile", "default")
    if isinstance(off, list) and off:
        parts.append(f"turned off by profile {profile}: {', '.join(map(str, off))}")
    elif profile != "default":
        parts.append(f"profile {profile}")
    return "; ".join([*parts, f"{report.seconds:.2f} s"])


def _sampling(sampled: "Sampled") -> str:
    missed = max(1, round(sampled.missed_share * sampled.of))
    return (
        f"some checks saw a sample, {sampled.rows:,} of {sampled.of:,} rows spread evenly: a share that they name may be off by "
        f"{100 * sampled.margin:.2g} percentage points, and a trouble of fewer than {missed:,} rows in all may have been missed"
    )


def _grouped(not_run: object) -> Iterator[str]:
    """Checks that did not run, by reason."""
    if not isinstance(not_run, dict):
        return
    by_reason: dict[str, list[str]] = {}
    for id, reason in not_run.items():
        by_reason.setdefault(str(reason), []).append(str(id))
    for reason, ids in by_reason.items():
        yield f"{', '.join(sorted(ids))} ({reason})"


# --- what to type next


def next_step(report: "Report", view: View) -> NextStep:
    """The command that brings the file closest to what it should be."""
    options = commands.named(report.schema) if report.options is None else report.options
    again = view.again or commands.told(f"lorad check {commands.quoted(report.file)}", options)
    if report.verdict == "accepted":
        fix = _joined(report, (finding for finding in report.findings if finding.severity is Severity.WARNING))
        if fix is None:
            return NextStep("", view.onward)
        onward = f" ({view.onward})" if view.onward else ""
        return NextStep(f"Warnings do not refuse a file: it may be used as it is{onward}. To mend it first:", fix.text())
    worst = report.errors[0]
    if not _is_of_the_gate(worst):
        return NextStep("", "")
    if worst.fix and commands.parse(worst.fix) is None:
        return NextStep("", worst.fix)
    mending = _joined(report, report.errors)
    bare = [finding for finding in report.errors if not finding.fix]
    rows = _to_leave_out(report, bare)
    rest = [finding for finding in bare if finding not in rows and not _goes_with(finding, report, rows)]
    if rows:
        drop = commands.dropping(report.file, fixed_name(report.file), [finding.id for finding in rows])
        fix = commands.merged([mending, drop] if mending else [drop])
    elif mending:
        fix = mending
    else:
        return NextStep("Mend the file as said above, then check it again:", again)
    by_hand = "" if not rest else "This mends a part; mend the rest by hand as said above. " if mending else "Mend the file as said above. "
    return NextStep(f"{by_hand}{_leaving_out(rows)}".rstrip(), fix.completed(options).text())


def _leaving_out(rows: list[Finding]) -> str:
    if not rows:
        return ""
    lines = sorted({line for finding in rows for line in finding.lines})
    count = max(len(lines), *(finding.count for finding in rows))
    told = ", ".join(map(str, lines[:SHOWN_KINDS])) + (", …" if count > len(lines[:SHOWN_KINDS]) else "")
    return f"Mend line{'' if count == 1 else 's'} {told} by hand and check again, or leave {'it' if count == 1 else 'them'} out:"


def _goes_with(finding: Finding, report: "Report", rows: list[Finding]) -> bool:
    """Whether what is done for other findings takes this one away too: layouts are not mixed once all others are converted or left out."""
    foreign = [other for other in report.errors if other.id == "S06"]
    return finding.id == "S07" and bool(foreign) and all(other in rows or commands.parse(other.fix) for other in foreign)


def _is_of_the_gate(finding: Finding) -> bool:
    """Whether a check found it; a drop that never reached the gate has another word for an id, and its hint says all."""
    return len(finding.id) == 3 and finding.id[1:].isdigit()


def _joined(report: "Report", findings: Iterable[Finding]) -> commands.FixCommand | None:
    """One command for all of them; drops that would leave out more than half of the rows together are not joined."""
    own, num_dropped = [], 0
    for finding in findings:
        command = commands.parse(finding.fix) if finding.fix else None
        if command is None:
            continue
        if command.is_dropping:
            if (num_dropped + finding.count) * 2 > report.rows:
                continue
            num_dropped += finding.count
        own.append(command)
    return commands.merged(own) if own else None


def _to_leave_out(report: "Report", bare: list[Finding]) -> list[Finding]:
    """Those findings that are of single rows, if they are few enough that a file without those rows is still that file."""
    from validation.checks import CHECKS, Need

    of_rows = {check.id for check in CHECKS if check.need not in (Need.FILE, Need.HEAD, Need.END)}
    found = [finding for finding in bare if finding.lines and finding.id in of_rows]
    return found if sum(finding.count for finding in found) < report.rows / 2 else []


# --- the terminal


def text_page(report: "Report", view: View) -> str:
    """The page for a terminal. Every line is safe to print; commands are never broken over lines."""
    colour = "red" if report.verdict == "refused" else "green"
    lines = [view.paint(printable(line), colour) for line in _wrapped(report.headline(), view.width, "", "  ")]
    for section in sections(report.findings):
        lines += ["", *_section(section, view)]
    lines += ["", *(printable(line) for line in _wrapped(reading(report), view.width, "", ""))]
    step = next_step(report, view)
    if step.note:
        lines += ["", *(printable(line) for line in _wrapped(step.note, view.width, "", ""))]
    if step.command:
        lines.append(view.paint(f"Next: {printable(step.command)}", "bold"))
    return "".join(f"{line}\n" for line in lines)


def _section(section: Section, view: View) -> Iterator[str]:
    first = section.first
    head = f"{first.id} {first.name}" + (f", {section.amount}" if section.amount else "")
    yield view.paint(f"{first.severity.value:<{_INDENT}}", _COLOURS[first.severity]) + printable(head)
    for finding in section.places[:SHOWN_KINDS]:
        yield from _labelled("what", finding.message, view)
        yield from _labelled("where", where(finding), view)
        if not section.hint:
            yield from _labelled("do", finding.hint, view)
    yield from _labelled("", section.more, view)
    yield from _labelled("why", first.why, view)
    yield from _labelled("do", section.hint, view)
    if first.fix:
        yield " " * _INDENT + view.paint(f"{'type':<{_LABEL}}{printable(first.fix)}", "bold")


def _labelled(label: str, text: str, view: View) -> Iterator[str]:
    if text:
        before = " " * _INDENT + f"{label:<{_LABEL}}"
        yield from _wrapped(printable(text), view.width, before, " " * len(before))


def _wrapped(text: str, width: int, before: str, after: str) -> list[str]:
    return textwrap.wrap(text, max(width, 40), initial_indent=before, subsequent_indent=after, break_long_words=False, break_on_hyphens=False) or [""]


# --- Markdown


def markdown_page(report: "Report", view: View) -> str:
    """For a person who opens the folder later."""
    parts = [f"# {plain(report.file)}: {report.verdict}", "", plain(report.headline()), ""]
    for section in sections(report.findings):
        first = section.first
        head = f"{first.severity.value}: {first.id} {first.name}" + (f", {section.amount}" if section.amount else "")
        parts += [f"## {plain(head)}", ""]
        for finding in section.places[:SHOWN_KINDS]:
            place = f" ({plain(where(finding))})" if where(finding) else ""
            own_hint = "" if section.hint else f": {plain(finding.hint)}"
            parts.append(f"- {plain(finding.message)}{place}{own_hint}")
        parts += [f"- {section.more}"] if section.more else []
        parts.append("")
        for label, text in (("Why it matters", first.why), ("What to do", section.hint)):
            parts += [f"**{label}:** {plain(text)}", ""] if text else []
        # Indented code: a row's own text cannot end it, as it could end a fence.
        parts += [f"    {first.fix}", ""] if first.fix else []
    parts += ["---", "", f"{plain(reading(report))}. SHA-256 `{report.sha256 or 'not read to the end'}`.", ""]
    step = next_step(report, view)
    parts += [plain(step.note), ""] if step.note else []
    parts += ["**Next:**", "", f"    {step.command}", ""] if step.command else []
    return "".join(f"{printable(part)}\n" for part in parts)


_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#"})


def plain(text: str) -> str:
    """Text in which nothing is Markdown."""
    return text.translate(_MARKDOWN)
