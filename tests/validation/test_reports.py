"""What a person and a program read of a refusal."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gate_cases import GOOD, GOOD_PAIRS, Check, as_bytes, chat, found, pair, turns

from cli.main import main
from core.gate import GATE_SPEC, GateSpec
from store import codec
from validation import DataValidator, Finding, Level, Report, Severity, commands
from validation.child import gate
from validation.context import Surroundings
from validation.examination import Setting
from validation.findings import fixed_name, shown
from validation.pages import View
from validation.report import Sampled, single

KEYS = ["file", "sha256", "schema", "level", "verdict", "rows", "findings", "stats", "sampled", "seconds"]
FINDING_KEYS = ["id", "severity", "count", "lines", "path", "message", "hint", "fix"]


def test_the_json_has_the_promised_keys(check: Check) -> None:
    plain = json.loads(check([*GOOD, chat(source="web"), b""]).to_json())
    assert list(plain) == KEYS
    assert plain["findings"][0]["id"] == "S03"
    assert all(list(finding) == FINDING_KEYS for finding in plain["findings"])
    assert plain["sampled"] is None
    assert plain["stats"]["levels_run"] == ["quick"]
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


def test_the_text_says_what_where_why_what_to_do_and_what_to_type(check: Check) -> None:
    report = check([*GOOD, *[chat(source="web")] * 7])
    lines = report.to_text().splitlines()
    assert lines[0] == "rows.jsonl: REFUSED, 19 rows, chat_sft_v1: 1 error"
    assert lines[2] == "error    S03 spec.unknown_field, 7 lines"
    labels = {line[9:16].strip(): line[16:] for line in lines if line.startswith(" " * 9) and line[9] != " "}
    assert list(labels) == ["what", "where", "why", "do", "type"]
    assert labels["where"] == "lines 13, 14, 15, 16, 17 and 2 more, at $.source"
    assert labels["type"] == found(report, "S03").fix
    assert lines[-1] == f"Next: {labels['type']}"


def test_a_page_is_as_wide_as_the_terminal_and_commands_are_never_broken(check: Check) -> None:
    report = check([*GOOD, *[chat(source="web")] * 7])
    for width in (60, 80, 120):
        lines = report.to_text(View(width=width)).splitlines()
        assert all(len(line) <= width for line in lines if not line.lstrip().startswith(("type", "Next:"))), width
        assert f"Next: {found(report, 'S03').fix}" in lines


def test_colours_come_from_the_view_alone(check: Check) -> None:
    report = check([*GOOD, chat(answer="")])
    assert "\x1b" not in report.to_text()
    painted = report.to_text(View(paint=lambda text, colour: f"<{colour}>{text}</>"))
    assert painted.startswith("<red>rows.jsonl: REFUSED")
    assert "<red>error    </>M07" in painted


def test_causes_with_the_same_advice_share_it(check: Check) -> None:
    text = check([*GOOD, *[chat(**{f"column {number}": 1}) for number in range(12)]]).to_text()
    assert text.count("error    S03") == 1
    assert text.count("what   ") == 5
    assert "… and 7 more of this kind, 7 times" in text


def test_rows_without_a_repair_may_be_left_out(check: Check) -> None:
    lines = check([*GOOD, chat(answer="")]).to_text().splitlines()
    assert lines[-2] == "Mend line 13 by hand and check again, or leave it out:"
    assert lines[-1] == "Next: lorad fix rows.jsonl -o rows-fixed.jsonl --schema chat_sft_v1 --repair drop --ids M07"


def test_a_file_of_bad_rows_is_not_emptied(check: Check) -> None:
    lines = check([chat(answer="")] * 12).to_text().splitlines()
    assert lines[-1] == "Next: lorad check rows.jsonl --schema chat_sft_v1"


COLUMNS = ("lang", "topic")
TYPED = "--schema completion_v1 --columns lang,topic"


def test_every_command_means_the_rows_that_were_checked(tmp_path: Path) -> None:
    files = {
        "values on one line": as_bytes([*GOOD_PAIRS, *GOOD_PAIRS]).replace(b"}\n{", b"} {", 3),
        "an empty completion": as_bytes([*GOOD_PAIRS, pair(completion="")]),
        "a secret": as_bytes([*GOOD_PAIRS, pair("my key", "ghp_" + "Zb3kQ9xV1mT7wLr5YpN2cJd8GsH4aEuF6iRo")]),
        "bad rows only": as_bytes([pair(completion="")] * 12),
    }
    for title, content in files.items():
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content)
        report = DataValidator().check_file(path, "completion_v1", "deep", name="rows.jsonl", columns=COLUMNS)
        commands = [finding.fix for finding in report.findings if finding.fix.startswith("lorad")] + [report.to_text().splitlines()[-1]]
        assert all(TYPED in command for command in commands), (title, commands)
        assert TYPED in report.to_markdown()


def test_a_command_names_what_the_check_was_told(tmp_path: Path) -> None:
    around = Surroundings(max_length=64, references=("/eval/one.jsonl", "/eval/two.jsonl"), images="/pictures")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes([*GOOD, chat(answer="")]))
    report = DataValidator(setting=Setting(around=around)).check_file(path, level="standard", name="rows.jsonl")
    step = report.to_text().splitlines()[-1]
    assert step.endswith("--max-length 64 --reference /eval/one.jsonl --reference /eval/two.jsonl --images /pictures")
    typed = DataValidator(setting=Setting(around=around, options=(("--schema", "chat_sft_v1"), ("--model", "small"))))
    assert typed.check_file(path, name="rows.jsonl").to_text().splitlines()[-1].endswith("--schema chat_sft_v1 --repair drop --ids M07 --model small")


def test_a_rejected_drop_names_the_schema_and_the_columns_of_its_job(tmp_path: Path) -> None:
    file, folder = tmp_path / "rows.jsonl", tmp_path / "asked"
    file.write_bytes(as_bytes([*GOOD_PAIRS, pair(completion="", lang="en")]))
    folder.mkdir()
    asked = {"drop": "1", "adapter": "default/main", "file": str(file), "name": "rows.jsonl", "schema_id": "completion_v1", "columns": COLUMNS}
    codec.write(folder / GATE_SPEC, GateSpec(level="quick", max_row_bytes=4 << 20, max_file_bytes=1 << 30, **asked))  # type: ignore[arg-type]
    assert gate(folder, lambda: datetime(2026, 1, 2, tzinfo=UTC)).verdict == "refused"
    assert f"    lorad fix rows.jsonl -o rows-fixed.jsonl {TYPED} --repair drop --ids C01" in (folder / "report.md").read_text().splitlines()


def test_a_command_for_another_schema_names_no_column_that_is_its_key() -> None:
    options = commands.named("completion_v1", ("label", "lang"))
    assert commands.told("lorad check x.jsonl --schema unpaired_v1", options) == "lorad check x.jsonl --schema unpaired_v1 --columns lang"
    assert commands.told("gunzip -c x.jsonl > y.jsonl", options) == "gunzip -c x.jsonl > y.jsonl"
    assert commands.told("lorad fix 'unclosed", options) == "lorad fix 'unclosed"


def test_no_command_leaves_out_more_than_half_of_the_rows() -> None:
    drop = "lorad fix x.jsonl -o y.jsonl --repair drop --ids D02"
    many = replace(_warning("D02", drop), count=6)
    both = replace(_warning("D07", f"{drop} --repair redact"), count=6)
    few = replace(_warning("D02", drop), count=4)
    fixes = [finding.fix for finding in _report(findings=(many, both, few)).with_options((("--schema", "chat_sft_v1"),)).findings]
    assert fixes[0] == ""
    assert fixes[1] == "lorad fix x.jsonl -o y.jsonl --schema chat_sft_v1 --repair redact"
    assert fixes[2].endswith("--repair drop --ids D02")
    others = replace(_warning("N02", "lorad fix x.jsonl -o y.jsonl --repair drop --ids N02"), count=2)
    assert _report(findings=(few, others)).to_text().splitlines()[-1].endswith("--repair drop --ids D02"), "nor do two of them together"


def test_only_what_mends_is_said_to_mend(check: Check) -> None:
    lines = check([*GOOD, {"question": "q", "answer": "a", "choices": ["a", "b"]}]).to_text().splitlines()
    assert "Mend line 13 by hand and check again, or leave it out:" in lines
    assert lines[-1] == "Next: lorad fix rows.jsonl -o rows-fixed.jsonl --schema chat_sft_v1 --repair drop --ids S06"
    assert not any("This mends a part" in line for line in lines)


def test_an_accepted_file_goes_on(check: Check) -> None:
    report = check(GOOD)
    assert report.to_text(View(onward="lorad drop rows.jsonl")).splitlines()[-1] == "Next: lorad drop rows.jsonl"
    assert "Next:" not in report.to_text()


def _report(**fields: object) -> Report:
    return replace(Report(file="x.jsonl", sha256="", schema="chat_sft_v1", level=Level.STANDARD, rows=9, findings=()), **fields)  # type: ignore[arg-type]


def _warning(id: str, fix: str) -> Finding:
    return Finding(id=id, severity=Severity.WARNING, name="a.b", message="m", hint="h", fix=fix, lines=(3,))


def test_next_does_all_that_the_findings_ask_for_at_once() -> None:
    findings = (
        _warning("B06", "lorad fix x.jsonl -o y.jsonl --schema chat_sft_v1"),
        _warning("D07", "lorad fix x.jsonl -o y.jsonl --repair redact"),
        _warning("D01", "lorad fix x.jsonl -o y.jsonl --repair drop --ids D01"),
        _warning("N02", "lorad fix x.jsonl -o y.jsonl --schema chat_sft_v1 --repair drop --ids N02"),
    )
    lines = _report(findings=findings).to_text(View(onward="lorad drop x.jsonl")).splitlines()
    assert lines[-1] == "Next: lorad fix x.jsonl -o y.jsonl --schema chat_sft_v1 --repair redact --repair drop --ids D01,N02"
    assert lines[-2] == "Warnings do not refuse a file: it may be used as it is (lorad drop x.jsonl). To mend it first:"


def test_what_cannot_be_read_yet_comes_before_what_can_be_mended() -> None:
    gzip = replace(_warning("F03", "gunzip -c x.jsonl > y.jsonl"), severity=Severity.ERROR)
    assert _report(findings=(gzip, _warning("B06", "lorad fix x.jsonl -o y.jsonl"))).to_text().splitlines()[-1] == "Next: gunzip -c x.jsonl > y.jsonl"


def test_how_the_file_was_read_is_told_in_plain_words() -> None:
    stats = {
        "levels_run": ["quick", "standard"],
        "profile": "mine",
        "checks_off": ["B11", "D09"],
        "checks_not_run": {"N02": "no base model is named", "N01": "no base model is named", "V04": "Pillow is not installed"},
    }
    text = " ".join(_report(stats=stats, sampled=Sampled.of_rows(50_000, 1_000_000), seconds=1.5).to_text().split())
    assert "Levels run: quick, standard; some checks saw a sample, 50,000 of 1,000,000 rows spread evenly" in text
    assert "may be off by 0.43 percentage points, and a trouble of fewer than 60 rows in all may have been missed" in text
    assert "not run: N01, N02 (no base model is named); not run: V04 (Pillow is not installed)" in text
    assert "turned off by profile mine: B11, D09; 1.50 s" in text


def test_rows_that_were_put_aside_are_counted() -> None:
    text = _report(stats={"levels_run": ["quick"], "quarantined": 2, "kept": 7}).to_text()
    assert "Levels run: quick; 9 rows = 7 kept + 2 put aside with their errors" in text


def test_a_sample_tells_its_error() -> None:
    assert Sampled.of_rows(100, 100) is None
    assert Sampled.of_rows(0, 100) is None
    half = Sampled.of_rows(1_000, 2_000)
    assert half is not None
    assert half.to_plain() == {"rows": 1_000, "of": 2_000, "margin": pytest.approx(0.0219, abs=1e-4), "missed_share": 0.003}


def test_json_stays_json_whatever_a_name_or_a_figure_is() -> None:
    report = _report(file="caf\udce9.jsonl", stats={"p": float("nan"), "q": [float("inf"), 1.5]})
    raw = report.to_json()
    raw.encode()
    plain = json.loads(raw)
    assert plain["file"] == "caf\udce9.jsonl"
    assert plain["stats"] == {"p": None, "q": [None, 1.5]}
    report.to_text().encode()
    report.to_markdown().encode()


def test_the_mended_copy_has_a_name_of_its_own() -> None:
    assert fixed_name("in/rows.jsonl") == "rows-fixed.jsonl"
    assert fixed_name("rows-fixed.jsonl") == "rows-fixed-2.jsonl"
    assert fixed_name("rows-fixed-2.jsonl") == "rows-fixed-3.jsonl"
    assert fixed_name("-rows.jsonl") == "./-rows-fixed.jsonl"
    assert fixed_name("flags.drop") == "flags-fixed.jsonl"


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
    assert "Next:" not in report.to_text()


def test_a_million_different_keys_make_a_short_report(check: Check) -> None:
    report = check([*GOOD, *[chat(**{f"column {number}": 1}) for number in range(500)]])
    unknown = [finding for finding in report.findings if finding.id == "S03"]
    assert len(unknown) == 21
    assert sum(finding.count for finding in unknown) == 500


def _part(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"text": text}]}


FIXABLE = {
    "latin-1": (as_bytes(GOOD) + as_bytes([chat(answer="café")]).decode().encode("latin-1"), "F05", "chat_sft_v1"),
    "array": (b"[" + b",\n".join(as_bytes(GOOD).splitlines()) + b"]", "J02", "chat_sft_v1"),
    "array on one line": (json.dumps(GOOD).encode(), "J02", "chat_sft_v1"),
    "pretty": (b"\n".join(json.dumps(row, indent=2).encode() for row in GOOD), "J01", "chat_sft_v1"),
    "python": (b"\n".join(repr(row).encode() for row in GOOD), "J01", "chat_sft_v1"),
    "csv": (b"prompt,completion\n" + b"".join(b'"Hello, you %d",there %d\n' % (n, n) for n in range(12)), "J01", "completion_v1"),
    "cut": (as_bytes(GOOD) + b'{"messages": [', "J01", "chat_sft_v1"),
    "joined": (b"".join(b"\xef\xbb\xbf" + as_bytes([row]) for row in GOOD), "J01", "chat_sft_v1"),
    "two values": (as_bytes(GOOD).replace(b"\n", b" "), "J03", "chat_sft_v1"),
    "column": ([chat(f"q {n}", f"a {n}", source="web") for n in range(12)], "S03", "chat_sft_v1"),
    "stringified": ([{"messages": json.dumps(chat(f"q {n}", f"a {n}")["messages"])} for n in range(12)], "S05", "chat_sft_v1"),
    "sharegpt": ([{"conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}]} for n in range(12)], "S06", "chat_sft_v1"),
    "alpaca": ([{"instruction": f"i {n}", "input": "x", "output": f"o {n}"} for n in range(12)], "S06", "chat_sft_v1"),
    "alpaca as completion": ([{"instruction": f"i {n}", "input": "", "output": f"o {n}"} for n in range(12)], "S06", "completion_v1"),
    "question and answer": ([{"question": f"q {n}", "answer": f"a {n}"} for n in range(12)], "S06", "chat_sft_v1"),
    "corrections": ([{"prompt": f"p {n}", "model_output": f"o {n}", "correction": f"c {n}"} for n in range(12)], "S06", "completion_v1"),
    "gemini": ([{"contents": [_part("user", f"q {n}"), _part("model", f"a {n}")]} for n in range(12)], "S06", "chat_sft_v1"),
    "roles": ([turns(("user", f"q {n}"), ("bot", f"a {n}")) for n in range(12)], "M02", "chat_sft_v1"),
    "null in turns": (
        [{"messages": [{"role": "user", "content": f"q {n}", "name": None, "tool_calls": None}, {"role": "assistant", "content": "a"}]} for n in range(12)],
        "S04",
        "chat_sft_v1",
    ),
    "null in rows": ([chat(f"q {n}", f"a {n}", id=None, metadata=None) for n in range(12)], "S04", "chat_sft_v1"),
    "pairs without a prompt": (
        [{"chosen": turns(("user", f"q {n}"), ("assistant", "a"))["messages"], "rejected": turns(("user", f"q {n}"), ("assistant", "b"))["messages"]}
         for n in range(12)],
        "S02",
        "preference_v1",
    ),
    "gzip": (None, "F03", "completion_v1"),
}  # fmt: skip


@pytest.mark.parametrize("title", FIXABLE)
def test_the_offered_command_makes_an_accepted_file(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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
    if fix.startswith("lorad "):
        monkeypatch.setattr(sys, "argv", shlex.split(fix))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    else:
        subprocess.run(["bash", "-c", fix], check=True)
    fixed = DataValidator().check_file(tmp_path / "my rows-fixed.jsonl", schema)
    assert fixed.verdict == "accepted", fixed.to_text()
