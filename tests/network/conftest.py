"""Two boxes on two hosts; skipped, with the reason, where this machine cannot play them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))  # Circle and its processes
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))  # an inference box in a folder
sys.path.insert(0, str(Path(__file__).parent))

from roadpair import RoadPair
from twohosts import TwoHosts, lacking

_lack = lacking()


@pytest.fixture(scope="session")
def hosts() -> Iterator[TwoHosts]:
    """One pair of namespaces for all tests of a worker; each test mends what it broke."""
    if _lack:
        pytest.skip(_lack)
    made = TwoHosts()
    yield made
    made.remove()


@pytest.fixture
def pair(hosts: TwoHosts, tmp_path: Path) -> Iterator[RoadPair]:
    """A training box and an inference box with the real road between them, quick to give up."""
    made = RoadPair(tmp_path, hosts)
    yield made
    made.end()
