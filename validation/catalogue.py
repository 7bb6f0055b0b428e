"""The checks as built, as Markdown: `python -m validation.catalogue > docs/checks.md`. A test compares the two."""

import sys
from collections.abc import Iterable

from validation.checks import CHECKS, Check
from validation.findings import Level, Severity

_FAMILIES = {
    "F": "The file",
    "J": "JSON",
    "S": "The schema",
    "M": "Messages",
    "X": "Tokens inside texts",
    "T": "Tool calls",
    "P": "Preferences and corrections",
    "C": "Completions",
    "V": "Pictures",
    "N": "Tokens and the chat template",
    "B": "The rows together",
    "Y": "Word puzzles",
    "D": "Leaks, doubles and what should not be inside",
}
_HEAD = """# Checks

Every check of the gate. Made by `python -m validation.catalogue > docs/checks.md` from the checks themselves; do not edit.

- **error** refuses the file, **warning** and **info** do not. A check with `warn_share` says nothing up to that share of the rows; one
  with `error_share` refuses the file from that share on.
- A level includes the levels before it: quick, standard, deep.
- A limit is changed, and a check turned off, by a profile in the config:
  `"validation": {"profile": "mine", "profiles": {"mine": {"B02.warn_share": 0.05, "B11": false}}}`.
- S01 `spec.unknown` (error) stands before all others: the schema that is declared for the rows is not known.
"""


def markdown() -> str:
    """The whole catalogue, one section a check, in order of the ids."""
    parts = [_HEAD]
    by_id: dict[str, list[Check]] = {}
    for check in CHECKS:
        by_id.setdefault(check.id, []).append(check)
    letters = sorted({id[0] for id in by_id}, key=lambda letter: ([*_FAMILIES, letter].index(letter), letter))
    for letter in letters:
        parts.append(f"\n## {letter}: {_FAMILIES.get(letter, 'Further checks')}\n")
        parts += [_section(by_id[id]) for id in sorted(by_id) if id[0] == letter]
    return "".join(parts)


def _section(checks: list[Check]) -> str:
    """One id. Several functions may find it: at different places, or of different severity."""
    first = checks[0]
    order = list(Severity)
    severities = sorted({check.severity for check in checks}, key=order.index)
    levels = sorted({check.level for check in checks}, key=list(Level).index)
    marks = [", ".join(severities), ", ".join(levels)]
    if rows := _unique(name for check in checks for name in (*check.specs, *check.families)):
        marks.append(f"rows: {', '.join(rows)}")
    if limits := {name: value for check in checks for name, value in check.limits.items()}:
        marks.append("limits: " + ", ".join(f"`{name}` {value:g}" for name, value in limits.items()))
    lines = [f"\n### {first.id} `{first.name}`\n", f"{' · '.join(marks)}\n"]
    for label, texts in (
        ("What", _unique(_what(check) for check in checks)),
        ("Why", _unique(check.why for check in checks)),
        ("Do", _unique(check.hint for check in checks)),
    ):
        if texts:
            lines.append(f"- **{label}:** {_marked(' / '.join(texts))}")
    return "\n".join(lines) + "\n"


def _what(check: Check) -> str:
    """The first sentence of the check's function."""
    return " ".join((check.find.__doc__ or "").split("\n\n")[0].split())


def _marked(text: str) -> str:
    """The text with signs of HTML and emphasis escaped, but for what stands in backticks."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "\\<").replace("*", "\\*").replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)


def _unique(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


if __name__ == "__main__":
    sys.stdout.write(markdown())
