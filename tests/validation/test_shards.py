"""A large file is surveyed by several processes; nothing that they find depends on how the file was cut."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gate_cases import chat

from core.errors import LoradError
from validation import DataValidator, Report, segments, shards
from validation.examination import Setting
from validation.findings import Level
from validation.source import Source


def content(rows: int) -> bytes:
    made = []
    for number in range(rows):
        answer = "TODO" if number % 50 == 7 else f"The answer to question {number} is {number * 17}, as the text of page {number % 90} says."
        made.append(json.dumps(chat(f"What is the answer to question {number}? " * 4, answer)).encode() + b"\n")
    return b"".join(made)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1 << 16)
    monkeypatch.setattr(shards, "LEAST_BYTES", 1 << 17)


def examined(path: Path, processes: int) -> Report:
    return DataValidator(setting=Setting(processes=processes)).check_file(path, level="standard")


def test_three_processes_find_what_one_finds(small_parts: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content(3000))
    one, three = examined(path, 1), examined(path, 3)
    assert one.findings == three.findings
    assert {finding.id for finding in one.findings} >= {"B04"}
    assert (one.rows, one.sha256, one.sampled) == (three.rows, three.sha256, three.sampled)
    assert dict(one.stats) == dict(three.stats)


def test_the_parts_of_a_file_come_out_by_its_size_and_leave_the_reader_as_much_work_as_the_others(small_parts: None) -> None:
    assert shards.borders_of(1 << 20, 1, Level.DEEP) == []
    assert shards.borders_of((1 << 18) - 1, 4, Level.DEEP) == []
    for level in (Level.STANDARD, Level.DEEP):
        for processes in (2, 3, 4):
            borders = shards.borders_of(1 << 20, processes, level)
            assert len(borders) == processes - 1
            assert borders == sorted(set(borders))
            assert 1 << 19 < borders[-1] < 1 << 20


def test_a_file_that_grows_before_it_is_read_is_surveyed_as_it_was_read(small_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content(3000))
    count = Source.num_lines
    monkeypatch.setattr(Source, "num_lines", lambda source: count(source) - 1)
    one, two = examined(path, 1), examined(path, 2)
    assert one.findings == two.findings
    assert dict(one.stats) == dict(two.stats)


def test_a_process_that_dies_is_told_and_not_taken_for_a_result(small_parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content(3000))
    start = subprocess.Popen

    def killed(*words: object, **options: object) -> "subprocess.Popen[bytes]":
        process: subprocess.Popen[bytes] = start([sys.executable, "-c", "import sys; sys.stdin.read(100); import time; time.sleep(600)"], **options)  # type: ignore[call-overload]
        process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(shards.subprocess, "Popen", killed)
    report = examined(path, 2)
    assert report.verdict == "refused"
    assert "a process of the survey died" in report.findings[0].message
    assert "validation.processes" in report.findings[0].hint


def test_a_file_that_changes_between_the_passes_is_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"one\ntwo\n")
    cut = segments.Segments()
    cut.add(path.read_bytes())
    path.write_bytes(b"one\ntwa\n")
    with open(path, "rb") as file, pytest.raises(LoradError, match="changed while it was read"):
        segments.read_segment(file.fileno(), cut.end()[0], path)
