"""Fingerprints of rows: by them a row is found again wherever it lies, and an order to forget names no text.

A signal is no row yet, and its row may be written in several ways: it is found by its *sense*, a fingerprint of the question
and the answer that is learnt from it, which a row and its signal share.

The fingerprint is the SHA-256 of the row's JSON with sorted keys and no blanks, so that a row that was written anew by
another program is still found; of a line that is no JSON, of its bytes without blanks at its ends.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import msgspec

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 18
SENSE = "sense:"
LEARNT = ("completion", "correction", "chosen", "output")  # keys of what is learnt, by schema

_decode = msgspec.json.Decoder().decode


def fingerprint(line: bytes) -> str:
    """The fingerprint of one line; empty of a blank one."""
    bare = line.removeprefix(BOM).strip()
    if not bare:
        return ""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        bare = json.dumps(_decode(bare), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.sha256(bare).hexdigest()


def lines_of(path: Path) -> Iterator[bytes]:
    """The physical lines of a file with their ends, `.zst` unpacked; as many as there are where it is damaged or vanishes."""
    import zstandard

    try:
        with open(path, "rb") as file:
            if path.suffix != ".zst":
                yield from file
                return
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
                rest = b""
                while block := stream.read(BLOCK_BYTES):
                    *whole, rest = (rest + block).split(b"\n")
                    for line in whole:
                        yield line + b"\n"
                if rest:
                    yield rest
    except (OSError, zstandard.ZstdError):
        return


def lines_with(path: Path, wanted: Set[str]) -> list[int]:
    """Numbers, from 1, of the lines whose fingerprint is wanted; also of lines that hold such a row as their `text` (a quarantine)."""
    return [number for number, line in enumerate(lines_of(path), 1) if is_wanted(line, wanted)]


def is_wanted(line: bytes, wanted: Set[str]) -> bool:
    """Whether a line is a wanted row, holds one as its `text`, or is a signal that says the same as one."""
    if fingerprint(line) in wanted:
        return True
    if b'"text"' not in line and b'"correct_output"' not in line:
        return False
    row = _object(line)
    text = row.get("text")
    if isinstance(text, str) and fingerprint(text.encode()) in wanted:
        return True
    signal = row["signal"] if isinstance(row.get("signal"), dict) else row
    return "correct_output" in signal and sense_of_signal(signal) in wanted


def marks_of(line: bytes) -> Iterator[str]:
    """By what a row is found again: its fingerprint, and its sense, where it has one."""
    if found := fingerprint(line):
        yield found
        if sense := sense_of_row(line):
            yield sense


def is_sense(mark: str) -> bool:
    """Whether a mark is a sense; else it is a fingerprint."""
    return mark.startswith(SENSE)


def sense_of_row(line: bytes) -> str:
    """The sense of one line; empty of what is no row with a question and an answer."""
    row = _object(line)
    turns = row.get("messages")
    if isinstance(turns, list) and len(turns) > 1 and all(isinstance(turn, dict) for turn in turns):
        return _sense(turns[-2].get("content"), turns[-1].get("content"))
    answer = next((row[key] for key in LEARNT if row.get(key)), "")
    task = row.get("prompt", row.get("instruction"))
    if isinstance(task, str) and row.get("instruction") and row.get("input"):
        task = f"{task}\n\n{row['input']}"
    return _sense(_last(task), _last(answer))


def sense_of_signal(signal: dict[str, Any]) -> str:
    """The sense of a signal's plain values: what is right, or where nobody knows that, what was said."""
    right = signal.get("correct_output")
    return _sense(_last(signal.get("input")), right if isinstance(right, str) and right.strip() else signal.get("wrong_output"))


def _last(value: Any) -> Any:
    """The text itself, or that of the last turn."""
    return value[-1].get("content") if isinstance(value, list | tuple) and value and isinstance(value[-1], dict) else value


def _sense(question: Any, answer: Any) -> str:
    if not question or not answer:
        return ""
    said = json.dumps([_folded(question), _folded(answer)], sort_keys=True, ensure_ascii=True)
    return SENSE + hashlib.sha256(said.encode()).hexdigest()


def _folded(text: Any) -> Any:
    return " ".join(text.casefold().split()) if isinstance(text, str) else text


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = _decode(line)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}
