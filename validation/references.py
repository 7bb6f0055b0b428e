"""Evaluation sets that must not be inside a training file: read into items, whatever their layout.

JSON Lines of any layout (texts are taken by the names of their keys, messages and turns by their roles), a JSON array, or
plain text with one item a line. What cannot be read is told by line; the rest of the file is used.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from validation.case import strings
from validation.context import Context
from validation.findings import shown

MOST_BYTES = 1 << 30  # of a reference file; what lies behind is not read
MOST_ITEMS = 200_000
MOST_LINE_BYTES = 8 << 20
MOST_FAULTS = 5  # that are told by line
MOST_SAMPLED = 2_000  # questions of all references together, for models

Kind = Literal["question", "further", "answer"]
"""The question of an item; a later turn of its user; an answer."""
QUESTIONS = (
    *("prompt", "question", "instruction", "query", "problem", "text", "goal", "input"),
    *("turns", "messages", "conversations", "conversation", "context"),
)
ANSWERS = (
    *("canonical_solution", "answer", "answers", "solution", "completion", "output", "response"),
    *("target", "correction", "chosen", "reference", "best_answer"),
)
_USERS, _ASSISTANTS = ("user", "human"), ("assistant", "gpt", "model", "bot")


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an evaluation set: its place in the file (1-based, of items), its physical line, its texts."""

    number: int
    line: int
    texts: tuple[tuple[Kind, str], ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a reference file, at a line (0: the file as a whole), and what to do."""

    line: int
    what: str
    hint: str


@dataclass(slots=True)
class Reference:
    """An evaluation set, as far as it could be read."""

    name: str
    items: list[Item] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    num_faults: int = 0

    def fault(self, line: int, what: str, hint: str) -> None:
        """Note a fault; the first few are kept."""
        self.num_faults += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(line, what, hint))


def read_reference(path: Path) -> Reference:
    """The items of an evaluation set. Never raises: what is wrong stands in `faults`."""
    reference = Reference(path.name)
    try:
        content = _content(path, reference)
    except OSError as error:
        reference.fault(0, f"{path} cannot be read: {error.strerror or error}", "name a file that is there and may be read")
        return reference
    if content is None:
        return reference
    if content.lstrip()[:1] == b"[" and (rows := _array(content)) is not None:
        _take(enumerate(rows, start=1), reference)
    elif _holds_objects(content):
        _take(_objects(content, reference), reference)
    else:
        _take(_plain_lines(content, reference), reference)
    if not reference.items and not reference.faults:
        reference.fault(0, f"{path.name} holds no text to compare with", "name a file with one item a line")
    return reference


def references_of(context: Context) -> tuple[Reference, ...]:
    """The reference files of a check, read once a process."""
    return context.once("references", lambda: tuple(read_reference(Path(path)) for path in context.around.references))


def sampled_questions(context: Context) -> list[tuple[Reference, Item, str]]:
    """A question of each item, or of a part of them from all over where they are many."""
    found = [(reference, item, text) for reference in references_of(context) for item in reference.items if (text := _question(item))]
    return found[:: -(-len(found) // MOST_SAMPLED) or 1]


def _question(item: Item) -> str:
    return next((text for kind, text in item.texts if kind == "question"), "")


def _content(path: Path, reference: Reference) -> bytes | None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not make the gate wait
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            reference.fault(0, f"{path} is no plain file", "name the file itself")
            return None
        with os.fdopen(os.dup(fd), "rb") as file:
            content = file.read(MOST_BYTES)
    finally:
        os.close(fd)
    if not content.strip():
        reference.fault(0, f"{path.name} is empty", "export the evaluation set again")
        return None
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"PAR1")) or b"\x00" in content[:4096]:
        reference.fault(0, f"{path.name} is no text: it is compressed or binary", "unpack it to JSON Lines or plain text first")
        return None
    if found.st_size > MOST_BYTES:
        reference.fault(0, f"only the first {MOST_BYTES >> 20} MiB of {path.name} are compared", "split it, and name the parts")
        content = content[: content.rfind(b"\n") + 1]
    return content.removeprefix(b"\xef\xbb\xbf")


def _array(content: bytes) -> list[Any] | None:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _holds_objects(content: bytes) -> bool:
    """Whether the first lines are JSON objects, or most of them are."""
    lines = [line for line in content[: 1 << 20].split(b"\n")[:50] if line.strip()]
    return sum(line.lstrip()[:1] == b"{" for line in lines) * 2 >= len(lines)


def _objects(content: bytes, reference: Reference) -> Iterator[tuple[int, Any]]:
    decode = msgspec.json.Decoder().decode
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        if len(raw) > MOST_LINE_BYTES:
            reference.fault(number, f"line {number} of {reference.name} is {len(raw):,} bytes long", "split or shorten the item")
            continue
        try:
            yield number, decode(raw)
        except (msgspec.MsgspecError, RecursionError) as error:
            begin = shown(raw[:60].decode(errors="replace"))
            reference.fault(number, f"line {number} of {reference.name} is not JSON ({error}): {begin}", "export that item again")
        except UnicodeDecodeError:
            reference.fault(number, f"line {number} of {reference.name} is not UTF-8", "convert the file: iconv -f WINDOWS-1252 -t UTF-8")


def _plain_lines(content: bytes, reference: Reference) -> Iterator[tuple[int, Any]]:
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            reference.fault(number, f"line {number} of {reference.name} is not UTF-8", "convert the file: iconv -f WINDOWS-1252 -t UTF-8")
            continue
        if text.strip():
            yield number, text


def _take(rows: "Iterator[tuple[int, Any]] | enumerate[Any]", reference: Reference) -> None:
    for line, row in rows:
        if len(reference.items) >= MOST_ITEMS:
            reference.fault(line, f"only the first {MOST_ITEMS:,} items of {reference.name} are compared", "split it, and name the parts")
            return
        texts = tuple(texts_of_item(row))
        if texts:
            reference.items.append(Item(len(reference.items) + 1, line, texts))
        else:
            reference.fault(line, f"line {line} of {reference.name} holds no text", "give each item a text under a name such as prompt or question")


def texts_of_item(row: Any) -> Iterator[tuple[Kind, str]]:
    """The texts of an item: questions and answers by the names of their keys; where no name is known, every text."""
    if isinstance(row, str):
        yield "question", row
        return
    if not isinstance(row, Mapping):
        yield from (("question", text) for _, text in strings(row, "$"))
        return
    if isinstance(row.get("instruction"), str) and isinstance(row.get("input"), str) and row["input"]:
        row = {**row, "instruction": f"{row['instruction']}\n\n{row['input']}", "input": ""}  # as instruction_v1 renders them
    found = [text for key in QUESTIONS if key in row for text in _texts(row[key], "question")]
    found += [text for key in ANSWERS if key in row for text in _texts(row[key], "answer")]
    if not any(kind == "question" for kind, _ in found):
        found += [("question", text) for key, value in row.items() if key not in ANSWERS for _, text in strings(value, key) if " " in text.strip()]
    yield from ((kind, text) for kind, text in found if text.strip())


def _texts(value: Any, kind: Kind) -> Iterator[tuple[Kind, str]]:
    if isinstance(value, str):
        yield kind, value
    elif isinstance(value, Mapping):
        role = str(value.get("role", value.get("from", ""))).lower()
        content = value.get("content", value.get("value"))
        if content is None:
            yield from ((kind, text) for _, text in strings(value, "$"))
        elif role in _ASSISTANTS:
            yield from _texts(content, "answer")
        elif role in _USERS or not role:
            yield from _texts(content, kind)
    elif isinstance(value, Sequence):
        asked = False
        for inner in value:
            part = inner["text"] if isinstance(inner, Mapping) and isinstance(inner.get("text"), str) else inner
            for found, text in _texts(part, kind):
                yield "further" if asked and found == "question" else found, text
                asked = asked or found == "question"
