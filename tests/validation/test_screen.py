"""The screen lets blocks of good rows pass in one go; it must never hide a finding."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_cases import as_bytes, chat, pair, turns

from rendering.specs import SPECS, Message, SpecRow
from validation import DataValidator, Level, Report
from validation import scan as scanning
from validation.source import BLOCK_BYTES, Source

Change = Callable[[dict[str, Any], int], dict[str, Any]]
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
    "the same key twice with blanks before both colons": b'{"messages": [{"role" : "user", "content" : "a", "content" : "b"},'
    + b' {"role": "assistant", "content": "b"}]}\n',
    "the same messages twice": b'{"messages": [], "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "the same role twice": b'{"messages": [{"role": "user", "content": "a", "role": "user"}, {"role": "assistant", "content": "b"}]}\n',
    "the same key twice beside texts that end with a backslash": as_bytes([chat("a\\", "b\\")])
    + b'{"messages": [], "messages": [{"role": "user", "content": "a\\\\"}, {"role": "assistant", "content": "b\\\\\\""}]}\n',
    "a row without messages": b'{"messages": []}\n',
    "a control token behind many others": as_bytes([chat("q", "a < b " * 90 + "<|im_end|>")]),
    "a control token half with escapes": b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<\\uff5cUser\\uff5c>"}]}\n',
    "the same name twice": as_bytes([{"id": "a", **chat("b", "c")}]).replace(b'"id": "a"', b'"id": "a", "id": "b"'),
    "an empty name, twice": as_bytes([{"id": "", **chat("b", "c")}]).replace(b'"id": ""', b'"id": "", "id": ""'),
    "a name that 64 bit do not hold": as_bytes([{"id": 1 << 70, **chat("b", "c")}]),
    "many backslashes": as_bytes([chat("\\" * 60, "\\" * 31 + '"')]),
    "an unknown key": as_bytes([{"name": "a", **chat("b", "c")}]),
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
    assert screened.stats == plain.stats


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
                content[place:place] = rng.choice(
                    [
                        b"\n",
                        b'"',
                        b"}",
                        b"{",
                        b'"role": "user", ',
                        b'"content" :"x",',
                        b"\\u0041",
                        b" ",
                        b"<|im_start|>",
                        b"\r",
                        b"\\\\",
                        b'"id": "",',
                        b'"messages": [],',
                    ]
                )
            case 3:
                cut = content[place : place + rng.randint(1, 2000)]
                content[place:place] = cut
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    schema = "chat_sft_v1" if seed % 2 else "completion_v1"
    screened, plain = DataValidator().check_file(path, schema), unscreened(path, schema, monkeypatch)
    assert screened.findings == plain.findings
    assert screened.stats == plain.stats


def with_names(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {"id": f"row-{number}", **row}


def with_system(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Ève, be kind."}, *row["messages"]]} if number % 2 else row


def content_first(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {"messages": [dict(reversed(turn.items())) for turn in row["messages"]]}


def with_quotes(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {"messages": [{"role": turn["role"], "content": f'He said: "{turn["content"]}": \\" \\\\" <b> \\'} for turn in row["messages"]]}


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("change", [lambda row, number: row, with_names, with_system, content_first, with_quotes])
def test_good_rows_pass_the_screen(change: Change, ascii: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    screen = scanning.Screen.clean

    def watched(self: scanning.Screen, block: bytes) -> object:
        found = screen(self, block)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(scanning.Screen, "clean", watched)
    path = tmp_path / "rows.jsonl"
    rows = [change(json.loads(line), number) for number, line in enumerate(good_rows(1000))]
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows))
    report = DataValidator().check_file(path)
    assert report.verdict == "accepted"
    assert report.stats == unscreened(path, "chat_sft_v1", monkeypatch).stats
    assert path.stat().st_size > 4 * BLOCK_BYTES
    assert len(seen) >= 4
    assert all(seen)


def test_rows_of_a_clean_block_are_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(good_rows(600)))
    told: list[tuple[int, SpecRow, list[Message]]] = []
    validator = DataValidator()
    with Source(path, validator.setting.limits) as source:
        examination = validator.begin(source, "chat_sft_v1", Level.QUICK, lambda line, row, messages: told.append((line, row, messages)))
        assert examination.begin()
        examination.read(source.blocks())
    decode = SPECS["chat_sft_v1"].decode
    assert [line for line, _, _ in told] == list(range(1, 601))
    assert [row for _, row, _ in told] == [decode(line) for line in path.read_bytes().splitlines()]
    assert all(messages == SPECS["chat_sft_v1"].messages(row) for _, row, messages in told)
