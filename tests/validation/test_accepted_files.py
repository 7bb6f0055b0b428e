"""Files that look wrong and are right: none of them is refused."""

import json
from pathlib import Path

import pytest
from gate_cases import GOOD, GOOD_PAIRS, Check, as_bytes, chat, found, pair, turns

from validation import DataValidator, Level

REAL = Path(__file__).parents[1] / "data" / "gate" / "gsm8k_40.jsonl"

TRICKY = {
    "line separators inside strings": [*GOOD, chat("a\u2028b\u2029c\x85d\x0b"[:-1], "e\u2028f")],
    "emoji families and flags": [*GOOD, chat("👨‍👩‍👧‍👦 🏳️‍🌈", "👍🏽 1️⃣")],
    "escaped emoji": [*GOOD, b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00"}, {"role": "assistant", "content": "a"}]}'],
    "right to left": [*GOOD, chat("שלום עולם", "مرحبا \u200fبالعالم")],
    "Chinese, Japanese, Korean, Thai": [*GOOD, chat("你好，世界", "こんにちは 세계 สวัสดี")],
    "another key order": [*GOOD, b'{"messages": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}]}'],
    "blanks between tokens": [*GOOD, b'\t { "messages" : [ { "role" : "user" , "content" : "q" } , { "role" : "assistant", "content" : "a" } ] }  '],
    "quotes and braces in the text": [*GOOD, chat('{"role": "user", "messages": [', '"content": "a", "content"')],
    "a text that is the name of a key": [*GOOD, turns(("user", "role"), ("assistant", "content"))],
    "JSON as the answer": [*GOOD, chat("answer in JSON", '{"messages": "[1, 2]", "weight": NaN}')],
    "comparisons and HTML": [*GOOD, chat("is a < b?", "<p>1 <= 2</p> <|> </s> [INST] |im_end|")],
    "everything that is optional": [
        *GOOD,
        chat(id="a-1", weight=0.25, metadata={"source": "x", "n": 2**70, "deep": [[[]]]}),
        chat(id=7, weight=0, metadata={}),
        {"messages": [{"role": "user", "content": "q", "name": "ann"}, {"role": "assistant", "content": "a", "weight": 1}]},
    ],
    "a muted turn before a learnt one": [
        *GOOD,
        {"messages": [*turns(("user", "q"))["messages"], {"role": "assistant", "content": "", "weight": 0}, *chat()["messages"]]},
    ],
    "the same key in different objects": [*GOOD, chat(metadata={"role": "x", "content": "y", "messages": "z", "weight": 1, "name": "n"})],
    "an answer that stands in its question": [*GOOD, chat("Which word: red or blue?", "red")],
    "twelve equal rows": [chat()] * 12,
}  # fmt: skip


@pytest.mark.parametrize("title", TRICKY)
def test_a_valid_file_passes_without_a_word(title: str, check: Check) -> None:
    report = check(TRICKY[title])
    assert report.findings == (), report.to_text()
    assert report.rows == len(TRICKY[title])


@pytest.mark.parametrize("ending", [b"\r\n", b"\n\n\n", b"", b"\n \t\r\n"])
def test_line_ends_do_not_matter(ending: bytes, check: Check) -> None:
    lines = as_bytes(GOOD).strip().split(b"\n")
    content = (b"\r\n" if ending == b"\r\n" else b"\n").join(lines) + ending
    report = check(content)
    assert report.findings == (), report.to_text()
    assert report.rows == 12


def test_a_byte_order_mark_is_only_noted_and_the_first_row_counts(check: Check) -> None:
    report = check(b"\xef\xbb\xbf" + as_bytes(GOOD_PAIRS), "completion_v1")
    assert [finding.id for finding in report.findings] == ["F04"]
    assert report.verdict == "accepted"
    assert report.rows == 12


def test_a_bad_first_row_behind_a_mark_is_named_at_its_true_offset(check: Check) -> None:
    report = check(b"\xef\xbb\xbf" + b'{"prompt": "\xff"}\n' + as_bytes(GOOD_PAIRS), "completion_v1")
    assert "offset 15 of the file" in found(report, "F05").message


def test_real_rows_pass() -> None:
    report = DataValidator().check_file(REAL, "chat_sft_v1", "deep")
    assert (report.verdict, report.rows, report.findings) == ("accepted", 40, ())
    assert report.stats["turns"] == 80
    assert report.level is Level.DEEP
    assert report.stats["levels_run"] == ["quick"]


def test_turns_are_judged_even_where_a_column_is_extra(check: Check) -> None:
    rows = [*GOOD, turns(("user", "q"), source="web"), chat(answer=" ", source="web")]
    report = check(rows)
    assert found(report, "S03").count == 2
    assert found(report, "M05").lines == (13,)
    assert found(report, "M07").lines == (14,)


def test_lines_are_physical(check: Check) -> None:
    content = as_bytes([*GOOD[:2], b"", b"\r", chat("a\u2028b\x85c"), b"oops", *GOOD])
    assert found(check(content), "J01").lines == (6,)


def test_a_row_may_be_as_long_as_the_limit_and_blocks_do_not_cut_it(check: Check) -> None:
    rows = [pair("p" * size, "c" * size) for size in (100_000, 131_056, 131_057, 300_000)]
    report = check([*GOOD_PAIRS, *rows], "completion_v1")
    assert report.verdict == "accepted"
    assert report.stats["longest_row_bytes"] == len(json.dumps(rows[-1]))
    assert found(report, "F10").lines == (15, 16)
