"""A file without its bad rows: which rows those are, and the file that remembers them.

`quarantine.jsonl` has a line for each: {"line", "ids", "text"}; of a long row the beginning, with "bytes" for its size.
The row itself stands in the drop's rows as it was given, and in no index: nothing trains on it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from validation.checks import CHECKS, Need
from validation.examination import Examined
from validation.findings import Finding, Limits, Severity
from validation.report import Report
from validation.source import lines

FOLLOWING = frozenset({"S07"})  # says that rows of other layouts are there, each of which has an error of its own
LEAST_KEPT = 2  # fewer rows cannot be split into rows to learn and rows to judge by
SHOWN_BYTES = 64 << 10  # of a row


def put_aside(examined: Examined, share: float) -> Mapping[int, set[str]]:
    """The rows without which the file has no error, with the ids of their errors: at most `share` of its rows.

    Empty where the file has an error that no row can be blamed for, or too many rows would have to go.
    """
    blamed: dict[int, set[str]] = {}
    report = examined.report
    if report.sampled and any(finding.id in _sampled_ids() for finding in report.errors):
        return {}  # the rows that were not looked at may have it too
    for id in {finding.id for finding in report.errors} - FOLLOWING:
        errors = [finding for finding in report.findings if finding.id == id and finding.severity is Severity.ERROR]
        # Where a share made errors of all, every row counts; else those whose own problem is one.
        all_of_them = all(finding.severity is Severity.ERROR for finding in report.findings if finding.id == id)
        held = [line for line, ids in (examined.rows if all_of_them else examined.error_rows).items() if id in ids]
        if not held or max(finding.count for finding in errors) > len(held):
            return {}
        for line in held:
            blamed.setdefault(line, set()).add(id)
    fits = len(blamed) <= share * report.rows and report.rows - len(blamed) >= LEAST_KEPT
    return blamed if fits else {}


def _sampled_ids() -> set[str]:
    return {check.id for check in CHECKS if check.need is Need.SAMPLE}


def without(report: Report, aside: Mapping[int, set[str]]) -> Report:
    """The report on the file without these rows: their errors are told as warnings. `rows` stays what was in the file."""
    findings = [_milder(finding, len(aside)) if finding.severity is Severity.ERROR else finding for finding in report.findings]
    stats = dict(report.stats) | {"quarantined": len(aside), "kept": report.rows - len(aside)}
    return replace(report, findings=tuple(findings), stats=stats)


def _milder(finding: Finding, num_aside: int) -> Finding:
    rows = "the row lies" if num_aside == 1 else f"all {num_aside:,} such rows lie"
    hint = f"{rows} in quarantine.jsonl of the accepted drop, and nothing trains on them: mend them and drop them as a file of their own"
    return replace(finding, severity=Severity.WARNING, message=f"put aside: {finding.message}", hint=hint, fix="")


def quarantine_lines(blocks: Iterable[bytes], limits: Limits, aside: Mapping[int, set[str]]) -> Iterator[bytes]:
    """The lines of `quarantine.jsonl`, in order of the file whose blocks these are."""
    for line in lines(blocks, limits):
        if line.number in aside:
            shown = line.raw[:SHOWN_BYTES]
            entry: dict[str, object] = {"line": line.number, "ids": sorted(aside[line.number]), "text": shown.decode(errors="backslashreplace")}
            if line.size_bytes > len(shown):
                entry["bytes"] = line.size_bytes
            yield msgspec.json.encode(entry) + b"\n"


def num_quarantined(path: Path) -> int:
    """How many rows a quarantine.jsonl holds; 0 where there is none."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
