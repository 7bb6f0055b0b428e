"""The gate child as the daemon holds it: warmed, asked, killed, ended with everything that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.gate import GateSpec
from daemon.gatekeeper import BACKGROUND, Gatekeeper
from store.paths import Home

ROW = '{"messages": [{"role": "user", "content": "What is %d?"}, {"role": "assistant", "content": "It is number %d."}]}\n'
DEADLINE_S = 60.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def keeper(home: Home) -> Iterator[Gatekeeper]:
    made = Gatekeeper(home)
    yield made
    made.close()


def spec(home: Home, drop: str = "drop-1", **changed: object) -> GateSpec:
    file = home.root / "rows.jsonl"
    file.write_text("".join(ROW % (number, number) for number in range(12)))
    asked = {"drop": drop, "adapter": "a/main", "file": str(file), "schema_id": "chat_sft_v1", "level": "quick"}
    return GateSpec(**(asked | {"max_row_bytes": 1 << 20, "max_file_bytes": 1 << 30} | changed))  # type: ignore[arg-type]


def pid(keeper: Gatekeeper) -> int:
    assert keeper._process is not None
    return keeper._process.pid


def test_it_answers_one_drop_after_another(home: Home, keeper: Gatekeeper) -> None:
    for drop in ("drop-1", "drop-2"):
        keeper.submit(spec(home, drop))
        assert keeper.is_at(drop)
        wait_until(lambda: keeper.look().result)
        result = keeper.look().result
        assert result is not None
        assert (result.drop, result.verdict) == (drop, "accepted")
        assert (keeper.folder_of(drop) / "drop" / "SEALED").exists()
        keeper.clear(drop)
    assert not keeper.is_busy()
    assert list(home.tmp.iterdir()) == []


def test_what_warms_it_leaves_nothing_and_is_no_drop(home: Home, keeper: Gatekeeper) -> None:
    keeper.warm(spec(home, "warming", level="standard"))
    assert not keeper.is_busy()
    wait_until(lambda: keeper.look().alive and not list(home.tmp.iterdir()))
    assert "verdict=accepted" in (home.root / "gate.log").read_text()


def test_a_drop_that_comes_while_it_is_warmed_is_answered(home: Home, keeper: Gatekeeper) -> None:
    keeper.warm(spec(home, "warming"))
    keeper.submit(spec(home))
    wait_until(lambda: keeper.look().result)
    assert keeper.look().drop == "drop-1"


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSEGV, "by SIGSEGV"), (signal.SIGKILL, "out of memory"), (signal.SIGABRT, "validation.memory_mb"), (signal.SIGXCPU, "validation.cpu_s")],
)
def test_it_says_how_its_child_died_and_the_log_of_that_child_is_kept(home: Home, keeper: Gatekeeper, number: signal.Signals, words: str) -> None:
    keeper.submit(spec(home))
    wait_until(lambda: "gate begins" in (home.root / "gate.log").read_text())
    os.kill(pid(keeper), signal.SIGSTOP)  # it may have answered already: what counts is how it ends
    (keeper.folder_of("drop-1") / "result.json").unlink(missing_ok=True)
    os.kill(pid(keeper), number)
    os.kill(pid(keeper), signal.SIGCONT)
    wait_until(lambda: keeper.look().died)
    assert words in keeper.look().end
    assert any("gate begins" in line for line in keeper.log_tail())
    keeper.submit(spec(home))
    assert "gate begins" in (home.root / "gate.log.1").read_text()
    wait_until(lambda: keeper.look().result)


def test_ending_it_at_work_does_not_wait_for_the_work(home: Home, keeper: Gatekeeper) -> None:
    keeper.submit(spec(home))
    started = time.monotonic()
    keeper.close()
    assert time.monotonic() - started < 4.0


PARENT = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"


def test_processes_that_its_child_has_started_end_with_it(home: Home, keeper: Gatekeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn(words: list[str], **streams: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True, **streams)

    monkeypatch.setattr("daemon.gatekeeper.spawn", spawn)
    keeper.ensure()
    log = home.root / "gate.log"
    wait_until(lambda: log.read_text().endswith("\n"))
    started = psutil.Process(int(log.read_text()))
    keeper.close()
    wait_until(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE)


def test_the_background_gate_has_a_log_and_folders_of_its_own(home: Home) -> None:
    keeper = Gatekeeper(home, BACKGROUND)
    try:
        keeper.submit(spec(home))
        assert keeper.folder_of("drop-1").name.startswith("deep-drop-1")
        wait_until(lambda: keeper.look().result)
        assert (home.root / "deep.log").exists()
        assert not (home.root / "gate.log").exists()
    finally:
        keeper.close()


def test_several_drops_wait_at_it_and_are_answered_in_order(home: Home, keeper: Gatekeeper) -> None:
    names = [f"drop-{number}" for number in range(5)]
    for name in names:
        keeper.submit(spec(home, name))
    assert keeper.waiting() == tuple(names)
    wait_until(lambda: len(keeper.look().results) == 5)
    seen = keeper.look()
    assert (seen.drop, seen.behind, list(seen.results)) == ("drop-0", tuple(names[1:]), names)
    for name in names:
        assert keeper.look().drop == name
        keeper.clear(name)
    assert not keeper.is_busy()


def test_where_it_dies_those_behind_are_handed_over_again_and_the_first_is_blamed(home: Home, keeper: Gatekeeper) -> None:
    keeper.ensure()
    os.kill(pid(keeper), signal.SIGSTOP)
    for name in ("drop-1", "drop-2", "drop-3"):
        keeper.submit(spec(home, name))
    os.kill(pid(keeper), signal.SIGKILL)
    wait_until(lambda: keeper.look().died)
    seen = keeper.look()
    assert (seen.drop, seen.behind, seen.alive) == ("drop-1", (), False)
    assert keeper.takes("drop-1")
    assert not keeper.takes("drop-2"), "the death is to be told first"
    keeper.submit(spec(home, "drop-1"))
    assert keeper.takes("drop-2")
    keeper.submit(spec(home, "drop-2"))
    wait_until(lambda: len(keeper.look().results) == 2)


def test_a_drop_that_is_withdrawn_is_left_out_and_the_child_goes_on(home: Home, keeper: Gatekeeper) -> None:
    for name in ("drop-1", "drop-2", "drop-3"):
        keeper.submit(spec(home, name))
    keeper.clear("drop-2")
    keeper.submit(spec(home, "drop-1"))  # asked again: behind the others
    assert keeper.waiting() == ("drop-3", "drop-1")
    wait_until(lambda: len(keeper.look().results) == 2)
    assert [result.verdict for result in keeper.look().results.values()] == ["accepted", "accepted"]
