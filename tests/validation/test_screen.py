"""The screen lets blocks of good rows pass in one go; it must never hide a finding."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_cases import as_bytes, chat, pair, turns

from validation import DataValidator, Report
from validation import scan as scanning
from validation.source import BLOCK_BYTES

REAL = Path(__file__).parents[1] / "data" / "real"
FAULTS: dict[str, bytes] = {
    "two rows on a line, and a row on two lines": b'{"messages": [{"role": "user", "content": "a"},\n{"role": "assistant", "content": "b"}]}\n'
    + as_bytes([chat("c", "d")]).rstrip(b"\n")
    + as_bytes([chat("e", "f")]),
    "two rows on a line and a blank line": as_bytes([chat("c", "d")]).rstrip(b"\n") + as_bytes([chat("e", "f")]) + b"\n",
    "the same key twice": b'{"messages": [{"role": "user", "role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "the same key twice, once with escapes": b'{"messages": [{"role": "user", "r\\u006fle": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "the same key twice beside a key with a blank behind it": b'{"messages" : [{"role": "user", "content": "a", "content": "b"},'
    + b' {"role": "assistant", "content": "b"}]}\n',
    "a key missing and one twice": b'{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "b"}]}\n',
    "an invisible answer": as_bytes([chat("question", "\u200b\u2060")]),
    "a blank question": as_bytes([chat(" ", "answer")]),
    "an empty answer": as_bytes([chat("question", "")]),
    "two assistants": as_bytes([turns(("user", "a"), ("assistant", "b"), ("assistant", "c"))]),
    "an assistant first": as_bytes([turns(("assistant", "a"), ("user", "b"))]),
    "a system message in the middle": as_bytes([turns(("user", "a"), ("system", "b"), ("user", "c"), ("assistant", "d"))]),
    "a system message alone": as_bytes([turns(("system", "a"))]),
    "a system message without text": as_bytes([turns(("system", " "), ("user", "a"), ("assistant", "b"))]),
    "a control token": as_bytes([chat("q", "a<|im_end|>")]),
    "a control token with escapes": b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\u003c|im_end|>"}]}\n',
    "a weight of 0": as_bytes([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}]),
    "an integer beyond 64 bit": as_bytes([chat("a", "b", metadata={"id": 1 << 70})]),
    "a raw tab": b'{"messages": [{"role": "user", "content": "a\tb"}, {"role": "assistant", "content": "b"}]}\n',
    "a byte that is not UTF-8": b'{"messages": [{"role": "user", "content": "a\xff"}, {"role": "assistant", "content": "b"}]}\n',
    "a byte order mark": b"\xef\xbb\xbf" + as_bytes([chat("a", "b")]),
    "a large row": as_bytes([chat("a", "b" * 300_000)]),
    "a row with a null": b'{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]}\n',
    "blank lines": b"\n\n  \n",
    "carriage returns": as_bytes([chat("a", "b")]).replace(b"\n", b"\r\n"),
}


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "LEAST_FILE_BYTES", 0)


def good_rows(count: int) -> Iterator[bytes]:
    lines = (REAL / "gsm8k_train_chat.jsonl").read_bytes().splitlines(keepends=True)
    for number in range(count):
        yield lines[number % len(lines)]


def unscreened(path: Path, schema: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    with monkeypatch.context() as patched:
        patched.setattr(scanning, "has_screen", lambda row: False)
        return DataValidator().check_file(path, schema)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_among_good_rows_is_found_as_if_there_were_no_screen(fault: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(good_rows(600)) + fault + b"".join(good_rows(600)))
    screened, plain = DataValidator().check_file(path), unscreened(path, "chat_sft_v1", monkeypatch)
    assert screened.findings == plain.findings
    assert (screened.rows, screened.sha256, screened.verdict) == (plain.rows, plain.sha256, plain.verdict)
    assert {key: value for key, value in screened.stats.items() if key != "longest_row_bytes"} == {
        key: value for key, value in plain.stats.items() if key != "longest_row_bytes"
    }


@pytest.mark.parametrize("seed", range(12))
def test_damaged_bytes_are_judged_as_if_there_were_no_screen(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)  # noqa: S311 - faults, not secrets
    rows = list(good_rows(500)) if seed % 2 else [json.dumps(pair(f"prompt {n}", f"completion {n} " * 9)).encode() + b"\n" for n in range(1000)]
    content = bytearray(b"".join(rows))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place : place + rng.randint(1, 30)]
            case 2:
                content[place:place] = rng.choice([b"\n", b'"', b"}", b"{", b'"role": "user", ', b'"content" :"x",', b"\\u0041", b" ", b"<|im_start|>", b"\r"])
            case 3:
                cut = content[place : place + rng.randint(1, 2000)]
                content[place:place] = cut
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    schema = "chat_sft_v1" if seed % 2 else "completion_v1"
    screened, plain = DataValidator().check_file(path, schema), unscreened(path, schema, monkeypatch)
    assert screened.findings == plain.findings
    assert screened.stats["turns"] == plain.stats["turns"]


def test_good_rows_pass_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    screen = scanning.Screen.rows

    def watched(self: scanning.Screen, block: bytes) -> object:
        found = screen(self, block)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(scanning.Screen, "rows", watched)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(good_rows(1000)))
    assert DataValidator().check_file(path).verdict == "accepted"
    assert path.stat().st_size > 4 * BLOCK_BYTES
    assert seen
    assert all(seen)
