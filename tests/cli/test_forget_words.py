"""`lorad forget` says what is wrong with the words, and shows what would go without a daemon."""

import json
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from cli.forget import forget
from core.errors import StateError, UsageError
from store.paths import Home

ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"home": "home", "backend": "stub"}))
    home = Home(tmp_path / "home")
    home.prepare()
    rows = home.root / "drops" / "accepted" / "drop-1" / "rows"
    rows.mkdir(parents=True)
    (rows / "rows.jsonl.zst").write_bytes(zstandard.compress(ROW))
    refused = home.rejected / "drop-2"
    refused.mkdir()
    (refused / "copy.jsonl").write_bytes(b'{"messages":[{"content":"a","role":"user"},{"role":"assistant","content":"b"}]}\n')
    return path


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "NOTHING_NAMED"),
        (["--rows", "drop-1:2"], "LINE_UNKNOWN"),
        (["--rows", "drop-1:x"], "LINES_SYNTAX"),
        (["--rows", "../drop-1:1"], "ROWS_UNKNOWN"),
        (["--drop", "../accepted/drop-1"], "DROP_UNKNOWN"),
        (["--source", "nobody.jsonl"], "SOURCE_UNKNOWN"),
        (["status", "forget-1"], "FORGET_UNKNOWN"),
    ],
)
def test_a_wrong_word_is_named(config: Path, words: list[str], code: str) -> None:
    at = words.index("status") + 1 if "status" in words else 0
    done = CliRunner().invoke(forget, [*words[:at], "--config", str(config), *words[at:]])
    assert isinstance(done.exception, UsageError)
    assert done.exception.code == code


def test_the_plan_names_the_copy_whatever_the_order_of_its_keys(config: Path) -> None:
    done = CliRunner().invoke(forget, ["--rows", "drop-1:1", "--dry-run", "--format", "json", "--config", str(config)], catch_exceptions=False)
    (place,) = json.loads(done.output)["found"]["places"]
    assert place == {"what": "refused copy", "path": "inbox/rejected/drop-2", "cut": True, "rows": 1}


def test_an_order_needs_the_daemon(config: Path) -> None:
    done = CliRunner().invoke(forget, ["--rows", "drop-1:1", "--config", str(config)])
    assert isinstance(done.exception, StateError)
    assert done.exception.code == "DAEMON_DOWN"
