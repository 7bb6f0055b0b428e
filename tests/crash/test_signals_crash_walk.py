"""The life of signals, from the mirror of a spool to the gate's last word, ended at every change of the disk that the daemon makes.

Killed there, or refused by the disk: after a new start the same goes on to the same end, with every signal once, in one drop.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from crashpoints import Crash, CrashPoints

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

from signal_home import ADAPTER, SignalHome, signal

from core.commands import Command, CommandKind
from core.signals import Added, Standing
from store.commands import put_command, read_answer, read_commands
from store.feedback import Shelf
from store.keys import ensure_keys
from store.rowprints import lines_of

SECRET = "the password is hunter2"
TICKS = 60


@pytest.fixture(autouse=True)
def _no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.batches.REST_S", 0.0)


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


# ---------------------------------------------------------------- what people asked


class Asked:
    """An import, and a decision about a signal that a batch may hold which is being made."""

    def __init__(self, folder: Path, points: CrashPoints) -> None:
        folder.mkdir(parents=True)
        self.points = points
        self.ground = ground = SignalHome(folder)
        ensure_keys(ground.home.keys)
        ground.spool([signal(number) for number in range(6)], first=1)
        ground.turn()
        rows = [{"kind": "import", "messages": [{"role": "user", "content": f"How many is {number}?"}], "answer": f"It is {number}."} for number in range(3)]
        (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        ground.feedback.begin_batch(ADAPTER, "enough", "key", ground.now)
        asked = ({"what": "import", "files": str(folder / "chats.jsonl"), "consent": "yes"}, {"what": "reject", "id": signal(1).id})
        self.answers = [put_command(ground.home, self._command(number, details)) for number, details in enumerate(asked)]

    def _command(self, number: int, details: dict[str, str]) -> Command:
        made = {"kind": CommandKind.FEEDBACK, "adapter": ADAPTER, "actor": "ada", "details": details}
        now = self.ground.now
        return Command(id=f"command-{number}", made_at=now, expires_at=now + timedelta(minutes=1), **made)  # type: ignore[arg-type]

    def go_on(self) -> None:
        for _ in range(TICKS):
            with suppress(OSError):
                self.ground.turn(1)
                for command in read_commands(self.ground.home):
                    self.ground.feedback.apply(command, self.ground.now)
            if all(path.exists() for path in self.answers) and not self._lies_there():
                return
        raise AssertionError(f"never answered: {self._lies_there()}")

    def _lies_there(self) -> list[Path]:
        home = self.ground.home
        waiting = [path for path in home.commands.rglob("command-*.json") if path not in self.answers]
        return [*waiting, *(home.root / "feedback").glob(".coming/*"), *(home.root / "feedback").rglob("*.wanted.json")]

    def check(self) -> None:
        shelf = Shelf(self.ground.home)
        counts = shelf.counts()[ADAPTER]
        assert counts == self.ground.counts(), "a new start sees the same"
        imported, rejected = (read_answer(path) for path in self.answers)
        assert imported is not None
        assert rejected is not None
        assert counts.rows + counts.queued + counts.rejected == 6 + (3 if imported.ok else 0), imported
        assert counts.arrived == 6 + (3 if imported.ok else 0), "each once"
        assert (rejected.ok, rejected.code) == ((True, "") if counts.rejected else (False, "SIGNAL_QUEUED"))
        (batch,) = shelf.batches(ADAPTER)
        assert rejected.ok == (signal(1).id not in batch.rows), "nobody is told that it is out while it is in"


def walk_asked(folder: Path, *, fail: bool, step: int) -> int:
    number, walked = 1, 0
    while True:
        points = CrashPoints(number, fail=fail)
        asked = Asked(folder / str(number), points)
        with dying(), points:
            asked.go_on()
        if points.met:
            asked.ground.restart()
            asked.go_on()
        asked.check()
        if not points.met:
            return walked
        number, walked = number + step, walked + 1


@pytest.mark.parametrize("fail", [False, True], ids=["killed", "refused by the disk"])
def test_wishes_broken_off_at_some_changes_of_the_disk_are_answered_and_done_once(tmp_path: Path, fail: bool) -> None:
    assert walk_asked(tmp_path, fail=fail, step=5) > 3


@pytest.mark.full
@pytest.mark.parametrize("fail", [False, True], ids=["killed", "refused by the disk"])
def test_wishes_broken_off_at_any_change_of_the_disk_are_answered_and_done_once(tmp_path: Path, fail: bool) -> None:
    assert walk_asked(tmp_path, fail=fail, step=1) > 20
