"""Threads that wait for each other: awake while the cores are the training's own, asleep beside a neighbour."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.backends import patience
from trainer.backends.patience import CROWDED, QUIET, TASKS, Patience, waited_s

# CPU seconds of 60 small products with a pause of 5 ms after each: a thread that stays awake burns most of each pause.
BURNT = """
import sys, time, torch
from trainer.backends.patience import Patience
torch.set_num_threads(2)
one, left = Patience(), torch.ones(1 << 18)
if sys.argv[1] == "asleep":
    one.sleep()
left.add_(1)
began = time.process_time()
for _ in range(60):
    left.add_(1)
    time.sleep(0.005)
print(time.process_time() - began)
"""


def burnt_s(how: str) -> float:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", BURNT, how], env=clean, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that our threads have waited for a core and the clock, as the test sets them."""
    told = [0.0, 100.0]
    monkeypatch.setattr(patience, "waited_s", lambda: told[0])
    monkeypatch.setattr(patience.time, "monotonic", lambda: told[1])
    monkeypatch.setattr(patience.torch, "get_num_threads", lambda: 1)
    return told


def test_threads_sleep_once_a_neighbour_takes_their_cores_and_wake_when_it_is_gone(waits: list[float]) -> None:
    switch = Patience()
    seen = []
    for share in (0.0, QUIET, CROWDED + 0.01, (CROWDED + QUIET) / 2, QUIET / 2):
        waits[0], waits[1] = waits[0] + share, waits[1] + 1.0
        switch.look()
        seen.append(switch.sleeps)
    assert seen == [False, False, True, True, False], "between the marks it stays as it was"


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="GNU's OpenMP and two cores")
def test_the_switch_is_one_that_the_runtime_obeys() -> None:
    assert burnt_s("asleep") < 0.6 * burnt_s("awake")


@pytest.mark.skipif(not TASKS.exists(), reason="the kernel tells how long a thread waited")
def test_waiting_for_a_core_is_counted() -> None:
    cores = os.sched_getaffinity(0)
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.sched_setaffinity(0, {min(cores)}))
    try:
        os.sched_setaffinity(0, {min(cores)})
        before, until = waited_s(), time.monotonic() + 30
        while waited_s() - before < 0.05 and time.monotonic() < until:
            pass
        assert waited_s() - before >= 0.05
    finally:
        os.sched_setaffinity(0, cores)
        neighbour.kill()
        neighbour.wait()
