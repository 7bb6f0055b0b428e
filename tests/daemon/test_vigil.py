"""Signs of life: what counts as one, and that neither clocks nor a sleeping machine make a child look dead."""

import json
from pathlib import Path

import pytest

from daemon.vigil import MOST_GAP_S, Vigil


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pass_time(vigil: Vigil, clock: Clock, seconds: float, every: float = 1.0) -> None:
    """Let time pass as the daemon sees it: tick by tick."""
    for _ in range(round(seconds / every)):
        clock.now += every
        vigil.look()


@pytest.mark.parametrize("sign", ["heartbeat", "progress.jsonl", "log.txt"])
def test_silence_grows_until_a_file_of_the_child_changes(tmp_path: Path, clock: Clock, sign: str) -> None:
    vigil = Vigil(tmp_path, clock)
    vigil.look()
    pass_time(vigil, clock, 30)
    assert vigil.silent_s == 30
    (tmp_path / sign).write_text("")
    vigil.look()
    assert vigil.silent_s == 0
    pass_time(vigil, clock, 3)
    assert vigil.silent_s == 3


def test_a_long_gap_between_two_looks_counts_little(tmp_path: Path, clock: Clock) -> None:
    vigil = Vigil(tmp_path, clock)
    vigil.look()
    clock.now += 8 * 3600  # the machine slept, or the daemon was held still: the child could not run either
    vigil.look()
    assert vigil.silent_s == MOST_GAP_S


def test_a_file_time_in_the_past_or_the_future_is_a_sign_as_well(tmp_path: Path, clock: Clock) -> None:
    import os

    vigil = Vigil(tmp_path, clock)
    beat = tmp_path / "heartbeat"
    for moment in (1_900_000_000, 1_000_000_000, 1_900_000_001):
        pass_time(vigil, clock, 5)
        beat.touch()
        os.utime(beat, (moment, moment))
        vigil.look()
        assert vigil.silent_s == 0


def test_the_median_step_is_that_of_the_lines_that_tell_one(tmp_path: Path, clock: Clock) -> None:
    vigil = Vigil(tmp_path, clock)
    lines = [{"stage": "load"}, {"stage": "train", "step": 1, "micro_batch": 8}]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    vigil.look()
    assert vigil.median_step_s is None, "nothing is known before the second line"
    more = [{"stage": "train", "step": step, "step_s": seconds, "micro_batch": 8} for step, seconds in ((2, 1.0), (3, 60.0), (4, 2.0))]
    with open(tmp_path / "progress.jsonl", "a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in more) + '{"stage": "torn')
    vigil.look()
    assert (vigil.median_step_s, vigil.step, vigil.micro_batch) == (2.0, 4, 8)
