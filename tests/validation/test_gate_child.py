"""The gate as the daemon uses it: one process, one folder after another."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard
from gate_cases import GOOD, as_bytes, chat, turns

from core.gate import ACCEPTED_DROP, GATE_RESULT, GATE_SPEC, GateResult, GateSpec, KnownDrop
from core.tasks import RowsOf
from rendering.rows import INDEX, ROWS, read_index, read_rows
from store import codec
from store.seals import check_seal
from validation.child import gate
from validation.context import Known
from validation.signatures import SIGNATURES, read_signatures
from validation.source import Source

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMAND = [sys.executable, "-m", "validation"]


def ask(folder: Path, content: bytes | None, **changed: object) -> Path:
    """A gate folder that asks for a file of these bytes; None: the file is gone."""
    folder.mkdir(exist_ok=True)
    file = folder.with_suffix(".jsonl")
    if content is not None:
        file.write_bytes(content)
    asked = {"drop": folder.name, "adapter": "default/main", "file": str(file), "name": "rows.jsonl", "schema_id": "chat_sft_v1", "level": "standard"}
    spec = GateSpec(**(asked | {"max_row_bytes": 4 << 20, "max_file_bytes": 1 << 30} | changed))  # type: ignore[arg-type]
    codec.write(folder / GATE_SPEC, spec)
    return folder


def answer(folder: Path) -> GateResult:
    return codec.read(GateResult, folder / GATE_RESULT)


def known(folder: Path) -> KnownDrop:
    return KnownDrop(folder=str(folder / ACCEPTED_DROP), schema_id="chat_sft_v1", sha256=answer(folder).sha256)


def splits(folder: Path) -> dict[str, str]:
    """Question -> split of an accepted drop."""
    drop = folder / ACCEPTED_DROP
    source = RowsOf(drop=folder.name, sha256=answer(folder).sha256, folder=str(drop), schema_id="chat_sft_v1")
    return {row.messages[0].content: row.split for row in read_rows([source])}


def many(count: int, said: str = "answer") -> bytes:
    return as_bytes([chat(f"question {number}", f"{said} {number}") for number in range(count)])


def test_one_process_answers_two_folders_and_ends_with_its_input(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + many(40) + b"\n"
    good, bad = ask(tmp_path / "good", content), ask(tmp_path / "bad", many(12) + b'{"messages": [')
    done = subprocess.run(COMMAND, input=f"{good}\n{bad}\n", text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    accepted = answer(good)
    assert (accepted.verdict, accepted.rows, accepted.codes, accepted.drop) == ("accepted", 40, (), "good")
    assert accepted.sha256 == hashlib.sha256(content).hexdigest()
    assert accepted.size_bytes == len(content)
    check_seal(good / ACCEPTED_DROP)
    assert {path.name for path in (good / ACCEPTED_DROP).iterdir()} == {ROWS, INDEX, "report.json", "report.md", "SEALED"}
    assert zstandard.ZstdDecompressor().stream_reader((good / ACCEPTED_DROP / ROWS).read_bytes()).read() == content
    refused = answer(bad)
    assert (refused.verdict, refused.codes) == ("refused", ("J01",))
    assert "cut off" in refused.message
    assert json.loads((bad / "report.json").read_text())["findings"][0]["lines"] == [13]
    assert (bad / "report.md").read_text().startswith("# rows.jsonl: refused")
    assert not (bad / ACCEPTED_DROP).exists()


def test_a_term_ends_it_with_the_code_for_stopped(tmp_path: Path) -> None:
    folder = ask(tmp_path / "one", many(12))
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(f"{folder}\n")
        child.stdin.flush()
        while "gate ends" not in child.stderr.readline():  # blocks until the child says so
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 40
    assert answer(folder).verdict == "accepted"


def test_splits_are_drawn_once_and_a_later_drop_reuses_them(tmp_path: Path) -> None:
    first = ask(tmp_path / "first", many(60))
    gate(first, lambda: NOW)
    before = splits(first)
    assert {word: list(before.values()).count(word) for word in ("train", "dev", "gate")} == {"train": 42, "dev": 9, "gate": 9}
    corrected = as_bytes([chat(f"Question  {number} ", f"better {number}") for number in range(60)]) + many(100, "new").replace(b"question", b"other")
    second = ask(tmp_path / "second", corrected, known=(known(first),))
    gate(second, lambda: NOW)
    after = splits(second)
    assert all(after[f"Question  {number} "] == before[f"question {number}"] for number in range(60))
    new = [split for question, split in after.items() if question.startswith("other")]
    assert (new.count("dev"), new.count("gate")) == (15, 15)


def test_rows_of_one_question_share_a_group_and_a_common_opening_is_refined(tmp_path: Path) -> None:
    rows = [*[chat("same", f"answer {number}") for number in range(3)], *[turns(("user", "Hi"), ("assistant", f"a{number}")) for number in range(30)], *GOOD]
    folder = ask(tmp_path / "one", as_bytes(rows))
    gate(folder, lambda: NOW)
    groups = [row.group for row in read_index(folder / ACCEPTED_DROP / INDEX)]
    assert len(set(groups[:3])) == 1
    assert len(set(groups[3:33])) == 30


def test_a_repeat_starts_afresh_whatever_a_crash_left(tmp_path: Path) -> None:
    folder = ask(tmp_path / "one", many(12))
    (folder / ACCEPTED_DROP).mkdir()
    (folder / ACCEPTED_DROP / ROWS).write_bytes(b"half")
    (folder / ACCEPTED_DROP / "leftover").write_bytes(b"x")
    (folder / "report.json").write_text("{")
    assert gate(folder, lambda: NOW).verdict == "accepted"
    check_seal(folder / ACCEPTED_DROP)
    assert not (folder / ACCEPTED_DROP / "leftover").exists()
    assert not (folder / "report.json").exists()
    assert answer(folder).ended_at == NOW


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "gzip", "empty", "unknown schema", "too large"])
def test_what_is_no_drop_is_refused_with_reports(tmp_path: Path, kind: str) -> None:
    content = {"gzip": b"\x1f\x8b" + b"x" * 3000, "empty": b"", "unknown schema": many(12), "too large": many(12)}.get(kind)
    folder = ask(tmp_path / "one", content, **{"unknown schema": {"schema_id": "nope"}, "too large": {"max_file_bytes": 9}}.get(kind, {}))
    file = folder.with_suffix(".jsonl")
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to("/etc/hostname")
    result = gate(folder, lambda: NOW)
    wanted = {"gzip": "F03", "empty": "F02", "unknown schema": "S01", "too large": "F12"}.get(kind, "F11")
    assert (result.verdict, result.codes) == ("refused", (wanted,))
    assert result.hint
    assert (folder / "report.json").is_file()
    assert (folder / "report.md").is_file()
    assert not (folder / ACCEPTED_DROP).exists()


def test_a_file_that_is_gone_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    folder = ask(tmp_path / "one", None)
    result = gate(folder, lambda: NOW)
    assert (result.verdict, result.code) == ("error", "FILE_VANISHED")
    assert str(folder.with_suffix(".jsonl")) in result.message
    assert answer(folder) == result


def test_a_file_that_grows_while_it_is_read_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ask(tmp_path / "one", many(12))
    read = Source.blocks

    def read_and_append(self: Source) -> Iterator[bytes]:
        for block in read(self):
            yield block
            if self.path.stat().st_size == len(block):
                with open(self.path, "ab") as writer:
                    writer.write(many(1))

    monkeypatch.setattr(Source, "blocks", read_and_append)
    result = gate(folder, lambda: NOW)
    assert (result.verdict, result.code) == ("error", "FILE_CHANGED")
    assert not (folder / ACCEPTED_DROP).exists()


def test_a_full_disk_is_an_error_and_its_copy_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Source) -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Source, "blocks", full)
    folder = ask(tmp_path / "one", many(12))
    result = gate(folder, lambda: NOW)
    assert (result.verdict, result.code) == ("error", "DISK_FULL")
    assert not (folder / ACCEPTED_DROP).exists()


def test_a_copy_that_the_system_refuses_to_write_is_an_error_and_the_child_lives_on(tmp_path: Path) -> None:
    noise = as_bytes([chat(os.urandom(400).hex(), os.urandom(400).hex()) for _ in range(60)])
    large, small = ask(tmp_path / "large", noise), ask(tmp_path / "small", many(12))

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(COMMAND, input=f"{large}\n{small}\n", text=True, capture_output=True, timeout=60, check=False, preexec_fn=bound)
    assert done.returncode == 0, done.stderr
    assert (answer(large).verdict, answer(large).code) == ("error", "FILE_LIMIT")
    assert answer(small).verdict == "accepted"


@pytest.mark.parametrize("damage", ["no spec", "bad spec", "bad level", "no index", "bad tokenizer"])
def test_a_request_that_cannot_be_carried_out_is_an_error_with_a_code(tmp_path: Path, damage: str) -> None:
    changed = {
        "no index": {"known": (KnownDrop(folder=str(tmp_path / "gone"), schema_id="chat_sft_v1", sha256="0"),)},
        "bad tokenizer": {"base": str(tmp_path / "damaged")},
        "bad level": {"level": "profound"},
    }
    folder = ask(tmp_path / "one", many(12), **changed.get(damage, {}))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "tokenizer.json").write_text("{")
    if damage == "no spec":
        (folder / GATE_SPEC).unlink()
    elif damage == "bad spec":
        (folder / GATE_SPEC).write_text("{}")
    result = gate(folder, lambda: NOW)
    wanted = {
        "no spec": "FILE_VANISHED",
        "bad spec": "RECORD_DAMAGED",
        "no index": "INDEX_DAMAGED",
        "bad tokenizer": "TOKENIZER_DAMAGED",
        "bad level": "GATE_SPEC",
    }
    assert (result.verdict, result.code) == ("error", wanted[damage])
    assert not (folder / ACCEPTED_DROP).exists()


class Panic(BaseException):
    """What Rust libraries raise, which is no Exception."""


@pytest.mark.parametrize(
    "error", [RuntimeError("the secret row text"), RecursionError("the secret"), Panic("the secret")], ids=lambda error: type(error).__name__
)
def test_an_exception_that_nobody_foresaw_is_an_answer_without_the_words_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("validation.child.judge", fails)
    result = gate(ask(tmp_path / "one", many(12)), lambda: NOW)
    assert (result.verdict, result.code) == ("error", "GATE_CRASH")
    assert f"{type(error).__name__} in fails (test_gate_child.py" in result.message
    assert "secret" not in result.message + caplog.text


def test_a_file_that_needs_more_memory_than_the_config_gives_names_the_key_and_the_child_lives_on(tmp_path: Path) -> None:
    wide = as_bytes([chat("q" * (90 << 20), "a")])
    large = ask(tmp_path / "large", wide, memory_mb=256, max_row_bytes=1 << 30, level="quick")
    small = ask(tmp_path / "small", many(12), level="quick")
    done = subprocess.run(COMMAND, input=f"{large}\n{small}\n", text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (answer(large).verdict, answer(large).code) == ("error", "OUT_OF_MEMORY")
    assert "validation.memory_mb" in answer(large).message
    assert "validation.memory_mb" in answer(large).hint
    assert answer(small).verdict == "accepted"


def test_the_profile_and_the_columns_reach_the_checks(tmp_path: Path) -> None:
    rows = as_bytes([chat(f"question {number}", f"answer {number}", lang="en") for number in range(8)])
    plain = gate(ask(tmp_path / "plain", rows, level="quick"), lambda: NOW)
    assert plain.codes == ("S03",)
    changed = {"columns": ("lang",), "off": ("F09",), "profile": "mine", "level": "quick"}
    assert gate(ask(tmp_path / "declared", rows, **changed), lambda: NOW).verdict == "accepted"
    report = json.loads((tmp_path / "declared" / ACCEPTED_DROP / "report.json").read_text())
    assert [finding["id"] for finding in report["findings"]] == []
    assert (report["stats"]["profile"], report["stats"]["checks_off"]) == ("mine", ["F09"])


OWN = {"id": "quiz_v1", "keys": {"q": "string", "a": "string"}, "messages": [{"role": "user", "content": "{q}"}, {"role": "assistant", "content": "{a}"}]}


def test_a_drop_of_the_projects_own_schema_keeps_a_copy_of_it(tmp_path: Path) -> None:
    spec = tmp_path / "quiz.json"
    spec.write_text(json.dumps(OWN))
    rows = as_bytes([{"q": f"question {number}", "a": f"answer {number}"} for number in range(12)])
    folder = ask(tmp_path / "one", rows, schema_id="quiz_v1", specs={"quiz_v1": str(spec)}, level="quick")
    result = gate(folder, lambda: NOW)
    assert (result.verdict, result.rows, result.objective) == ("accepted", 12, "sft")
    assert (folder / ACCEPTED_DROP / "spec.json").read_bytes() == spec.read_bytes()
    read = read_rows([RowsOf(drop="one", sha256=result.sha256, folder=str(folder / ACCEPTED_DROP), schema_id="quiz_v1")])
    assert read[0].messages[1].content == "answer 0"
    unknown = gate(ask(tmp_path / "other", rows, schema_id="quizz_v1", specs={"quiz_v1": str(spec)}), lambda: NOW)
    assert unknown.codes == ("S01",)
    assert "'quiz_v1'" in unknown.hint


def test_the_gate_says_what_its_rows_teach(tmp_path: Path) -> None:
    pairs = as_bytes([{"prompt": f"question {number}", "chosen": f"good {number}", "rejected": f"bad {number}"} for number in range(12)])
    result = gate(ask(tmp_path / "one", pairs, schema_id="preference_v1", level="quick"), lambda: NOW)
    assert (result.verdict, result.objective) == ("accepted", "dpo")


def again(folder: Path, first: Path, **changed: object) -> Path:
    """Ask about the accepted drop of `first` once more."""
    asked = ask(folder, None, accepted=str(first / ACCEPTED_DROP), level="deep", **changed)
    return asked


def long_rows() -> bytes:
    """Rows of different words: short ones are alike by nature, and are not signed."""
    texts = [" ".join(hashlib.sha256(f"{row} {word}".encode()).hexdigest()[:6] for word in range(20)) for row in range(40)]
    return as_bytes([chat(f"question {row}", text) for row, text in enumerate(texts)])


def test_an_accepted_drop_is_checked_again_from_its_own_rows_and_only_what_changes_is_written(tmp_path: Path) -> None:
    first = ask(tmp_path / "first", long_rows(), level="quick")
    gate(first, lambda: NOW)
    second = again(tmp_path / "second", first)
    result = gate(second, lambda: NOW)
    assert (result.verdict, result.rows, result.sha256) == ("accepted", 40, answer(first).sha256)
    written = {path.name for path in (second / ACCEPTED_DROP).iterdir()}
    assert {"report.json", "report.md", "SEALED"} <= written
    assert not written & {ROWS, INDEX}
    stored = read_signatures(Known(folder=str(second / ACCEPTED_DROP), schema_id="chat_sft_v1", sha256=result.sha256))
    assert stored.lines.tolist() == list(range(1, 41)), "later drops are compared with what is signed now"
    assert json.loads((second / ACCEPTED_DROP / "report.json").read_text())["level"] == "deep"
    assert not (second / "rows.jsonl").exists(), "the plain rows are gone once they were read"


def test_a_drop_that_is_checked_at_deep_is_signed_for_later_drops(tmp_path: Path) -> None:
    folder = ask(tmp_path / "one", many(40), level="deep")
    assert gate(folder, lambda: NOW).verdict == "accepted"
    assert (folder / ACCEPTED_DROP / SIGNATURES).is_file()
    check_seal(folder / ACCEPTED_DROP)


def test_what_the_second_look_puts_aside_leaves_the_index_and_keeps_the_other_splits(tmp_path: Path) -> None:
    robot = {"messages": [{"role": "robot", "content": "q"}, {"role": "assistant", "content": "a"}]}
    first = ask(tmp_path / "first", many(40) + as_bytes([robot]), level="quick", quarantine_share=0.5)
    gate(first, lambda: NOW)
    before = {row.line: row.split for row in read_index(first / ACCEPTED_DROP / INDEX)}
    second = again(tmp_path / "second", first, quarantine_share=0.9, max_row_bytes=len(many(1)))
    assert gate(second, lambda: NOW).quarantined == 31, "rows with two digits are two bytes longer"
    after = {row.line: row.split for row in read_index(second / ACCEPTED_DROP / INDEX)}
    assert after == {line: split for line, split in before.items() if line <= 10}


def test_accepted_rows_that_are_damaged_are_no_verdict(tmp_path: Path) -> None:
    first = ask(tmp_path / "first", many(40), level="quick")
    gate(first, lambda: NOW)
    (first / ACCEPTED_DROP / ROWS).write_bytes(b"damaged")
    result = gate(again(tmp_path / "second", first), lambda: NOW)
    assert (result.verdict, result.code) == ("error", "ROWS_DAMAGED")


def test_a_folder_that_nobody_wants_any_more_is_passed_over(tmp_path: Path) -> None:
    gone, next_one = ask(tmp_path / "gone", many(12)), ask(tmp_path / "next", many(12))
    shutil.rmtree(gone)
    done = subprocess.run(COMMAND, input=f"{gone}\n{next_one}\n", text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert answer(next_one).verdict == "accepted"
