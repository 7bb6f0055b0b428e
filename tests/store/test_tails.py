"""Ends of files: whole lines, and never more of a file than is asked for."""

import errno
import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.exits import ChildExit
from core.wire import Activation
from store.child import note_of
from store.durable import last_lines, lines_of
from store.paths import Home
from store.runs import LOG, candidates_of, log_tail, resume_point
from store.seals import seal
from store.targets import merge_live

AT = datetime(2026, 3, 1, tzinfo=UTC)
LIVE: dict[str, Any] = {"box": "b", "at": AT, "event": "live", "alias": "a/main", "release": "r", "version": 1, "previous": None, "fence": 1}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_the_last_lines_are_whole_and_a_torn_one_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert last_lines(path, 100) == []
    path.write_bytes(b"one\ntwo\nthree\nfo")
    assert last_lines(path, 100) == [b"one", b"two", b"three"]
    assert last_lines(path, 100, torn=True)[-1] == b"fo"
    assert last_lines(path, 10) == [b"three"], "the middle of a line is none"


def test_the_end_of_a_huge_log_costs_little(tmp_path: Path) -> None:
    with open(tmp_path / LOG, "wb") as file:
        file.truncate(64 << 20)
        file.seek(64 << 20)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(30)) + b"Killed")
    tracemalloc.start()
    tail = log_tail(tmp_path)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tail[-2:] == ["line 29", "Killed"]
    assert len(tail) == 20
    assert most_bytes < 1 << 20


def test_a_checkpoint_that_a_person_has_copied_beside_the_others_is_none(home: Home) -> None:
    for name in ("checkpoints/step_000004", "checkpoints/step_000004.kept", "resume/step_000004", "resume/step_000004 (copy)"):
        folder = home.runs("job-1") / "01-train" / name
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"x")
        seal(folder)
    assert [candidate.step for candidate in candidates_of(home, "job-1")] == [4]
    assert resume_point(home, "job-1") == "01-train/resume/step_000004"


def test_a_box_with_a_long_ledger_is_merged_with_one_sync(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    ledger = [Activation(**LIVE, sequence=number) for number in range(1, 51)]
    assert merge_live(home, "local", ledger, 10) == 50
    assert merge_live(home, "local", ledger, 50) == 50
    assert len(list(lines_of(home.live))) == 40
    assert len(synced) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_child_that_meets_a_full_disk_or_quota_is_stopped_and_not_at_fault(number: int) -> None:
    note = note_of(OSError(number, "no room"), ChildExit.BAD_SPEC)
    assert (note.code, note.error) == (ChildExit.STOPPED, "DISK_FULL")
