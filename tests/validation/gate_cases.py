"""Rows and reports to tell stories with."""

import json
from collections.abc import Callable

from validation import Finding, Report

Check = Callable[..., Report]


def chat(question: str = "q", answer: str = "a", **extra: object) -> dict[str, object]:
    """A good chat row."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **extra}


def turns(*pairs: tuple[str, str], **extra: object) -> dict[str, object]:
    """A chat row of (role, content) pairs."""
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **extra}


def pair(prompt: str = "p", completion: str = "c", **extra: object) -> dict[str, object]:
    """A good completion row."""
    return {"prompt": prompt, "completion": completion, **extra}


def as_bytes(rows: list[object]) -> bytes:
    """Rows as JSON Lines; a bytes row gets its newline and stands as it is otherwise."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + b"\n" for row in rows)


GOOD: list[object] = [chat(f"question {number}", f"answer {number}") for number in range(12)]
GOOD_PAIRS: list[object] = [pair(f"prompt {number}", f"completion {number}") for number in range(12)]


def found(report: Report, id: str) -> Finding:
    """The first finding of this id; fails with the whole report where there is none."""
    for finding in report.findings:
        if finding.id == id:
            return finding
    raise AssertionError(f"no {id} in\n{report.to_text()}")
