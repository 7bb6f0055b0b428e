"""A file without its bad rows: what is put aside, what is kept, and what refuses the file all the same."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gate_cases import GOOD, as_bytes, chat

from core.gate import ACCEPTED_DROP, GATE_SPEC, QUARANTINE, GateResult, GateSpec
from core.tasks import RowsOf
from rendering.rows import INDEX, read_index, read_rows
from store import codec
from store.seals import check_seal
from validation.checks import CHECKS
from validation.child import gate
from validation.examination import Examined
from validation.findings import Finding, Level, Problem, Severity
from validation.quarantine import SHOWN_BYTES, put_aside
from validation.report import Report, Sampled
from validation.tally import Tally

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BAD_ROLE = {"messages": [{"role": "robot", "content": "q"}, {"role": "assistant", "content": "a"}]}


def ask(folder: Path, content: bytes, share: float = 0.2, **changed: object) -> GateResult:
    folder.mkdir(exist_ok=True)
    file = folder.with_suffix(".jsonl")
    file.write_bytes(content)
    asked = {"drop": folder.name, "adapter": "default/main", "file": str(file), "name": "rows.jsonl", "schema_id": "chat_sft_v1", "level": "quick"}
    asked |= {"max_row_bytes": 4 << 20, "max_file_bytes": 1 << 30, "quarantine_share": share, **changed}
    codec.write(folder / GATE_SPEC, GateSpec(**asked))  # type: ignore[arg-type]
    return gate(folder, lambda: NOW)


def with_bad(*bad: object, good: int = 20) -> bytes:
    """Good rows with a bad one in the middle, and further ones at the end."""
    rows: list[object] = [chat(f"question {number}", f"answer {number}") for number in range(good)]
    return as_bytes([*rows[: good // 2], *bad[:1], *rows[good // 2 :], *bad[1:]])


def aside(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / ACCEPTED_DROP / QUARANTINE).read_text().splitlines()]


def test_the_rows_with_errors_lie_in_the_drop_with_their_findings_and_the_counts_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    result = ask(folder, with_bad(BAD_ROLE, b'{"messages": ['))
    assert (result.verdict, result.rows, result.quarantined) == ("accepted", 20, 2)
    drop = folder / ACCEPTED_DROP
    check_seal(drop)
    report = json.loads((drop / "report.json").read_text())
    assert (report["verdict"], report["rows"], report["stats"]["kept"], report["stats"]["quarantined"]) == ("accepted", 22, 20, 2)
    assert {finding["severity"] for finding in report["findings"]} == {"warning"}
    assert all(finding["message"].startswith("put aside: ") for finding in report["findings"] if finding["id"] in ("M02", "J01"))
    assert [(row["line"], row["ids"]) for row in aside(folder)] == [(11, ["M02"]), (22, ["J01"])]
    assert json.loads(str(aside(folder)[0]["text"])) == BAD_ROLE
    assert [row.line for row in read_index(drop / INDEX)] == [*range(1, 11), *range(12, 22)]


def test_what_is_trained_on_are_the_kept_rows_alone(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    result = ask(folder, with_bad(BAD_ROLE))
    rows = read_rows([RowsOf(drop="one", sha256=result.sha256, folder=str(folder / ACCEPTED_DROP), schema_id="chat_sft_v1")])
    assert len(rows) == 20
    assert "robot" not in {message.role for row in rows for message in row.messages}


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "refused"), (0.09, "refused"), (0.1, "accepted")])
def test_the_share_decides(tmp_path: Path, share: float, verdict: str) -> None:
    result = ask(tmp_path / "one", with_bad(BAD_ROLE, BAD_ROLE, good=18), share)
    assert (result.verdict, result.quarantined) == (verdict, 2 if verdict == "accepted" else 0)
    assert (tmp_path / "one" / ACCEPTED_DROP).exists() is (verdict == "accepted")


def test_rows_of_another_layout_are_put_aside_although_the_file_mixes_layouts(tmp_path: Path) -> None:
    result = ask(tmp_path / "one", with_bad({"prompt": "p", "completion": "c"}))
    assert (result.verdict, result.quarantined) == ("accepted", 1)


@pytest.mark.parametrize(
    "content",
    [as_bytes([chat(weight=0), BAD_ROLE]), b"\x1f\x8b" + b"x" * 4000, b"\n\n", as_bytes([BAD_ROLE]), as_bytes([*GOOD[:1], BAD_ROLE])],
    ids=["nothing to learn", "gzip", "blank", "one row", "one row left"],
)
def test_an_error_of_the_file_or_too_few_rows_refuse_it_whatever_the_share(tmp_path: Path, content: bytes) -> None:
    assert ask(tmp_path / "one", content, 1.0).verdict == "refused"


def test_bytes_that_are_no_text_are_shown_and_a_long_row_is_cut(tmp_path: Path) -> None:
    long = chat("q", "a" * (SHOWN_BYTES + 9), nonsense=1)
    assert ask(tmp_path / "one", with_bad(b'{"messages": "\xff"}', long)).verdict == "accepted"
    broken, cut = aside(tmp_path / "one")
    assert broken["text"] == '{"messages": "\\xff"}'
    assert len(str(cut["text"])) == SHOWN_BYTES
    assert cut["bytes"] == len(json.dumps(long))


def test_only_rows_whose_own_problem_is_an_error_go_where_a_check_also_warns() -> None:
    error = Finding(id="X", severity=Severity.ERROR, name="x", count=1, lines=(3,), message="m", hint="h")
    warning = Finding(id="X", severity=Severity.WARNING, name="x", count=1, lines=(4,), message="m", hint="h")
    rows = {3: {"X"}, 4: {"X"}}

    def examined(*findings: Finding) -> Examined:
        report = Report(file="f", sha256="", schema="s", level=Level.QUICK, rows=20, findings=findings)
        return Examined(report=report, rows=rows, error_rows={3: {"X"}})

    assert put_aside(examined(error, warning), 0.5) == {3: {"X"}}
    assert put_aside(examined(error), 0.5) == rows, "a share made errors of all"
    assert put_aside(examined(Finding(id="X", severity=Severity.ERROR, name="x", count=9, lines=(3,), message="m", hint="h")), 0.5) == {}


def test_what_is_known_of_rows_comes_back_whole_from_another_process() -> None:
    checks = {check.id: check for check in CHECKS}
    tally = Tally(keep_rows=True)
    tally.add(checks["M02"], Problem(message="m"), 3)
    tally.add(checks["M08"], Problem(message="m"), 4)
    read = Tally.of(json.loads(json.dumps(tally.to_plain())), checks)
    assert (read.rows, read.error_rows) == ({3: {"M02"}, 4: {"M08"}}, {3: {"M02"}})
    first = Tally(keep_rows=True)
    first.add(checks["M02"], Problem(message="m"), 1)
    first.merge(read)
    assert first.error_rows == {1: {"M02"}, 3: {"M02"}}


def test_an_error_that_only_a_sample_was_looked_at_for_refuses_the_file() -> None:
    error = Finding(id="N05", severity=Severity.ERROR, name="tmpl.render", count=1, lines=(3,), message="m", hint="h")
    whole = Report(file="f", sha256="", schema="s", level=Level.STANDARD, rows=20, findings=(error,))
    rows = {3: {"N05"}}
    assert put_aside(Examined(report=whole, rows=rows, error_rows=rows), 0.5) == rows
    part = replace(whole, sampled=Sampled.of_rows(10, 20))
    assert put_aside(Examined(report=part, rows=rows, error_rows=rows), 0.5) == {}


def test_rows_that_no_check_may_name_refuse_the_file_instead_of_vanishing(tmp_path: Path) -> None:
    result = ask(tmp_path / "one", with_bad(chat(nonsense=1)), 0.0, off=("S03", "S04"))
    assert (result.verdict, result.codes) == ("refused", ("ROWS_LOST",))
    assert "turned off" in result.message
