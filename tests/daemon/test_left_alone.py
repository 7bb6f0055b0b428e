"""What must not end the daemon, block its tick, or be held against a job: full disks, foreign files, a machine without room."""

import errno
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from core.exits import ChildExit
from core.measures import Measure
from core.records import ChildRef, Kind
from daemon import children, machine, metrics, worker
from daemon.children import Children
from daemon.intake import Gates
from daemon.main import Loop
from daemon.observe import Observer
from daemon.vigil import Ending
from daemon.worker import BackgroundWorker, Chore, ChoreDone
from store.bases import BASE, base_folder
from store.commands import read_commands
from store.paths import Home

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import AT, facts_of, index_of

FULL = OSError(errno.ENOSPC, "No space left on device")


class Nobody:
    """Does whatever it is asked, and nothing happens."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Broken:
    """Whatever it is asked for meets a full disk."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise FULL

        return fail


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


# ---------------------------------------------------------------- the tick


def loop_of(folder: Path, **parts: Any) -> Loop:
    index = index_of(folder)
    observer = Nobody()
    observer.look = lambda: facts_of(index)  # type: ignore[attr-defined]
    observer.ledger = lambda name: []  # type: ignore[attr-defined]
    everybody: dict[str, Any] = {field.name: Nobody() for field in fields(Loop)} | {"index": index, "observer": observer, "merged": {}}
    everybody["gates"] = Gates(Nobody(), Nobody())  # type: ignore[arg-type]
    return Loop(**(everybody | parts))


def test_a_gate_or_link_that_cannot_be_started_is_told_and_the_daemon_goes_on(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, links=Broken())
    loop.tick()
    assert loop.index.incident is not None
    assert loop.index.incident.code == "DISK_FULL"


def test_a_reload_that_meets_a_full_disk_is_told_and_the_daemon_goes_on(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, reloader=Broken())
    loop.reload()
    assert loop.index.incident is not None
    assert loop.index.incident.code == "DISK_FULL"


# ---------------------------------------------------------------- what is looked at


def test_a_wish_that_may_not_be_read_is_moved_aside_and_the_next_one_counts(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.commands / "a-folder.json").mkdir()
    (home.commands / "of-root.json").write_text("{}")
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) if path.name != "of-root.json" else deny(path))
    assert list(read_commands(home)) == []
    assert sorted(path.name for path in home.commands.iterdir()) == ["a-folder.bad", "of-root.bad"]


def deny(path: Path) -> bytes:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_base_that_is_damaged_or_being_replaced_lets_drops_wait(tmp_path: Path) -> None:
    index = index_of(tmp_path, models_dir="models", model_name="small")
    index.backend = type(index.backend)(name="peft", why="a test")
    folder = base_folder(index.config)
    folder.mkdir(parents=True)
    (folder / "SEALED").write_text("")
    index.base_sha256 = "known"
    index.look_for_base()
    assert index.base_sha256 is None, "its base.json is missing"
    (folder / BASE).write_text("{")
    index.look_for_base()
    assert index.base_sha256 is None, "it is not whole"


def test_a_damaged_wish_for_a_target_is_no_wish(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    observer = Observer(index, "test", Nobody(), Nobody(), Nobody())  # type: ignore[arg-type]
    folder = index.home.target("local")
    folder.mkdir(parents=True)
    (folder / "desired.json").write_text('{"fence": 4')
    (seen,) = observer.targets()
    assert seen.desired is None


def test_a_count_of_another_version_of_lorad_is_left_out_of_the_metrics() -> None:
    text = metrics.text_of([Measure("up", 1.0), Measure("counted_by_a_newer_one_total", 3.0)])
    assert "lorad_up 1" in text
    assert "newer" not in text


# ---------------------------------------------------------------- children


def ref(run: str) -> ChildRef:
    return ChildRef(run=run, kind=Kind.TRAIN, instance="this", slot=0, started_at=AT)


def run_folder(home: Home, name: str = "01-train") -> Path:
    run = home.runs("job-1") / name
    run.mkdir(parents=True)
    return run


def test_a_child_that_the_machine_could_not_start_is_no_attempt_and_none_is_tried_for_a_while(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made, run, now = Children(home, 1), run_folder(home), [100.0]
    monkeypatch.setattr(children, "monotonic_s", lambda: now[0])
    monkeypatch.setattr(children, "spawn", lambda *_, **__: (_ for _ in ()).throw(BlockingIOError(errno.EAGAIN, "no process to be had")))
    with pytest.raises(BlockingIOError):
        made.start("job-1", run, ["trainer"], 0, 0)
    seen = made.look("job-1", ref(run.name))
    assert (seen.alive, seen.status) == (False, ChildExit.STOPPED)
    assert made.free_slots() == ()
    now[0] += children.REFUSED_S
    assert made.free_slots() == (0,)


def test_a_child_whose_lock_cannot_be_signed_is_known_all_the_same(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made, run = Children(home, 1), run_folder(home)
    asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    monkeypatch.setattr(children, "spawn", lambda *_, **__: asleep)
    monkeypatch.setattr(os, "pwrite", lambda fd, text, at: deny(run) if b'"pid"' in text else len(text))
    try:
        made.start("job-1", run, ["trainer"], 0, 0)
        assert made.look("job-1", ref(run.name)).alive
    finally:
        asleep.kill()
        asleep.wait()


def test_ends_are_not_remembered_for_ever(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Children(home, 1)
    monkeypatch.setattr(children, "MOST_ENDED", 2)
    for number in range(4):
        ended = subprocess.Popen(["true"], start_new_session=True)
        monkeypatch.setattr(children, "spawn", lambda *_, ended=ended, **__: ended)
        run = home.runs(f"job-{number}") / "01-rank"
        run.mkdir(parents=True)
        made.start(f"job-{number}", run, ["ranking"], None, 0)
        ended.wait()
        assert not made.look(f"job-{number}", ref("01-rank")).alive
    assert list(made._ended) == ["job-2", "job-3"]


class Held:
    """A process that the kernel holds: no signal ends it, and waiting for it never returns."""

    pid, returncode = 4711, None

    def __init__(self) -> None:
        self.killed = 0

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.killed += 1

    def wait(self, timeout: float | None = None) -> int:
        assert timeout is not None, "it would be waited for for ever"
        raise subprocess.TimeoutExpired("held", timeout)


def test_a_stack_reader_that_the_kernel_holds_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Held()
    monkeypatch.setattr(machine, "read_stack", lambda *_: spy)
    Ending(tmp_path, Held(), "it hangs").close()  # type: ignore[arg-type]
    assert spy.killed == 1


# ---------------------------------------------------------------- chores


def test_a_chore_that_the_kernel_holds_is_not_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made, held = BackgroundWorker(home), Held()
    monkeypatch.setattr(worker, "spawn", lambda *_, **__: held)
    monkeypatch.setitem(worker.PATIENCE_S, worker.WORK, -1.0)
    made.submit(Chore(kind="snapshot", key="a"))
    assert made.look() == made.look() == []
    assert held.killed > 0
    made._running.clear()


def test_a_chore_whose_folder_was_removed_does_not_hold_up_the_next(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made, ended = BackgroundWorker(home), subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(worker, "spawn", lambda *_, **__: ended)
    made.submit(Chore(kind="snapshot", key="a"))
    made.look()
    for left in (home.tmp / "chore-000001").iterdir():
        left.unlink()
    (done,) = made.look()
    assert not done.ok


def test_making_room_and_alerts_wait_for_no_backup(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made = BackgroundWorker(home, limit=2)
    monkeypatch.setattr(worker, "spawn", lambda *_, **__: Held())
    for key in "abc":
        made.submit(Chore(kind="backup", key=key))
        made.look()
    assert not made.submit(Chore(kind="backup", key="d")), "the lane is full"
    assert made.submit(Chore(kind="alert", key="alert"))
    assert made.submit(Chore(kind="trash", key="trash"))
    made.look()
    assert {at_work.chore.kind for at_work in made._running.values()} == {"alert", "trash", "backup"}
    made._running.clear()


def test_a_listener_that_meets_a_full_disk_keeps_nobody_from_hearing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made, heard = BackgroundWorker(home), list[str]()
    monkeypatch.setattr(made, "look", lambda: [ChoreDone(kind=kind, key=kind, ok=True) for kind in ("statistics", "alert")])
    made.hear("statistics", Broken().anything)
    made.hear("alert", lambda done: heard.append(done.kind))
    with pytest.raises(OSError, match="No space"):
        made.turn()
    assert heard == ["alert"]
