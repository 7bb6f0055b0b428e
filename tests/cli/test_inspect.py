"""`lorad inspect`: the picture of rows, from a file and from a job, for people and for programs."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from cli.main import lorad as command
from core.errors import ConfigError, UsageError
from core.records import Accepted, Claim, DropRef, DropState, JobCard, JobState, Queued
from store import codec
from store.bases import BASE, TEMPLATE, TOKENIZER, Base
from store.config import ConfigLoader
from store.drops import rows_folder
from store.jobs import create_job
from store.paths import Home
from store.seals import hash_file, seal

LORAD = Path(sys.executable).with_name("lorad")
TINY = Path(__file__).parents[1] / "data" / "tiny_base"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def lorad(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in ("LORAD_CONFIG", "NO_COLOR")}
    return subprocess.run([LORAD, *words], capture_output=True, text=True, cwd=folder, env=known | (env or {}), check=False)


def row(question: str, answer: str, **extra: object) -> str:
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **extra}, ensure_ascii=False) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config, the sealed tiny base in its models_dir, and a file of rows."""
    base = tmp_path / "models" / "tiny"
    base.mkdir(parents=True)
    for name in (TOKENIZER, TEMPLATE):
        (base / name).write_bytes((TINY / name).read_bytes())
    hashes = {"tokenizer_sha256": hash_file(base / TOKENIZER), "template_sha256": hash_file(base / TEMPLATE)}
    codec.write(base / BASE, Base(name="tiny", source="tests", source_sha256="0" * 64, weights=".", eos_token="<|im_end|>", **hashes))
    seal(base)
    (tmp_path / "config.json").write_text('{"home": "var", "backend": "stub", "models_dir": "models", "model_name": "tiny", "max_length": 60}')
    (tmp_path / "rows.jsonl").write_text(
        row("hello", "the dog") + row("hello", "y" * 80) + "\n" + '{"messages": [{"role": "user"}]}\n' + row("q", "a", extra=1) + row("last", "no", weight=0)
    )
    return tmp_path


def test_the_first_rows_are_drawn_with_the_configs_base_and_length(folder: Path) -> None:
    done = lorad(folder, "inspect", "rows.jsonl")
    assert done.returncode == 0, done.stderr
    assert "rows.jsonl: chat_sft_v1, tiny, max_length 60" in done.stdout
    assert "⟦the dog‹<|im_end|>›⟧" in done.stdout
    assert "row 2: " in done.stdout
    assert "beyond max_length" in done.stdout
    assert "row 4: cannot be drawn: S02 a message without 'content' at $.messages[0].content" in done.stdout
    assert "row 5" not in done.stdout
    assert "\x1b" not in done.stdout


def test_rows_are_named_by_their_lines(folder: Path) -> None:
    done = lorad(folder, "inspect", "rows.jsonl", "--rows", "6,1-1,3,99", "--columns", "extra", "--max-length", "500")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("row ")] == ["row 1", "row 3", "row 6", "row 99"]
    assert "weight 0" in done.stdout
    assert "there is no row in this line" in done.stdout


def test_a_column_that_is_declared_is_passed_over(folder: Path) -> None:
    assert "row 5: cannot be drawn: S03" in lorad(folder, "inspect", "rows.jsonl", "--rows", "5").stdout
    assert "cannot be drawn" not in lorad(folder, "inspect", "rows.jsonl", "--rows", "5", "--columns", "extra").stdout


def test_a_row_over_the_limit_is_told_with_its_true_size(folder: Path) -> None:
    large = row("q", "a" * 5_000_000)
    (folder / "large.jsonl").write_text(row("hello", "the dog") + large)
    done = lorad(folder, "inspect", "large.jsonl")
    assert done.returncode == 0, done.stderr
    assert f"row 2: cannot be drawn: F10 a row has {len(large) - 1:,} bytes" in done.stdout
    assert "max_row_bytes" in done.stdout


@pytest.mark.parametrize(("rows", "status"), [("4", 2), ("99", 2), ("3,4,99", 2), ("1,4", 0)])
def test_where_none_of_the_rows_can_be_drawn_the_answer_is_no(folder: Path, rows: str, status: int) -> None:
    done = lorad(folder, "inspect", "rows.jsonl", "--rows", rows)
    assert (done.returncode, done.stderr) == (status, "")


def test_json_is_exact(folder: Path) -> None:
    done = lorad(folder, "inspect", "rows.jsonl", "--rows", "1-2", "--format", "json")
    plain = json.loads(done.stdout)
    assert (plain["schema"], plain["model"], plain["max_length"]) == ("chat_sft_v1", "tiny", 60)
    first, second = plain["rows"]
    assert "".join(token["text"] for token in first["tokens"]) == first["text"]
    assert "".join(token["text"] for token in first["tokens"] if token["fate"] == "supervised") == "the dog<|im_end|>"
    assert second["counts"]["truncated"] == second["counts"]["tokens"] - 60 > 0
    assert second["counts"]["supervised"] < second["counts"]["supervised_uncut"]


def test_a_page_is_written_and_never_over_the_rows(folder: Path) -> None:
    done = lorad(folder, "inspect", "rows.jsonl", "--format", "html", "-o", "page.html")
    assert done.returncode == 0, done.stderr
    page = (folder / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count('id="r') == 3
    rows = (folder / "rows.jsonl").read_bytes()
    refused = lorad(folder, "inspect", "rows.jsonl", "-o", "rows.jsonl")
    assert refused.returncode == 3
    assert "OUT_IS_SOURCE" in refused.stderr
    assert (folder / "rows.jsonl").read_bytes() == rows


def test_both_answers_of_a_pair_are_drawn(folder: Path) -> None:
    (folder / "pairs.jsonl").write_text('{"prompt": "hello", "chosen": "yes", "rejected": "no"}\n')
    done = lorad(folder, "inspect", "pairs.jsonl", "--schema", "preference_v1")
    assert "row 1, chosen: " in done.stdout
    assert "row 1, rejected: " in done.stdout
    assert "⟦no‹<|im_end|>›⟧" in done.stdout


def test_a_model_folder_without_a_template_is_drawn_as_chatml_and_says_so(folder: Path) -> None:
    bare = folder / "bare"
    bare.mkdir()
    (bare / TOKENIZER).write_bytes((TINY / TOKENIZER).read_bytes())
    (bare / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    done = lorad(folder, "inspect", "rows.jsonl", "--model", "bare", "--rows", "1")
    assert "no chat template" in done.stdout
    template = lorad(folder, "models", "template").stdout
    (bare / "chat_template.jinja").write_text(template)
    again = lorad(folder, "inspect", "rows.jsonl", "--model", "bare", "--rows", "1")
    assert "no chat template" not in again.stdout
    assert done.stdout.splitlines()[-4:] == again.stdout.splitlines()[-4:]


# --- profiles


def inspected(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str, **config: object) -> str:
    """What `lorad inspect` prints in this process, with further config keys."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | config))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    return CliRunner().invoke(command, ["inspect", *words], standalone_mode=False, catch_exceptions=False).output


def test_what_a_profile_adds_is_shown_before_and_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    persona = {"name": "persona", "options": {"name": "Ada", "voice": "dry"}}
    words = ("rows.jsonl", "--rows", "1", "--max-length", "500")
    text = inspected(folder, monkeypatch, *words, profile=persona)
    assert "  profile persona: adds the system turn 1: You are Ada. Your voice: dry.\n" in text
    assert "system↵\nYou are Ada. Your voice: dry.‹<|im_end|>›" in text
    assert "⟦the dog‹<|im_end|>›⟧" in text, "nothing of it is learnt"
    (row,) = json.loads(inspected(folder, monkeypatch, *words, "--format", "json"))["rows"]
    assert row["profile"] == "persona"
    assert row["changes"] == [{"turn": 0, "role": "system", "before": "", "after": "You are Ada. Your voice: dry."}]
    assert row["learnt"] == ["the dog<|im_end|>"]
    assert "profile persona: adds the system turn 1" in inspected(folder, monkeypatch, *words, "--format", "html")


def test_an_answer_that_a_profile_changes_is_shown_as_it_was_and_as_it_is_learnt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sums.jsonl").write_text(row("1 + 2?", "so it is\n(add 1 2)"))
    text = inspected(folder, monkeypatch, "sums.jsonl", "--max-length", "900", profile={"name": "regime3"})
    assert "changes the assistant turn 3 from: so it is↵(add 1 2) - to: so it is↵<<ANS_START>>(add 1 2)<<ANS_END>>" in text
    assert "⟦so it is↵\n<<ANS_START>>(add 1 2)<<ANS_END>>‹<|im_end|>›⟧" in text


def test_the_last_turn_alone_and_a_profile_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = "from rendering.profiles import DataProfile\nclass Mine(DataProfile):\n    name, version, adds = 'mine', 1, 'nothing'\n"
    (folder / "mine.py").write_text(mine + "    def change(self, messages, draw):\n        return list(messages)\nPROFILE = Mine\n")
    turns = [{"role": role, "content": content} for role, content in (("user", "a"), ("assistant", "one"), ("user", "b"), ("assistant", "two"))]
    (folder / "talk.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    asked = {"profile": {"name": "mine"}, "profiles": {"mine": "mine.py"}, "training": {"last_turn_only": True}}
    (seen,) = json.loads(inspected(folder, monkeypatch, "talk.jsonl", "--format", "json", **asked))["rows"]
    assert (seen["learnt"], "changes" in seen) == (["two<|im_end|>"], False)


def test_a_wrong_profile_is_told_by_inspect_and_by_config_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as by_inspect:
        inspected(folder, monkeypatch, "rows.jsonl", profile={"name": "personna"})
    with pytest.raises(ConfigError) as by_check:
        CliRunner().invoke(command, ["config", "check"], standalone_mode=False, catch_exceptions=False)
    for caught in (by_inspect, by_check):
        assert (caught.value.code, caught.value.hint) == ("PROFILE_UNKNOWN", "did you mean 'persona'?")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.jsonl"], "SOURCE_UNKNOWN"),
        (["rows.jsonl", "--rows", "3-1"], "ROWS_SYNTAX"),
        (["rows.jsonl", "--rows", "one"], "ROWS_SYNTAX"),
        (["rows.jsonl", "--rows", "0"], "ROWS_SYNTAX"),
        (["rows.jsonl", "--rows", "1-9999"], "ROWS_TOO_MANY"),
        (["rows.jsonl", "--schema", "chat_sft"], "chat_sft_v1"),
        (["rows.jsonl", "--model", "nobody"], "MODEL_UNKNOWN"),
        (["rows.jsonl", "-o", "none/page.txt"], "OUT_UNWRITABLE"),
        (["."], "folder"),
    ],
)
def test_a_wrong_word_is_named_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LORAD_CONFIG", raising=False)
    with pytest.raises(UsageError) as caught:
        command.main(["inspect", *words], standalone_mode=False)
    assert said in f"{caught.value.code} {caught.value.what} {caught.value.hint}"
    assert caught.value.hint


def test_a_wrong_word_ends_with_the_status_of_wrong_usage(folder: Path) -> None:
    done = lorad(folder, "inspect", "nothing.jsonl")
    assert done.returncode == 3
    assert "neither a file nor a job" in done.stderr


# --- a job


def accept(home: Home, folder: Path, content: bytes) -> str:
    """A queued job on a drop of these rows; returns its id."""
    home.prepare()
    digest = hashlib.sha256(content).hexdigest()
    drop, job = "drop-1", "job-1"
    place = home.drop(DropState.ACCEPTED, drop)
    place.mkdir(parents=True)
    claim = Claim(drop=drop, adapter="a/main", source="rows.jsonl", device=1, inode=1, size_bytes=len(content), mtime_ns=1, file="rows.jsonl", claimed_at=NOW)
    codec.write(place / "claim.json", claim)
    codec.write(place / "accepted.json", Accepted(at=NOW, job=job, sha256=digest, identity="i", rows=3, schema_id="chat_sft_v1", job_made=True))
    rows = rows_folder(home, drop)
    rows.mkdir()
    (rows / "rows.jsonl.zst").write_bytes(zstandard.compress(content))
    index = [{"line": 1, "group": "g1", "split": "train"}, {"line": 2, "group": "g2", "split": "gate"}, {"line": 4, "group": "g3", "split": "dev"}]
    (rows / "index.jsonl").write_text("".join(json.dumps(one) + "\n" for one in index))
    card = JobCard(
        id=job,
        adapter="a/main",
        drop=drop,
        file="rows.jsonl",
        sha256=digest,
        identity="i",
        created_at=NOW,
        drops=(DropRef(id=drop, sha256=digest),),
        base_sha256="0" * 64,
        backend="stub",
    )
    create_job(home, card, Queued(since=NOW), ConfigLoader(folder / "config.json").load().record())
    assert home.job(JobState.QUEUED, job).is_dir()
    return job


def test_the_rows_of_a_job_are_drawn_under_the_config_that_was_frozen_with_it(folder: Path) -> None:
    rows = (row("hello", "the dog") + row("hello", "the fox") + "\n" + row("q", "y" * 80, anything="else")).encode()
    job = accept(Home(folder / "var"), folder, rows)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("60", "900"))
    done = lorad(folder, "inspect", job)
    assert done.returncode == 0, done.stderr
    assert "job job-1 (rows.jsonl): chat_sft_v1, tiny, max_length 60" in done.stdout
    assert "it belongs to the train split" in done.stdout
    assert "it belongs to the gate split: it is never trained on" in done.stdout
    assert "row 4: " in done.stdout
    one = json.loads(lorad(folder, "inspect", job, "--rows", "3,4", "--max-length", "900", "--format", "json").stdout)
    assert [found.get("finding", {}).get("id") for found in one["rows"]] == ["-", None]
    assert one["rows"][1]["counts"]["truncated"] == 0
