"""Background chores: one after another, bounded, each alone in a child, and never in the daemon's way."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import worker
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.paths import Home

DEADLINE_S = 30.0
CHILD = """
import os, sys, time
from pathlib import Path
from daemon import chores

def nothing(home, spec): return {"message": "done", "number": spec["number"]}
def fails(home, spec): raise OSError(28, "No space left on device")
def dies(home, spec): os._exit(9)
def waits(home, spec):
    open(spec["mark"], "w").close()
    while True: time.sleep(0.01)

chores.TABLE.update({name: f"__main__:{name}" for name in ("nothing", "fails", "dies", "waits")})
sys.exit(chores.main(Path(sys.argv[1])))
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundWorker]:
    """A worker with room for three, whose children know these chores."""
    (tmp_path / "own_chores.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(worker, "CHILD", "own_chores")
    home = Home(tmp_path / "home")
    home.prepare()
    found = BackgroundWorker(home, limit=3)
    yield found
    found.close()


def chore(name: str, key: str = "", **spec: Any) -> Chore:
    return Chore(kind=name, key=key or name, spec=spec)


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return value


def ended(made: BackgroundWorker, count: int) -> list[ChoreDone]:
    found: list[ChoreDone] = []

    def enough() -> bool:
        found.extend(made.look())
        return len(found) >= count

    until(enough, f"only {found}")
    return found


def test_chores_run_one_after_another_and_each_is_heard_once(made: BackgroundWorker) -> None:
    heard: list[ChoreDone] = []
    made.hear("nothing", heard.append)
    for number in range(3):
        assert made.submit(chore("nothing", f"k{number}", number=number))

    def all_heard() -> bool:
        made.turn()
        assert len([path for path in made._home.tmp.iterdir() if path.name.startswith("chore-")]) <= 1, "one at a time"
        return len(heard) == 3

    until(all_heard, "three are heard")
    assert [(done.key, done.ok, done.message, done.result["number"]) for done in heard] == [(f"k{number}", True, "done", number) for number in range(3)]
    assert list(made._home.tmp.iterdir()) == [], "their folders are gone"


def test_a_key_waits_once_and_the_queue_is_bounded(made: BackgroundWorker) -> None:
    assert made.submit(chore("nothing", "a", number=1))
    assert made.submit(chore("nothing", "a", number=2)), "it waits already"
    assert made.submit(chore("nothing", "b", number=3))
    assert made.submit(chore("nothing", "c", number=4))
    assert not made.submit(chore("nothing", "d", number=5)), "full"
    assert [done.result["number"] for done in ended(made, 3)] == [1, 3, 4]
    assert made.submit(chore("nothing", "d", number=5))


def test_what_fails_or_dies_is_told_and_the_next_one_runs(made: BackgroundWorker) -> None:
    for name in ("fails", "dies", "nothing"):
        made.submit(chore(name, number=7))
    fails, dies, nothing = ended(made, 3)
    assert (fails.ok, fails.result["code"]) == (False, "CHORE_FAILED")
    assert "No space left on device" in fails.message
    assert (dies.ok, dies.message) == (False, "dies left no result: its child ended with 9")
    assert nothing.ok


def test_a_chore_that_hangs_is_ended_and_looking_never_waits_for_it(made: BackgroundWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setitem(worker.PATIENCE_S, worker.WORK, 2.0)
    made.submit(chore("waits", mark=str(mark)))
    made.look()
    until(mark.exists, "it is at work")
    began = time.monotonic()
    made.look()
    assert time.monotonic() - began < 0.1
    (done,) = ended(made, 1)
    assert (done.ok, done.message) == (False, "waits left no result: it hung and was ended")


def test_closing_ends_what_is_at_work(made: BackgroundWorker, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    made.submit(chore("waits", mark=str(mark)))
    made.look()
    until(mark.exists, "it is at work")
    process = made._running[worker.WORK].process
    made.close()
    assert process.poll() is not None
    assert list(made._home.tmp.iterdir()) == []
