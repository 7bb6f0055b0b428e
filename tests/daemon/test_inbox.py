"""The scan decides: what is a drop, whose it is, and when nobody writes it any more."""

import os
import time
from pathlib import Path

import pytest

from core.config import Config
from core.facts import Entry, Facts
from core.intake import is_whole
from daemon.inbox import Inbox, last_line_parses

FACTS = Facts(instance="i", config=Config(), backend="stub", base_sha256="b")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "rejected").mkdir()
    return tmp_path


def scan(inbox: Path, *, settle_s: float = 0.0, renamed: set[str] | None = None) -> dict[str, Entry]:
    return {entry.source: entry for entry in Inbox(inbox).scan(renamed or set(), settle_s)}


def put(inbox: Path, name: str, text: str = '{"a": 1}\n') -> Path:
    path = inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_folder_names_the_adapter(inbox: Path) -> None:
    for name in ("root.jsonl", "support/x.jsonl", "support/tone/y.jsonl"):
        put(inbox, name)
    assert {name: entry.adapter for name, entry in scan(inbox).items()} == {
        "root.jsonl": "default/main",
        "support/x.jsonl": "support/main",
        "support/tone/y.jsonl": "support/tone",
    }


def test_half_made_names_sidecars_and_the_rejected_are_left_alone(inbox: Path) -> None:
    for name in ("x.jsonl.part", ".hidden.jsonl", "x.job.json", "rejected/drop-1/x.jsonl", "support/.tmp.jsonl"):
        put(inbox, name)
    assert scan(inbox) == {}


def test_a_sidecar_that_lies_beside_is_named(inbox: Path) -> None:
    put(inbox, "x.job.json", "{}")
    put(inbox, "x.jsonl")
    assert scan(inbox)["x.jsonl"].sidecar == "x.job.json"


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda inbox: (inbox / "x.jsonl").mkdir(), "folder"),
        (lambda inbox: os.mkfifo(inbox / "x.jsonl"), "FIFO"),
        (lambda inbox: (inbox / "x.jsonl").symlink_to("/etc/hostname"), "symbolic link"),
        (lambda inbox: (inbox / "notes.txt").write_text("x"), "does not end in .jsonl"),
        (lambda inbox: (inbox / "Bad Name").mkdir(), "persona"),
        (lambda inbox: (inbox / "shared").mkdir(), "persona"),
        (lambda inbox: (inbox / "a" / "b" / "c").mkdir(parents=True), "third level"),
        (lambda inbox: (inbox / "pictures.drop").write_text("x"), "no folder"),
        (lambda inbox: (inbox / "pictures.drop").symlink_to("/etc"), "symbolic link"),
    ],
)
def test_what_can_never_be_a_drop_says_why(inbox: Path, make: object, word: str) -> None:
    make(inbox)  # type: ignore[operator]
    [entry] = scan(inbox).values()
    assert word in entry.problem


def entry(**fields: object) -> Entry:
    given: dict[str, object] = {"source": "x.jsonl", "adapter": "a/main", "device": 1, "inode": 1, "size_bytes": 9, "mtime_ns": 1, "sidecar": None}
    given |= {"renamed": False, "quiet_s": 0.0, "parses": False, **fields}
    return Entry(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({"renamed": True}, True),
        ({"parses": True, "quiet_s": 0.5}, False),
        ({"parses": True, "quiet_s": 1.5}, True),
        ({"parses": False, "quiet_s": 20.0}, False),
        ({"parses": False, "quiet_s": 31.0}, True),
        ({"problem": "a FIFO", "quiet_s": 0.1}, False),
        ({"problem": "a FIFO", "quiet_s": 2.0}, True),
    ],
)
def test_only_a_rename_or_quiet_with_a_whole_last_line_makes_a_file_whole(fields: dict[str, object], whole: bool) -> None:
    assert is_whole(entry(**fields), FACTS) is whole


def test_a_folder_is_a_drop_where_its_name_says_so_and_what_lies_in_it_is_none(inbox: Path) -> None:
    put(inbox, "support/pictures.drop/rows.jsonl")
    put(inbox, "support/pictures.drop/inner/more.jsonl")
    put(inbox, "support/pictures.job.json", "{}")
    [(name, found)] = scan(inbox).items()
    assert (name, found.adapter, found.problem, found.sidecar) == ("support/pictures.drop", "support/main", "", "support/pictures.job.json")
    assert not found.parses, "only a rename into place or a long quiet time makes a folder whole"


def test_a_folder_is_as_quiet_as_the_last_file_in_it(inbox: Path) -> None:
    put(inbox, "pictures.drop/rows.jsonl")
    seen = Inbox(inbox)
    [before] = seen.scan(set(), 0.0)
    put(inbox, "pictures.drop/images/one.png")
    [after] = seen.scan(set(), 0.0)
    assert after.quiet_s <= before.quiet_s + 0.5
    [renamed] = seen.scan({str(inbox / "pictures.drop")}, 0.0)
    assert is_whole(renamed, FACTS)


def test_a_file_that_still_grows_is_not_quiet(inbox: Path) -> None:
    path = put(inbox, "x.jsonl")
    seen = Inbox(inbox)
    seen.scan(set(), 0.0)
    with open(path, "a") as file:
        file.write('{"half": ')
    [found] = seen.scan(set(), 0.0)
    assert found.quiet_s < 0.5
    assert not found.parses


def test_a_renamed_file_is_known_until_it_is_taken(inbox: Path) -> None:
    path = put(inbox, "x.jsonl")
    seen = Inbox(inbox)
    assert [one.renamed for one in seen.scan({str(path)}, 1.0)] == [True]
    assert [one.renamed for one in seen.scan(set(), 1.0)] == [True]
    path.unlink()
    seen.scan(set(), 1.0)
    put(inbox, "x.jsonl")
    assert [one.renamed for one in seen.scan(set(), 1.0)] == [False]


@pytest.mark.parametrize(
    ("text", "parses"),
    [('{"a": 1}\n', True), ('{"a": 1}', True), ('{"a": 1}\n{"b": ', False), ("", False), ("\n\n", False), ('{"a": "' + "x" * 300_000 + '"}\n\n', True)],
)
def test_the_last_line_is_read_whole_however_long(inbox: Path, text: str, parses: bool) -> None:
    assert last_line_parses(put(inbox, "x.jsonl", text)) is parses


def test_several_adapters_take_turns_each_from_its_oldest(inbox: Path) -> None:
    for number in range(5):
        os.utime(put(inbox, f"ann/{number}.jsonl"), ns=(0, number))
    for number in range(2):
        os.utime(put(inbox, f"bob/{number}.jsonl"), ns=(0, 100 + number))
    assert list(scan(inbox)) == ["ann/0.jsonl", "bob/0.jsonl", "ann/1.jsonl", "bob/1.jsonl", "ann/2.jsonl", "ann/3.jsonl", "ann/4.jsonl"]


def test_of_a_burst_the_oldest_are_looked_at_and_all_are_counted(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.inbox.MAX_ENTRIES", 10)
    monkeypatch.setattr("daemon.inbox.MAX_KEPT", 30)
    for number in range(100):
        os.utime(put(inbox, f"{number:03d}.jsonl"), ns=(0, number))
    seen = Inbox(inbox)
    order: list[str] = []

    def take_some() -> bool:
        found = seen.scan(set(), 0.0)  # may be none: walks are spaced by what they cost
        assert len(found) <= 10
        order.extend(entry.source for entry in found[:4])
        for entry in found[:4]:
            (inbox / entry.source).unlink()
        assert seen.num_entries <= 100
        return not found and seen.num_entries == 0 and len(order) == 100

    end_s = time.monotonic() + 20
    while not take_some():
        assert time.monotonic() < end_s, order
    assert order == [f"{number:03d}.jsonl" for number in range(100)]


def test_files_that_cannot_be_taken_yet_do_not_hide_the_others(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.inbox.MAX_ENTRIES", 5)
    for number in range(20):
        os.utime(put(inbox, f"{number:03d}.jsonl", '{"half": '), ns=(0, number))
    os.utime(put(inbox, "whole.jsonl"), ns=(0, 99))
    seen = Inbox(inbox)
    looked = {entry.source: entry.parses for _ in range(5) for entry in seen.scan(set(), 0.0)}
    assert len(looked) == 21
    assert looked["whole.jsonl"]


def test_a_long_walk_is_not_repeated_before_it_has_paid(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inbox, "a.jsonl")
    seen = Inbox(inbox)
    seen.scan(set(), 0.0)
    seen._walked.cost_s = 3600.0
    put(inbox, "b.jsonl")
    assert [entry.source for entry in seen.scan(set(), 0.0)] == ["a.jsonl"], "what is known is looked at meanwhile"
    (inbox / "a.jsonl").unlink()
    seen.scan(set(), 0.0)
    assert [entry.source for entry in seen.scan(set(), 0.0)] == ["b.jsonl"], "with nothing left to look at it is worth it"


def test_without_a_reason_no_folder_is_listed_again(inbox: Path) -> None:
    seen = Inbox(inbox)
    assert seen.scan(set(), 0.0) == ()
    path = put(inbox, "a.jsonl")
    assert seen.scan(set(), 0.0, is_due=False) == ()
    assert [entry.renamed for entry in seen.scan({str(path)}, 0.0, is_due=False)] == [True]


def test_a_folder_counts_with_all_that_lies_in_it(inbox: Path) -> None:
    put(inbox, "pictures.drop/rows.jsonl", "x" * 1000)
    put(inbox, "pictures.drop/images/one.png", "y" * 5000)
    [found] = scan(inbox, renamed={str(inbox / "pictures.drop")}).values()
    assert found.held_bytes >= 6000
    assert Inbox(inbox).folders == set()
