"""What is not a readable file is refused at once: never followed, never waited for."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate_cases import GOOD, as_bytes, found

from validation import DataValidator, Level, Limits
from validation.source import Source

READ_AS_NOBODY = """
import os, sys
from validation import DataValidator
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(DataValidator().check_file(sys.argv[1]).to_json())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # noqa: S103 - another user must pass through it
        yield Path(name)


def test_a_directory_named_like_a_drop(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    report = DataValidator().check_file(tmp_path / "x.jsonl")
    assert "a directory" in found(report, "F11").message
    assert report.verdict == "refused"


def test_a_fifo_does_not_hang_the_gate(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    assert "a FIFO" in found(DataValidator().check_file(tmp_path / "x.jsonl"), "F11").message


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(as_bytes(GOOD))
    (tmp_path / "x.jsonl").symlink_to("secret.jsonl")
    assert "a symbolic link" in found(DataValidator().check_file(tmp_path / "x.jsonl"), "F11").message


def test_a_socket_and_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("x.jsonl")
        assert "a socket" in found(DataValidator().check_file(tmp_path / "x.jsonl"), "F11").message
    assert "a character device" in found(DataValidator().check_file("/dev/zero"), "F11").message


def test_a_file_without_read_permission(open_folder: Path) -> None:
    path = open_folder / "x.jsonl"
    path.write_bytes(as_bytes(GOOD))
    path.chmod(0)
    done = subprocess.run([sys.executable, "-c", READ_AS_NOBODY, str(path)], capture_output=True, text=True, timeout=60, check=True)
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["id"] == "F11"
    assert "may not be read" in finding["message"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    report = DataValidator().check_file(tmp_path / "x.jsonl")
    assert "No such file" in found(report, "F11").message


@pytest.mark.parametrize("name", ["rows.jsonl.part", "rows.jsonl.tmp", "rows.PARTIAL", "rows.jsonl~"])
def test_a_name_that_says_the_file_is_not_finished(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(as_bytes(GOOD))
    report = DataValidator().check_file(path)
    finding = found(report, "F01")
    assert (finding.severity, report.verdict) == ("warning", "accepted")
    assert "rename" in finding.hint


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes(GOOD))
    validator = DataValidator()
    with Source(path, Limits()) as source:
        examination = validator.begin(source, "chat_sft_v1", Level.QUICK)
        assert examination.begin()

        def blocks() -> Iterator[bytes]:
            yield from source.blocks()
            with path.open("ab") as writer:
                writer.write(b'{"messages": [{"role": "us')

        examination.read(blocks())
        report = examination.end("rows.jsonl").report
    finding = found(report, "F01")
    assert (finding.severity, report.verdict) == ("error", "refused")
    assert "it had 1,252 bytes when it was opened and has 1,278 now" in finding.message
    assert "once it is quiet" in finding.hint


def test_a_file_that_is_only_touched_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(as_bytes(GOOD))
    with Source(path, Limits()) as source:
        assert source.moved() == ""
        os.utime(path, ns=(1, 1))
        assert source.moved() == "it was written to"
