"""What a person and a program read of a refusal."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from gate_cases import GOOD, GOOD_PAIRS, Check, as_bytes, chat, found, turns

from validation import DataValidator
from validation.findings import shown
from validation.report import single

KEYS = ["file", "sha256", "schema", "level", "verdict", "rows", "findings", "stats", "sampled", "seconds"]
FINDING_KEYS = ["id", "severity", "name", "count", "lines", "path", "message", "hint", "fix"]


def test_the_json_has_the_promised_keys(check: Check) -> None:
    plain = json.loads(check([*GOOD, chat(source="web"), b""]).to_json())
    assert list(plain) == KEYS
    assert [list(finding) for finding in plain["findings"]] == [FINDING_KEYS]
    assert plain["sampled"] is None
    assert plain["levels_run"] == ["quick"]
    assert plain["verdict"] == "refused"
    assert plain["rows"] == 13
    assert len(plain["sha256"]) == 64


def test_findings_stand_in_order_of_harm(check: Check) -> None:
    rows = [*GOOD, b"", turns(("user", "q")), chat(question=""), chat(source="a"), chat(source="b"), chat(answer="")]
    report = check(b"\xef\xbb\xbf" + as_bytes(rows))
    assert [(finding.id, finding.count) for finding in report.findings] == [("S03", 2), ("M05", 1), ("M07", 1), ("F08", 1), ("M08", 1), ("F04", 1)]


def test_counts_are_never_cut_and_lines_are(check: Check) -> None:
    finding = found(check([*GOOD, *[chat(answer="") for _ in range(7)]]), "M07")
    assert finding.count == 7
    assert finding.lines == (13, 14, 15, 16, 17)


def test_the_text_says_what_where_why_and_what_to_type(check: Check) -> None:
    text = check([*GOOD, *[chat(source="web")] * 7]).to_text()
    assert text.splitlines()[0] == "rows.jsonl: REFUSED, 19 rows, chat_sft_v1: 1 error"
    assert "error    S03 spec.unknown_field, lines 13, 14, 15, 16, 17 and 2 more, $.source" in text
    assert "$ jq -c '.metadata.source = .source | del(.source)' rows.jsonl > rows-fixed.jsonl" in text
    assert "Levels run: quick;" in text


def test_a_level_without_checks_of_its_own_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(as_bytes(GOOD))
    report = DataValidator().check_file(path, level="STANDARD")
    assert report.findings == ()
    assert "Levels run: quick (standard was asked for" in report.to_text()


def test_nothing_of_a_row_can_end_the_report_or_paint_the_terminal(check: Check) -> None:
    hostile = "x\x1b[31m\u202e` | <b>**" + "y" * 200
    report = check([*GOOD, b"42", turns((hostile, "q"), ("assistant", "a")), {hostile: 1}])
    for text in (report.to_text(), report.to_markdown()):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "y" * 81 not in text
    assert "<b>" not in report.to_markdown().replace("\\<b\\>", "")


def test_a_hostile_file_name_is_only_a_name(tmp_path: Path) -> None:
    path = tmp_path / "-x\x1b[31m$(touch gone);.jsonl"
    path.write_bytes(b"\x1f\x8b")
    report = DataValidator().check_file(path, name=path.name)
    assert "\x1b" not in report.to_text()
    assert shlex.split(found(report, "F03").fix)[:3] == ["gunzip", "-c", f"./{path.name}"]


def test_values_are_shown_short_and_safe() -> None:
    assert shown("a\nb\x00\u202e") == r"'a\nb\x00\u202e'"
    assert len(shown("z" * 500)) <= 82
    assert shown([1, 2]) == "[1, 2]"
    assert len(shown({"k": "\u200b" * 500})) <= 80


def test_a_drop_that_never_reached_the_gate_gets_the_same_report() -> None:
    report = single(file="x.jsonl", schema="chat_sft_v1", code="DUPLICATE", message="job 7 has these bytes", hint="lorad drop --again x.jsonl")
    assert report.verdict == "refused"
    assert list(report.to_plain()) == KEYS
    assert "The rows were not read" in report.to_text()
    assert "DUPLICATE" in report.to_markdown()


def test_a_million_different_keys_make_a_short_report(check: Check) -> None:
    report = check([*GOOD, *[chat(**{f"column {number}": 1}) for number in range(500)]])
    unknown = [finding for finding in report.findings if finding.id == "S03"]
    assert len(unknown) == 21
    assert sum(finding.count for finding in unknown) == 500


FIXABLE = {
    "latin-1": (as_bytes(GOOD) + as_bytes([chat(answer="café")]).decode().encode("latin-1"), "F05", "chat_sft_v1"),
    "array": (b"[" + b",\n".join(as_bytes(GOOD).splitlines()) + b"]", "J01", "chat_sft_v1"),
    "array on one line": (json.dumps(GOOD).encode(), "J02", "chat_sft_v1"),
    "pretty": (b"\n".join(json.dumps(row, indent=2).encode() for row in GOOD), "J01", "chat_sft_v1"),
    "python": (b"\n".join(repr(row).encode() for row in GOOD), "J01", "chat_sft_v1"),
    "csv": (b"prompt,completion\n" + b'"Hello, you",there\n' * 12, "J01", "completion_v1"),
    "cut": (as_bytes(GOOD) + b'{"messages": [', "J01", "chat_sft_v1"),
    "joined": (b"".join(b"\xef\xbb\xbf" + as_bytes([row]) for row in GOOD), "J01", "chat_sft_v1"),
    "two values": (as_bytes(GOOD).replace(b"\n", b" "), "J03", "chat_sft_v1"),
    "column": ([chat(source="web")] * 12, "S03", "chat_sft_v1"),
    "message column": ([{"messages": [message | {"time": 3} for message in turns(("user", "q"), ("assistant", "a"))["messages"]]}] * 12, "S03", "chat_sft_v1"),
    "stringified": ([{"messages": json.dumps(chat()["messages"])}] * 12, "S05", "chat_sft_v1"),
    "sharegpt": ([{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}] * 12, "S06", "chat_sft_v1"),
    "alpaca": ([{"instruction": "i", "input": "x", "output": "o"}] * 12, "S06", "chat_sft_v1"),
    "alpaca as completion": ([{"instruction": "i", "input": "", "output": "o"}] * 12, "S06", "completion_v1"),
    "question and answer": ([{"question": "q", "answer": "a"}] * 12, "S06", "chat_sft_v1"),
    "corrections": ([{"prompt": "p", "model_output": "o", "correction": "c"}] * 12, "S06", "completion_v1"),
    "gemini": ([{"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]}] * 12, "S06", "chat_sft_v1"),
    "roles": ([turns(("user", "q"), ("bot", "a"))] * 12, "M02", "chat_sft_v1"),
    "gzip": (None, "F03", "completion_v1"),
}  # fmt: skip


@pytest.mark.skipif(shutil.which("jq") is None, reason="the offered commands use jq")
@pytest.mark.parametrize("title", FIXABLE)
def test_the_offered_command_makes_an_accepted_file(title: str, tmp_path: Path) -> None:
    content, id, schema = FIXABLE[title]
    path = tmp_path / "my rows.jsonl"
    if content is None:
        path.write_bytes(as_bytes(GOOD_PAIRS))
        subprocess.run(["gzip", str(path)], check=True)
        os.rename(f"{path}.gz", path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else as_bytes(content))
    refused = DataValidator().check_file(path, schema, name="my rows.jsonl")
    fix = next(finding.fix for finding in refused.findings if finding.id == id and finding.fix)
    subprocess.run(["bash", "-c", fix], cwd=tmp_path, check=True)
    fixed = DataValidator().check_file(tmp_path / "my rows-fixed.jsonl", schema)
    assert fixed.verdict == "accepted", fixed.to_text()
