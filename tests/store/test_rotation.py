"""Logs in parts: nothing is lost on the way from part to part, and on a full disk lines are dropped, counted and told."""

import errno
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from store import rotation
from store.journal import entries, write_entry
from store.paths import Home
from store.rotation import LineLog, all_lines, compress_parts, parts_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_journal_in_parts_reads_as_one_before_and_after_packing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log = LineLog(home.journal, part_bytes=300)
    for number in range(40):
        log.append("", json.dumps({"action": "x", "number": number}))
    assert len(parts_of(home.journal)) > 2
    assert [entry["number"] for entry in entries(home.journal)] == list(range(40))
    assert compress_parts(home, {})["packed"] == len(parts_of(home.journal))
    assert all(part.name.endswith(".jsonl.zst") for _, part in parts_of(home.journal))
    log.append("", json.dumps({"action": "x", "number": 40}))
    assert [entry["number"] for entry in entries(home.journal)] == list(range(41))


def test_parts_are_numbered_on_after_a_restart_and_a_broken_off_packing_counts_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    LineLog(home.journal, part_bytes=1).append("", "a")
    LineLog(home.journal, part_bytes=1).append("", "b")
    compress_parts(home, {})
    (tmp_path / "journal-000001.jsonl").write_text("a\n")  # killed between the rename of the packed part and the end of the plain one
    LineLog(home.journal, part_bytes=1).append("", "c")
    assert [number for number, _ in parts_of(home.journal)] == [1, 2]
    assert list(all_lines(home.journal)) == ["a", "b", "c"]


def test_of_a_log_that_is_only_looked_at_the_oldest_parts_go(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "status.jsonl", part_bytes=1, keep=2)
    for number in range(6):
        log.append("", str(number))
    assert list(all_lines(tmp_path / "status.jsonl")) == ["3", "4", "5"]


def test_lines_that_found_the_disk_full_are_counted_and_told_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    real, trouble = rotation.append_line, [errno.ENOSPC]

    def append(path: Path, line: str) -> None:
        if trouble:
            raise OSError(trouble[0], "no")
        real(path, line)

    monkeypatch.setattr(rotation, "append_line", append)
    write_entry(path, NOW, "one")
    write_entry(path, NOW, "two")
    trouble.clear()
    write_entry(path, NOW, "three")
    assert [(entry["action"], entry.get("lines")) for entry in entries(path)] == [("lines_lost", 2), ("three", None)]
    trouble.append(errno.EIO)
    with pytest.raises(OSError, match="no"):
        write_entry(path, NOW, "four")
