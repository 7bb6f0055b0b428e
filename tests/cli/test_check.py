"""`lorad check` as a person and a script meet it."""

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import meter
from cli.main import main

KEYS = ["file", "sha256", "schema", "level", "verdict", "rows", "findings", "stats", "sampled", "seconds"]
Lorad = Callable[..., tuple[int, str, str]]
LORAD = Path(sys.executable).with_name("lorad")


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
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


GOOD = [chat(f"What is {number} and {number}?", f"It is {2 * number}, of course.") for number in range(20)]
PAIRS: list[dict[str, object]] = [{"prompt": f"p {number}", "completion": f"c {number}"} for number in range(20)]


def test_yes_and_no_by_the_exit_status(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", GOOD)
    write(tmp_path / "bad.jsonl", [*GOOD, chat("q", "")])
    assert lorad("check", "good.jsonl", "--level", "quick")[0] == 0
    status, text, _ = lorad("check", "bad.jsonl", "--level", "quick")
    assert status == 2
    assert text.splitlines()[0] == "bad.jsonl: REFUSED, 21 rows, chat_sft_v1: 1 error"
    assert lorad("check", "good.jsonl", "bad.jsonl", "--level", "quick")[0] == 2


def test_json_is_one_object_for_one_file_and_an_array_for_several(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", GOOD)
    status, text, noise = lorad("check", "good.jsonl", "--level", "QUICK", "--format", "json")
    plain = json.loads(text)
    assert (status, noise) == (0, "")
    assert list(plain) == KEYS
    assert (plain["file"], plain["level"], plain["verdict"], plain["rows"], plain["sampled"]) == ("good.jsonl", "quick", "accepted", 20, None)
    _, text, _ = lorad("check", "good.jsonl", "good.jsonl", "--level", "quick", "--format", "json")
    assert [list(one) for one in json.loads(text)] == [KEYS, KEYS]


def test_markdown_says_the_same(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "bad.jsonl", [*GOOD, chat("q", "")])
    _, text, _ = lorad("check", "bad.jsonl", "--level", "quick", "--format", "md")
    assert text.startswith("# bad.jsonl: refused\n")
    assert "## error: M07 msg.empty, 1 line" in text
    assert "(line 21, at $.messages\\[1\\].content)" in text
    assert "--repair drop --ids M07" in text


def test_an_accepted_file_names_the_next_command(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", [row | {"lang": "en"} for row in PAIRS])
    _, text, _ = lorad("check", "pairs.jsonl", "--schema", "completion_v1", "--columns", "lang", "--level", "quick")
    assert text.splitlines()[-2] == """Next: lorad drop pairs.jsonl --schema completion_v1 --set 'columns=["lang"]'""", text


def test_rows_that_nothing_trains_yet_are_checked_and_not_sent_on(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "seen.jsonl", [chat(f"What is {n}?", f"It is {n}.") for n in range(20)])
    status, text, _ = lorad("check", "seen.jsonl", "--schema", "vision_v1", "--level", "quick")
    assert status == 0
    assert "lorad drop" not in text


def test_fix_commands_carry_what_was_typed(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [chat("q", "a", lang="en", sauce="x")] * 12)
    _, text, _ = lorad("check", "rows.jsonl", "--level", "quick", "--columns", "lang", "--max-length", "64", "--format", "json")
    (finding,) = (one for one in json.loads(text)["findings"] if one["id"] == "S03")
    assert finding["fix"].startswith("lorad fix rows.jsonl -o rows-fixed.jsonl")
    assert "--columns lang" in finding["fix"]
    assert "--max-length 64" in finding["fix"]


# --- where the setting comes from


def test_the_sidecar_beside_the_file_is_honoured(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [row | {"lang": "en"} for row in PAIRS])
    (tmp_path / "rows.job.json").write_text('{"schema_id": "completion_v1", "columns": ["lang"], "level": "quick", "max_length": 99}')
    status, text, _ = lorad("check", "rows.jsonl", "--format", "json")
    plain = json.loads(text)
    assert (status, plain["schema"], plain["level"], plain["findings"]) == (0, "completion_v1", "quick", [])
    assert lorad("check", "rows.jsonl", "--schema", "chat_sft_v1")[0] == 2, "the command line wins"


def test_a_sidecar_that_is_wrong_is_said_so(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    for content, code in (
        ("{", "SIDECAR_SYNTAX"),
        ("[]", "SIDECAR_SYNTAX"),
        ('{"leve": "deep"}', "CONFIG_UNKNOWN_KEY"),
        ('{"model_path": "/x"}', "SIDECAR_FORBIDDEN_KEY"),
    ):
        (tmp_path / "rows.job.json").write_text(content)
        status, _, noise = lorad("check", "rows.jsonl")
        assert (status, code in noise) == (3, True), noise


def test_a_schema_that_only_the_sidecar_names_wrongly_is_a_refusal_like_the_gate_s(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", PAIRS)
    (tmp_path / "rows.job.json").write_text('{"schema_id": "completion"}')
    status, text, _ = lorad("check", "rows.jsonl")
    assert status == 2
    assert "S01 spec.unknown" in text
    assert text.splitlines()[-2] == "Next: lorad check rows.jsonl --schema completion_v1"


def test_the_config_says_schema_level_and_profile(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"prompt": "", "completion": f"c {n}"} for n in range(20)])
    validation = {"level": "quick", "profile": "mine", "profiles": {"mine": {"M08": False}}}
    (tmp_path / "config.json").write_text(json.dumps({"schema_id": "completion_v1", "validation": validation}))
    status, text, _ = lorad("check", "rows.jsonl", "--format", "json")
    plain = json.loads(text)
    assert (status, plain["schema"], plain["level"]) == (0, "completion_v1", "quick")
    assert plain["stats"]["profile"] == "mine"
    assert plain["stats"]["checks_off"] == ["M08"]
    assert plain["findings"] == []
    _, text, _ = lorad("check", "rows.jsonl")
    assert "turned off by profile mine: M08" in text


def test_the_schemas_of_a_project_are_known(lorad: Lorad, tmp_path: Path) -> None:
    own = {"id": "faq_v1", "keys": {"q": "string", "a": "string"}, "messages": [{"role": "user", "content": "{q}"}, {"role": "assistant", "content": "{a}"}]}
    (tmp_path / "faq.json").write_text(json.dumps(own))
    (tmp_path / "config.json").write_text(json.dumps({"specs": {"faq_v1": "faq.json"}}))
    write(tmp_path / "rows.jsonl", [{"q": f"q {n}", "a": f"a {n}"} for n in range(20)])
    assert lorad("check", "rows.jsonl", "--schema", "faq_v1", "--level", "quick")[0] == 0
    status, _, noise = lorad("check", "rows.jsonl", "--schema", "faq_v2")
    assert status == 3
    assert "did you mean 'faq_v1'?" in noise


def test_without_a_base_the_report_says_what_did_not_run(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", GOOD)
    status, text, _ = lorad("check", "rows.jsonl", "--format", "json")
    assert status == 0
    assert "N05" in json.loads(text)["stats"]["checks_not_run"]


def test_a_folder_with_pictures_is_one_drop(lorad: Lorad, tmp_path: Path) -> None:
    folder = tmp_path / "flags.drop"
    write(folder / "rows.jsonl", PAIRS)
    (tmp_path / "flags.job.json").write_text('{"schema_id": "completion_v1"}')
    status, text, _ = lorad("check", "flags.drop", "--level", "quick", "--format", "json")
    assert (status, json.loads(text)["file"]) == (0, "flags.drop/rows.jsonl")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "flag.png").symlink_to("/etc/hostname"), "symbolic link"),
        (lambda folder: write(folder / "more.jsonl", PAIRS), "2 .jsonl files"),
        (lambda folder: (folder / "rows.jsonl").unlink(), "no .jsonl file"),
    ],
)
def test_a_folder_that_is_no_drop_is_refused_with_a_report(lorad: Lorad, tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    folder = tmp_path / "flags.drop"
    write(folder / "rows.jsonl", GOOD)
    write(tmp_path / "good.jsonl", GOOD)
    spoil(folder)
    status, text, _ = lorad("check", "flags.drop")
    assert (status, "F11" in text, says in text) == (2, True, True)
    status, text, _ = lorad("check", "flags.drop", "good.jsonl", "--level", "quick", "--format", "json")
    first, second = json.loads(text)
    assert (status, first["file"], first["verdict"], second["verdict"]) == (2, "flags.drop", "refused", "accepted")
    assert [(finding["id"], says in finding["message"]) for finding in first["findings"]] == [("F11", True)]
    status, _, noise = lorad("fix", "flags.drop", "-o", "out.jsonl")
    assert (status, "FILE_KIND" in noise, says in noise) == (3, True, True)


# --- mistakes of the caller


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["godo.jsonl"], "did you mean 'good.jsonl'?"),
        (["."], "NAME.drop"),
        (["good.jsonl", "--schema", "chat_sft_v2"], "did you mean 'chat_sft_v1'?"),
        (["good.jsonl", "--level", "standart"], "standard"),
        (["good.jsonl", "--profile", "defalt"], "did you mean 'default'?"),
        (["good.jsonl", "--columns", "a,,b"], "COLUMN_NAME"),
        (["good.jsonl", "--columns", 'a"b'], "COLUMN_NAME"),
        (["good.jsonl", "--columns", "messages"], "COLUMN_KNOWN"),
        (["good.jsonl", "--model", "nonesuch"], "MODEL_UNKNOWN"),
        (["good.jsonl", "--model", "."], "tokenizer.json"),
        (["good.jsonl", "--reference", "none.jsonl"], "none.jsonl"),
        (["good.jsonl", "--train", "none.jsonl"], "none.jsonl"),
        (["good.jsonl", "--images", "good.jsonl"], "good.jsonl"),
        (["good.jsonl", "--max-length", "0"], "--max-length"),
        (["good.jsonl", "--config", "none.json"], "CONFIG_MISSING"),
        (["good.jsonl", "--colums", "x"], "--columns"),
        ([], "FILE"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_read(lorad: Lorad, tmp_path: Path, words: list[str], says: str) -> None:
    write(tmp_path / "good.jsonl", GOOD)
    status, text, noise = lorad("check", *words)
    assert (status, text) == (3, "")
    assert says in noise


def test_a_profile_with_a_mistake_names_the_nearest(lorad: Lorad, tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", GOOD)
    (tmp_path / "config.json").write_text('{"validation": {"profile": "mine", "profiles": {"mine": {"B02.warn_shar": 0.5}}}}')
    status, _, noise = lorad("check", "good.jsonl")
    assert status == 3
    assert "B02.warn_share" in noise


def test_what_is_no_file_is_refused_with_a_report(lorad: Lorad, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("pipe.jsonl")
    for name in ("pipe.jsonl", "link.jsonl"):
        status, text, _ = lorad("check", name)
        assert (status, "F11" in text) == (2, True)


# --- the terminal


def test_a_letter_that_the_terminal_has_not_is_no_crash(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, chat("q", "", **{"Größe": 1})])
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(tmp_path)}
    for output in ("text", "json", "md"):
        done = subprocess.run(
            [LORAD, "check", "rows.jsonl", "--level", "quick", "--format", output], cwd=tmp_path, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert b"Gr" in done.stdout
    json.loads(subprocess.run([LORAD, "check", "rows.jsonl", "--format", "json"], cwd=tmp_path, env=environment, capture_output=True, check=False).stdout)


def test_colours_are_for_a_terminal_and_no_color_is_heard(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*GOOD, chat("q", "")])
    seen = [_on_a_terminal(tmp_path, {}), _on_a_terminal(tmp_path, {"NO_COLOR": "1"})]
    assert b"\x1b[31m" in seen[0]
    assert b"\x1b[31m" not in seen[1]
    assert b"REFUSED" in seen[1]


def _on_a_terminal(folder: Path, environment: dict[str, str]) -> bytes:
    ours, theirs = pty.openpty()
    try:
        words = [LORAD, "check", "rows.jsonl", "--level", "quick"]
        child = subprocess.Popen(words, cwd=folder, stdout=theirs, stderr=theirs, stdin=theirs, env=os.environ | {"XDG_CACHE_HOME": str(folder)} | environment)
        os.close(theirs)
        seen = b""
        try:
            while block := os.read(ours, 4096):
                seen += block
        except OSError:  # the other end is closed
            pass
        assert child.wait(timeout=60) == 2
    finally:
        os.close(ours)
    return seen


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_file_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(meter, "PATIENCE_S", 0.0)
    monkeypatch.setattr(meter, "BETWEEN_S", 0.0)
    shown = meter.Meter("rows.jsonl")
    for done in (0, 50, 100):
        shown("read", done, 100)
    shown("deep", 10, 0)
    shown.clear()
    lines = terminal.getvalue().split("\r\x1b[K")
    assert lines[1] == "rows.jsonl: reading 0%"
    assert lines[2].startswith("rows.jsonl: reading 50%, about ")
    assert lines[4] == "rows.jsonl: deep 0%"
    assert lines[-1] == ""


def test_nobody_at_the_terminal_sees_no_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(meter, "PATIENCE_S", 0.0)
    shown = meter.Meter("rows.jsonl")
    shown("read", 50, 100)
    shown.clear()
    assert capsys.readouterr().err == ""


def test_a_small_file_is_answered_at_once(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [chat(f"What is {n}? " * 30, f"It is {n}. " * 30) for n in range(300)])
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    took = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([LORAD, "check", "rows.jsonl", "--level", "quick"], cwd=tmp_path, env=environment, capture_output=True, check=True)
        took.append(time.monotonic() - started)
    heavy = subprocess.run(
        [sys.executable, "-c", "import sys; from cli.check import check; import validation.checks; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(heavy.stdout.split())
    assert not loaded & {"torch", "transformers", "pydantic", "tokenizers", "numpy", "hyperscan", "ftfy", "PIL", "jinja2"}
    assert min(took) < 1.5, took  # 0.3 s on a quiet machine; this one may be busy
