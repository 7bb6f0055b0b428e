"""The life of signals, from the mirror of a spool to the gate's last word, ended at every change of the disk that the daemon makes.

Killed there, or refused by the disk: after a new start the same goes on to the same end, with every signal once, in one drop.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from crashpoints import Crash, CrashPoints

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

from signal_home import ADAPTER, SignalHome, signal

from core.signals import Added, Standing
from store.feedback import Shelf
from store.rowprints import lines_of

SECRET = "the password is hunter2"
TICKS = 60


@pytest.fixture(autouse=True)
def _no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.feedback.REST_S", 0.0)


class Life:
    """Six corrections, one with a secret: stored, made into a drop, refused for the secret, made again without it, accepted."""

    def __init__(self, folder: Path, points: CrashPoints) -> None:
        folder.mkdir(parents=True)
        self.points = points
        self.ground = SignalHome(folder)
        self.ground.spool([signal(number, **({"correct_output": SECRET} if number == 3 else {})) for number in range(6)], first=1)
        self.seen: list[list[str]] = []  # the signals of each drop that the gate took

    def go_on(self) -> None:
        for _ in range(TICKS):
            if self.is_done():
                return
            with suppress(OSError):  # a disk that refuses is told by the tick, and the next one goes on
                self.ground.feedback.begin_batch(ADAPTER, "enough", "key", self.ground.now)
                self.ground.turn(1)
            with self.points.outside():
                self._gate()
        raise AssertionError(f"never done: {self.ground.counts()}, {self.seen}")

    def is_done(self) -> bool:
        counts = self.ground.counts()
        is_settled = [bool(batch.drop) for batch in self.ground.feedback.shelf.batches(ADAPTER)] == [True, True]
        return is_settled and (counts.queued, counts.quarantined) == (5, 1) and self.ground.ack() == 6

    def _gate(self) -> None:
        for file in self.ground.inbox():
            lines = [json.loads(line) for line in lines_of(file)]
            self.seen.append([line["id"] for line in lines])
            bad = [number for number, line in enumerate(lines, 1) if SECRET in str(line)]
            if bad:
                self.ground.refuse(file, {"id": "D07", "lines": bad, "message": "a password"})
            else:
                self.ground.accept(file)

    def outcome(self) -> object:
        shelf = Shelf(self.ground.home)
        assert shelf.counts()[ADAPTER] == self.ground.counts(), "a new start sees the same"
        batches = [(len(batch.rows), batch.refused) for batch in shelf.batches(ADAPTER)]
        held = [(note.id, note.code) for note in shelf.notes(ADAPTER, Standing.QUARANTINED)]
        return self.seen, batches, held, shelf.counts()[ADAPTER].arrived


def live(folder: Path, points: CrashPoints) -> object:
    """The whole life, with a crash somewhere in it; after that no more."""
    with points.outside():
        life = Life(folder, points)
    with dying(), points:
        life.go_on()
    if points.met:
        life.points = CrashPoints()
        life.ground.restart()
        life.go_on()
    return life.outcome()


@contextmanager
def dying() -> Iterator[None]:
    with suppress(Crash):
        yield


def walk(folder: Path, *, fail: bool, step: int) -> int:
    wanted = live(folder / "whole", CrashPoints())
    number, walked = 1, 0
    while True:
        points = CrashPoints(number, fail=fail)
        found = live(folder / str(number), points)
        if not points.met:
            return walked
        assert found == wanted, f"after {points.met} (change {number})"
        number, walked = number + step, walked + 1


@pytest.mark.parametrize("fail", [False, True], ids=["killed", "refused by the disk"])
def test_signals_broken_off_at_some_changes_of_the_disk_are_all_there_once(tmp_path: Path, fail: bool) -> None:
    assert walk(tmp_path, fail=fail, step=7) > 5


@pytest.mark.full
@pytest.mark.parametrize("fail", [False, True], ids=["killed", "refused by the disk"])
def test_signals_broken_off_at_any_change_of_the_disk_are_all_there_once(tmp_path: Path, fail: bool) -> None:
    assert walk(tmp_path, fail=fail, step=1) > 40


def test_the_walk_finds_an_acknowledgment_that_comes_before_the_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk bites: where the shelf says that it stored what it did not write yet, signals are lost."""
    real = Shelf.add

    def promise(self, signals, now, limits):  # type: ignore[no-untyped-def]
        try:
            return real(self, signals, now, limits)
        except OSError:
            return Added()

    monkeypatch.setattr(Shelf, "add", promise)
    with pytest.raises(AssertionError, match=r"never done|change"):
        walk(tmp_path, fail=True, step=1)
