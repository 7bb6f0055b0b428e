"""A folder with one file of rows and its pictures: what is read, and what is refused without being followed."""

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gate_cases import GOOD, as_bytes

from core.gate import ACCEPTED_DROP, GATE_SPEC, GateResult, GateSpec
from store import codec
from validation.bundle import rows_file
from validation.child import gate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A folder with one file of good rows."""
    folder = tmp_path / "good.drop"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(as_bytes(GOOD))
    return folder


def check(folder: Path, **changed: object) -> GateResult:
    place = folder.parent / "gate"
    place.mkdir()
    asked = {"drop": "one", "adapter": "a/main", "file": str(folder), "name": folder.name, "schema_id": "chat_sft_v1", "level": "quick"}
    codec.write(place / GATE_SPEC, GateSpec(**(asked | {"max_row_bytes": 4 << 20, "max_file_bytes": 1 << 30} | changed)))  # type: ignore[arg-type]
    return gate(place, lambda: NOW)


def test_a_folder_with_one_file_of_text_is_a_drop_like_any_other(drop: Path) -> None:
    result = check(drop)
    assert (result.verdict, result.rows) == ("accepted", len(GOOD))
    assert '"good.drop/rows.jsonl"' in (drop.parent / "gate" / ACCEPTED_DROP / "report.json").read_text()


def test_other_files_and_folders_beside_it_are_left_alone(drop: Path) -> None:
    (drop / "images" / "deep").mkdir(parents=True)
    (drop / "images" / "deep" / "one.png").write_bytes(b"\x89PNG")
    (drop / "rows.job.json").write_text("{}")
    (drop / ".hidden").write_text("x")
    assert rows_file(drop) == (drop / "rows.jsonl", "")


def _several(folder: Path) -> None:
    (folder / "more.jsonl").write_text("{}\n")


def _none(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()


def _deep(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "rows.jsonl").rename(folder / "inner" / "rows.jsonl")


def _link(folder: Path) -> None:
    (folder / "one.png").symlink_to("/etc/hostname")


def _linked_rows(folder: Path) -> None:
    (folder / "rows.jsonl").rename(folder.parent / "aside.jsonl")
    (folder / "rows.jsonl").symlink_to(folder.parent / "aside.jsonl")


def _linked_folder(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "more").symlink_to("/etc")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "one.png")


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket is short
        try:
            made.bind("s")
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_several, "2 .jsonl files ('more.jsonl', 'rows.jsonl')"),
        (_none, "no .jsonl file"),
        (_deep, "at its top"),
        (_link, "'one.png' in the folder is a symbolic link"),
        (_linked_rows, "'rows.jsonl' in the folder is a symbolic link"),
        (_linked_folder, "'inner/more' in the folder is a symbolic link"),
        (_fifo, "'one.png' in the folder is no regular file"),
        (_socket, "'s' in the folder is no regular file"),
    ],
)
def test_a_folder_that_is_no_drop_is_refused_by_name_and_nothing_is_followed(drop: Path, spoil: Callable[[Path], None], word: str) -> None:
    spoil(drop)
    result = check(drop)
    assert (result.verdict, result.codes) == ("refused", ("F11",))
    assert word in result.message
    assert "NAME.drop" in result.hint
    assert (drop.parent / "gate" / "report.md").is_file()
    assert not (drop.parent / "gate" / ACCEPTED_DROP).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_in_it_that_may_not_be_read_is_named(drop: Path) -> None:
    (drop / "inner").mkdir(mode=0)
    assert "'inner' in the folder may not be read" in rows_file(drop)[1]
    (drop / "inner").chmod(0o700)
