from collections.abc import Iterator
from pathlib import Path

import pytest
from inference_box import World
from serving_process import ServingProcess


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An inference box with nothing on it, and the keys to speak to it."""
    return World(tmp_path)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServingProcess]:
    """A real serving process with the stub engine; the test starts it."""
    made = ServingProcess(tmp_path)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """One ready serving process with the stub engine, for tests that only ask it."""
    made = ServingProcess(tmp_path_factory.mktemp("running"))
    made.start()
    yield made
    made.kill()
