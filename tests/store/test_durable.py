"""What lorad writes is whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.durable import append_line, create_file, lines_of, made_aside, move, replace_file


def test_replace_leaves_the_old_bytes_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    replace_file(path, "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_the_first_of_two_makers_wins_and_nothing_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert create_file(path, b"first", mode=0o600)
    assert not create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_torn_last_line_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    append_line(path, '{"n": 1}')
    with open(path, "a") as file:
        file.write('{"n": 2')  # a crash in the middle of a write
    assert list(lines_of(path)) == ['{"n": 1}']
    append_line(path, '{"n": 3}', durable=True)
    assert list(lines_of(path)) == ['{"n": 1}', '{"n": 2', '{"n": 3}']


def test_a_folder_made_aside_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), made_aside(tmp_path / "done", tmp_path / "tmp") as folder:
        (folder / "half").write_text((folder / "not there").read_text())
    assert not (tmp_path / "done").exists()
    with made_aside(tmp_path / "done", tmp_path / "tmp") as folder:
        (folder / "whole").write_text("x")
    assert [entry.name for entry in (tmp_path / "done").iterdir()] == ["whole"]


def test_a_move_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"


def test_twenty_processes_that_make_keys_at_once_agree_on_one_pair(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from store.keys import ensure_keys; ensure_keys(Path({str(tmp_path)!r}))"
    makers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(20)]
    assert [maker.wait(60) for maker in makers] == [0] * 20
    from store.keys import sign, verify

    verify(tmp_path, b"content", sign(tmp_path, b"content"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"release.key", "release.pub"}
