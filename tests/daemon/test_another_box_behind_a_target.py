"""A target that is another box now: its lines are stored though their numbers are lower, and it is never told of the numbers of the one before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.signals import Ack, Signal, SignalKind, Spooled
from core.wire import Active
from daemon.spools import Spools
from store import codec
from store.paths import Home
from store.targets import SPOOL_BOX, SPOOL_LEFT, mirror

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def come(home: Home, box: str, number: int, *names: str) -> None:
    """A segment, and whose it is."""
    folder = mirror(home, "near") / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    speaks(home, box)
    signals = [Signal(id=name, kind=SignalKind.MISTAKE, persona="p", domain="d", input=(), at=NOW) for name in names]
    lines = [codec.dump(Spooled(number=number + place, signal=signal)) for place, signal in enumerate(signals)]
    (folder / f"{number:012d}.jsonl").write_text("\n".join(lines) + "\n")


def put_aside(home: Home, number: int) -> Path:
    """What the link does with the lines of a box that is gone."""
    folder = home.target("near") / SPOOL_LEFT / f"{number:06d}"
    folder.parent.mkdir(exist_ok=True)
    (mirror(home, "near") / "spool").rename(folder)
    return folder


def speaks(home: Home, box: str) -> None:
    folder = mirror(home, "near")
    folder.mkdir(parents=True, exist_ok=True)
    codec.write(folder / "active.json", Active(box=box, sequence=0, fence_seen=0, at=NOW))


def told(home: Home) -> Ack:
    return codec.read(Ack, home.target("near") / "ack.json")


def test_its_lines_are_stored_and_acknowledged_by_its_own_numbers(home: Home) -> None:
    stored: list[str] = []
    told_of: list[str] = []
    spools = Spools(home, lambda signals, now: stored.extend(signal.id for signal in signals), told_of.append)
    come(home, "first", 100, "a", "b")
    spools.turn(["near"], NOW)
    assert told(home) == Ack(box="first", number=101)
    (mirror(home, "near") / "spool" / f"{100:012d}.jsonl").unlink()

    speaks(home, "second")
    for each in (spools, Spools(home, spools.take, told_of.append)):  # also after a restart
        each.turn(["near"], NOW)
        assert told(home) == Ack(box="first", number=101), "the second box would delete lines that nobody fetched"
    come(home, "second", 7, "c")
    spools.turn(["near"], NOW)
    assert told(home) == Ack(box="second", number=7)
    come(home, "second", 8, "d")
    spools.turn(["near"], NOW)
    assert stored == ["a", "b", "c", "d"]
    assert told_of == []
    assert told(home) == Ack(box="second", number=8)


def test_lines_that_are_put_aside_are_stored_first_and_acknowledged_to_nobody(home: Home) -> None:
    stored: dict[str, None] = {}
    told_of: list[str] = []
    spools = Spools(home, lambda signals, now: stored.update(dict.fromkeys(signal.id for signal in signals)), told_of.append)
    come(home, "first", 100, "a", "b")
    spools.turn(["near"], NOW)
    come(home, "first", 102, "c")
    folder = put_aside(home, 1)
    (home.target("near") / SPOOL_BOX).write_text("second")
    come(home, "second", 7, "d")
    for _ in range(4):
        spools.turn(["near"], NOW)
    assert list(stored) == ["a", "b", "c", "d"]
    assert told(home) == Ack(box="second", number=7)
    assert (folder.exists(), told_of) == (False, [])


def test_a_box_that_speaks_before_its_lines_are_here_is_told_of_no_number_of_the_one_before(home: Home) -> None:
    """What it says of itself comes over first; the mirror holds lines of the other until the link has put them aside."""
    stored: dict[str, None] = {}
    spools = Spools(home, lambda signals, now: stored.update(dict.fromkeys(signal.id for signal in signals)), lambda what: None)
    (home.target("near")).mkdir(parents=True)
    (home.target("near") / SPOOL_BOX).write_text("first")
    come(home, "first", 100, "a")
    spools.turn(["near"], NOW)
    come(home, "first", 101, "b")
    speaks(home, "second")
    spools.turn(["near"], NOW)
    assert told(home) == Ack(box="first", number=101)
    put_aside(home, 1)
    (home.target("near") / SPOOL_BOX).write_text("second")
    come(home, "second", 7, "c")
    for _ in range(2):
        for _ in range(4):
            spools.turn(["near"], NOW)
        spools = Spools(home, spools.take, spools.warn)  # and after a restart
        assert (list(stored), told(home)) == (["a", "b", "c"], Ack(box="second", number=7))


def test_a_damaged_line_that_is_put_aside_waits_for_a_person_and_holds_up_nothing_else(home: Home) -> None:
    stored: list[str] = []
    told_of: list[str] = []
    spools = Spools(home, lambda signals, now: stored.extend(signal.id for signal in signals), told_of.append)
    come(home, "first", 100, "a", "b")
    folder = put_aside(home, 1)
    whole = (folder / f"{100:012d}.jsonl").read_text()
    (folder / f"{100:012d}.jsonl").write_text(whole.replace('"b"', "b", 1))
    come(home, "other", 5, "c")
    put_aside(home, 2)
    come(home, "second", 7, "d")
    for _ in range(6):
        spools.turn(["near"], NOW)
    assert stored == ["a", "c", "d"]
    assert (len(told_of), "000001" in told_of[0], folder.exists()) == (1, True, True)
    (folder / f"{100:012d}.jsonl").write_text(whole)
    for _ in range(3):
        spools.turn(["near"], NOW)
    assert (stored, folder.exists()) == (["a", "c", "d", "b"], False)
