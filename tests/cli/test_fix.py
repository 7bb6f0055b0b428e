"""`lorad fix` as a person and a script meet it."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.fix import line_numbers
from cli.main import main
from core.errors import UsageError

Lorad = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lorad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lorad:
    """Run the command line in this process, in an empty folder without config and bases: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lorad", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(str(ended.value.code)), told.out, told.err

    return run


def chat(question: str, answer: str, **extra: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **extra}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


GOOD = [chat(f"What is {number} and {number}?", f"It is {2 * number}, of course.") for number in range(20)]


def test_a_mended_copy_that_is_accepted_is_exit_0(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, chat("q", "a", lang="en"), chat("q", "")])
    status, text, noise = lorad("fix", "rows.jsonl", "-o", "out.jsonl", "--level", "quick", "--repair", "drop", "--ids", "m07")
    lines = text.splitlines()
    assert (status, noise) == (0, "")
    assert lines[0] == "rows.jsonl -> out.jsonl"
    assert "columns  extra columns, moved into metadata: 1 row, line 21" in lines
    assert "         lang  ->  metadata.lang" in lines
    assert "drop     rows, left out: 1 row, line 22" in lines
    assert "Rows: 22 in = 21 out + 1 left out (1 M07)" in lines
    assert "out.jsonl: ACCEPTED, 21 rows, chat_sft_v1: nothing to complain about" in lines
    assert "Next: lorad drop out.jsonl" in lines


def test_a_copy_that_is_refused_still_is_written_and_exit_2(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, chat("q", "a", lang="en"), chat("q", "")])
    status, text, _ = lorad("fix", "rows.jsonl", "-o", "out.jsonl", "--level", "quick")
    assert status == 2
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 22
    assert "out.jsonl: REFUSED, 22 rows, chat_sft_v1: 1 error" in text
    assert "Next: lorad fix out.jsonl -o out-fixed.jsonl" in text


def test_nothing_to_mend_is_said_so(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    status, text, _ = lorad("fix", "rows.jsonl", "-o", "out.jsonl", "--level", "quick")
    assert status == 0
    assert "nothing to mend: the copy is the file, byte for byte" in text
    assert "Rows: 20 in = 20 out + 0 left out" in text
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "rows.jsonl").read_bytes()


def test_json_tells_all_of_it(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, *GOOD[:3], chat("q", "a", lang="en")])
    status, text, _ = lorad("fix", "rows.jsonl", "-o", "out.jsonl", "--level", "quick", "--repair", "dedup", "--format", "json")
    plain = json.loads(text)
    assert status == 0
    assert list(plain) == ["file", "out", "repairs", "notes", "rows", "report"]
    assert plain["rows"] == {"in": 24, "out": 21, "dropped": {"double": 3}}
    assert [(one["name"], one["rows"], one["lines"]) for one in plain["repairs"]] == [("columns", 1, [24]), ("dedup", 3, [21, 22, 23])]
    assert plain["report"]["verdict"] == "accepted"
    assert plain["report"]["file"] == "out.jsonl"


def test_the_command_of_the_report_mends_the_file(lorad: Lorad, tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}], "lang": "en"} for n in range(20)]
    write(tmp_path / "rows.jsonl", rows)
    _, text, _ = lorad("check", "rows.jsonl", "--level", "quick")
    step = text.strip().splitlines()[-1]
    assert step.startswith("Next: lorad fix rows.jsonl -o rows-fixed.jsonl")
    status, text, _ = lorad(*shlex.split(step.removeprefix("Next: lorad ")))
    assert status == 0, text
    assert json.loads((tmp_path / "rows-fixed.jsonl").read_text().splitlines()[3])["messages"] == chat("q 3", "a 3")["messages"]


def test_rows_are_not_converted_into_a_schema_that_nobody_said(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"prompt": f"p {n}", "completion": f"c {n}"} for n in range(20)])
    status, text, noise = lorad("fix", "rows.jsonl", "-o", "out.jsonl", "--level", "quick")
    assert (status, text) == (3, "")
    assert "SCHEMA_UNSAID" in noise
    assert "--schema completion_v1" in noise
    assert not (tmp_path / "out.jsonl").exists()
    assert lorad("fix", "rows.jsonl", "-o", "one.jsonl", "--level", "quick", "--schema", "chat_sft_v1")[0] == 0
    (tmp_path / "rows.job.json").write_text('{"schema_id": "chat_sft_v1"}')
    assert lorad("fix", "rows.jsonl", "-o", "two.jsonl", "--level", "quick")[0] == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_the_next_command_never_takes_a_default_for_a_wish(lorad: Lorad, tmp_path: Path) -> None:
    rows = [{"instruction": f"i {n}", "input": "", "output": f"o {n}"} for n in range(20)]
    write(tmp_path / "rows.jsonl", rows)
    _, text, _ = lorad("check", "rows.jsonl", "--level", "quick")
    assert text.strip().splitlines()[-1] == "Next: lorad check rows.jsonl --schema instruction_v1"
    (tmp_path / "pretty.jsonl").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    (tmp_path / "lists.jsonl").write_text("\n".join(json.dumps(rows[n : n + 5]) for n in range(0, 20, 5)))
    for name in ("pretty.jsonl", "lists.jsonl"):
        _, text, _ = lorad("check", name, "--level", "quick")
        step = text.strip().splitlines()[-1]
        assert step == f"Next: lorad fix {name} -o {name.removesuffix('.jsonl')}-fixed.jsonl"
        status, _, noise = lorad(*shlex.split(step.removeprefix("Next: lorad ")))
        assert (status, "--schema instruction_v1" in noise) == (3, True)
        _, text, _ = lorad("check", name, "--level", "quick", "--schema", "instruction_v1")
        assert lorad(*shlex.split(text.strip().splitlines()[-1].removeprefix("Next: lorad ")))[0] == 0
        mended = tmp_path / f"{name.removesuffix('.jsonl')}-fixed.jsonl"
        assert [json.loads(line) for line in mended.read_text().splitlines()] == rows


def test_the_next_command_keeps_what_a_sidecar_said(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"prompt": f"p {n}", "completion": f"c {n}" if n else "", "lang": "en"} for n in range(20)])
    (tmp_path / "rows.job.json").write_text('{"schema_id": "completion_v1", "columns": ["lang"], "level": "quick"}')
    _, text, _ = lorad("check", "rows.jsonl")
    step = text.strip().splitlines()[-1]
    assert step == "Next: lorad fix rows.jsonl -o rows-fixed.jsonl --schema completion_v1 --columns lang --repair drop --ids C01"
    (tmp_path / "rows.job.json").unlink()
    status, text, _ = lorad(*shlex.split(step.removeprefix("Next: lorad ")), "--level", "quick")
    assert (status, len((tmp_path / "rows-fixed.jsonl").read_text().splitlines())) == (0, 19), text


def test_the_copy_is_judged_as_the_file_was(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"prompt": f"p {n}", "completion": f"c {n}", "lang": "en"} for n in range(20)])
    (tmp_path / "rows.job.json").write_text('{"schema_id": "completion_v1", "columns": ["lang"], "level": "quick"}')
    status, text, _ = lorad("fix", "rows.jsonl", "-o", "out.jsonl")
    assert (status, "nothing to mend" in text) == (0, True)
    assert text.strip().splitlines()[-1] == """Next: lorad drop out.jsonl --schema completion_v1 --set 'columns=["lang"]'"""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["rows.jsonl"], 3, "-o"),
        (["none.jsonl", "-o", "out.jsonl"], 3, "FILE_MISSING"),
        (["rows.jsonl", "-o", "rows.jsonl"], 3, "OUT_IS_FILE"),
        (["rows.jsonl", "-o", "rows.jsonl", "--force"], 3, "OUT_IS_FILE"),
        (["rows.jsonl", "-o", "there.jsonl"], 3, "--force"),
        (["rows.jsonl", "-o", "out.jsonl", "--repair", "rols"], 3, "did you mean 'roles'?"),
        (["rows.jsonl", "-o", "out.jsonl", "--repair", "drop"], 3, "DROP_WHICH"),
        (["rows.jsonl", "-o", "out.jsonl", "--ids", "M07"], 3, "DROP_WHICH"),
        (["rows.jsonl", "-o", "out.jsonl", "--repair", "drop", "--lines", "3,x"], 3, "LINES_SYNTAX"),
        (["rows.jsonl", "-o", "out.jsonl", "--schema", "chat"], 3, "chat_sft_v1"),
        (["empty.jsonl", "-o", "out.jsonl"], 2, "NOTHING_TO_MEND"),
        (["rows.jsonl", "-o", "out.jsonl", "--repair", "drop", "--lines", "1-20"], 2, "NOTHING_LEFT"),
    ],
)
def test_a_wrong_wish_changes_nothing(lorad: Lorad, tmp_path: Path, words: list[str], status: int, says: str) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    write(tmp_path / "empty.jsonl", [])
    (tmp_path / "there.jsonl").write_text("mine")
    found, text, noise = lorad("fix", *words)
    assert (found, text) == (status, "")
    assert says in noise
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["empty.jsonl", "rows.jsonl", "there.jsonl"]
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_lines_are_numbers_and_ranges() -> None:
    assert line_numbers("") == ()
    assert line_numbers("3, 7-9,12") == (3, 7, 8, 9, 12)
    for wrong in ("0", "3-", "9-7", "a", "-3"):
        with pytest.raises(UsageError):
            line_numbers(wrong)
