"""A target that is another box now: its lines are stored though their numbers are lower, and it is never told of the numbers of the one before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.signals import Ack, Signal, SignalKind, Spooled
from core.wire import Active
from daemon.spools import Spools
from store import codec
from store.paths import Home
from store.targets import mirror

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
