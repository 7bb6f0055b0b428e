from collections.abc import Iterator
from pathlib import Path

import pytest
from circle import Circle


@pytest.fixture
def circle(tmp_path: Path) -> Iterator[Circle]:
    """A home with the stub backend; the test starts the processes."""
    made = Circle(tmp_path)
    yield made
    made.end()
