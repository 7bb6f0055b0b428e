"""Exactly once: real links killed at random moments, the server too, the daemon's half dying between two of its steps."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.loop_signals import pulls


@pytest.mark.full
def test_a_hundred_kills_of_the_pull_lose_and_double_no_signal() -> None:
    found = pulls()
    assert (found["pull_lost"], found["pull_doubled"]) == (0, 0), found
    assert found["pull_signals"] > 500, found
    assert found["pull_turns"] > 10, found
