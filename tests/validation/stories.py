"""Stories: a file with one trouble, and what the gate says of it."""

import json
from dataclasses import dataclass
from typing import Any

from gate_cases import GOOD, GOOD_PAIRS, Check, found

from validation import Limits

SMALL = Limits(max_row_bytes=2000, max_file_bytes=100_000)

Row = dict[str, Any]
USER: Row = {"role": "user", "content": "q"}
ANSWER: Row = {"role": "assistant", "content": "a"}
OTHER: Row = {"role": "assistant", "content": "b"}
TOOL: Row = {"type": "function", "function": {"name": "look_up", "description": "Look a word up.", "parameters": {"type": "object", "properties": {}}}}

GOOD_PREFERENCES: list[object] = [{"prompt": f"p{number}", "chosen": f"a{number}", "rejected": f"b{number}"} for number in range(12)]
GOOD_ROWS: dict[str, list[object]] = {
    "chat_sft_v1": GOOD,
    "completion_v1": GOOD_PAIRS,
    "instruction_v1": [{"instruction": f"i{number}", "input": "", "output": f"o{number}"} for number in range(12)],
    "preference_v1": GOOD_PREFERENCES,
    "unpaired_v1": [{"prompt": f"p{number}", "completion": f"c{number}", "label": number % 2 == 0} for number in range(12)],
    "correction_v1": [{"prompt": f"p{number}", "model_output": f"m{number}", "correction": f"c{number}"} for number in range(12)],
    "vision_v1": [{"messages": [{"role": "user", "content": f"q{number}"}, ANSWER]} for number in range(12)],
}


def dialog(*messages: Row, **extra: object) -> Row:
    """A chat row of these messages."""
    return {"messages": list(messages), **extra}


def call(name: str = "look_up", arguments: object = '{"word": "sun"}', id: str = "call_1", **extra: object) -> Row:
    """A tool call; without an id where it is empty."""
    return {**({"id": id} if id else {}), "type": "function", "function": {"name": name, "arguments": arguments}, **extra}


def calling(*calls: Row, content: object = None) -> Row:
    """An assistant turn that calls tools."""
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: str = "call_1", content: object = "a star", **extra: object) -> Row:
    """A tool's turn; without an id where it is empty."""
    return {"role": "tool", "content": content, **({"tool_call_id": id} if id else {}), **extra}


def with_keys(row: Row, text: str) -> bytes:
    """The row as JSON with further keys as they are written here."""
    return json.dumps(row, ensure_ascii=False).encode()[:-1] + b", " + text.encode() + b"}"


@dataclass(frozen=True)
class Story:
    """A file with one trouble. `lines`, `says` (in message, reason, hint or fix) and `path` are those of the finding."""

    title: str
    id: str
    content: object
    lines: tuple[int, ...] = (13,)
    says: str = ""
    severity: str = "error"
    path: str = ""
    schema: str = "chat_sft_v1"
    count: int = 0
    also: tuple[str, ...] = ()  # further findings of the same trouble
    is_whole: bool = False  # `content` is the file, not the row that follows twelve good ones

    @property
    def file(self) -> object:
        return self.content if self.is_whole else [*GOOD_ROWS[self.schema], self.content]


def whole(title: str, id: str, content: object, lines: tuple[int, ...] = (1,), says: str = "", **more: Any) -> Story:
    """A story of a whole file."""
    return Story(title, id, content, lines, says, is_whole=True, **more)


def tell(story: Story, check: Check) -> None:
    """Check the story's file and compare."""
    report = check(story.file, story.schema, SMALL if story.id == "F12" or "pasted" in story.title else None)
    finding = found(report, story.id)
    assert finding.severity == story.severity, report.to_text()
    assert finding.lines == story.lines, report.to_text()
    assert finding.count == (story.count or max(1, len(story.lines)))
    assert story.says in f"{finding.message} {finding.why} {finding.hint} {finding.fix}", report.to_text()
    assert story.path in finding.path
    assert report.verdict == ("refused" if story.severity == "error" else "accepted")
    assert finding.hint, "every finding says what to do"
    assert finding.why, "every finding says why it matters"
    assert sorted({other.id for other in report.findings}) == sorted({story.id, *story.also}), report.to_text()
