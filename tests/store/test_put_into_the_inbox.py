"""Putting files into the inbox: copies by one rename, sidecars that are small regular files, and what is lent to the daemon."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.errors import UsageError
from store import drops
from store.inbox import lent, put_drop, sweep_lent
from store.paths import Home

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_sidecar_that_is_no_regular_file_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / drops.SIDECAR
    if kind == "link":
        (tmp_path / "secret").write_text('{"priority": 9}')
        path.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UsageError) as caught:
        drops.read_sidecar(tmp_path)
    assert caught.value.code == "SIDECAR_SYNTAX"


@pytest.mark.parametrize("sidecar", ["[1]", "{", "x" * 70_000, "[" * 5000])
def test_a_sidecar_that_is_not_a_small_object_is_refused(tmp_path: Path, sidecar: str) -> None:
    (tmp_path / drops.SIDECAR).write_text(sidecar)
    with pytest.raises(UsageError) as caught:
        drops.read_sidecar(tmp_path)
    assert caught.value.code == "SIDECAR_SYNTAX"


def test_dropping_keeps_the_original_and_never_overwrites_a_namesake(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("{}\n")
    first = put_drop(home, file, "default/main", {"priority": 2})
    second = put_drop(home, file, "default/main", {})
    assert (first.path.name, second.path.name) == ("data.jsonl", "data-2.jsonl")
    assert file.read_text() == "{}\n"
    assert first.inode == first.path.stat().st_ino
    assert json.loads((home.inbox / "data.job.json").read_text()) == {"priority": 2}
    assert put_drop(home, file, "a/b", {}).path.parent == home.inbox / "a" / "b"


def test_dropping_a_folder_copies_it_whole_in_one_rename(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "pictures.drop"
    (folder / "images").mkdir(parents=True)
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "images" / "one.png").write_bytes(b"x")
    first = put_drop(home, folder, "default/main", {"schema_id": "vision_v1"})
    assert first.path == home.inbox / "pictures.drop"
    assert (first.path / "images" / "one.png").read_bytes() == b"x"
    assert json.loads((home.inbox / "pictures.job.json").read_text()) == {"schema_id": "vision_v1"}
    assert put_drop(home, folder, "default/main", {}).path.name == "pictures-2.drop"
    assert (folder / "images" / "one.png").exists()
    assert [path for path in home.inbox.iterdir() if path.name.startswith(".")] == []


def test_files_are_lent_to_the_daemon_as_copies_that_go_again(home: Home, tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "export.json", tmp_path / "b" / "export.json"
    for file in (one, other):
        file.parent.mkdir()
        file.write_text(str(file))
    with pytest.raises(BrokenPipeError), lent(home, [one, other]) as copies:  # noqa: PT012
        assert [copy.name for copy in copies] == ["export.json", "export.json"]
        assert [copy.read_text() for copy in copies] == [str(one), str(other)]
        assert all(path.name.startswith(".") for path in home.inbox.iterdir() if path != home.rejected), "the watcher leaves them alone"
        raise BrokenPipeError
    assert [path for path in home.inbox.iterdir() if path != home.rejected] == []
    assert one.exists()


def test_what_a_killed_command_lent_is_swept(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text("{}")
    loan = lent(home, [file])
    (copy,) = loan.__enter__()
    sweep_lent(home, 3600, copy.stat().st_mtime + 3000)
    assert copy.exists()
    sweep_lent(home, 3600, copy.stat().st_mtime + 4000)
    assert not copy.exists()
    loan.__exit__(None, None, None)


def test_dropping_what_is_not_there_says_so(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        put_drop(home, tmp_path / "none.jsonl", "default/main", {})
    assert caught.value.code == "FILE_MISSING"
