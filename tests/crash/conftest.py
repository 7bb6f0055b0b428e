"""Figures of the crash tests, printed at the end of the run; and the way to the parts of tests/system."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))  # Circle and its processes
sys.path.insert(0, str(Path(__file__).parent))

from crashfigures import KEY, Figures
from crashpoints import SYNCS

MEMORY = "/dev/shm"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    made = Figures()
    record_property(KEY, made.values)  # filled by the test, read at its end
    return made


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory where there is one, on which fsync does nothing: for tests that kill the process and cut no power."""
    for name in SYNCS:
        monkeypatch.setattr(os, name, lambda fd: None)
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up what the tests measured, in whatever process they ran."""
    total: dict[str, float | list[float]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for key, values in report.user_properties:
            for name, value in values.items() if key == KEY else ():
                total[name] = total.get(name, [] if isinstance(value, list) else 0) + value
    for name, value in total.items():
        shown = f"p50 {sorted(value)[len(value) // 2]} s, max {max(value)} s ({len(value)} times)" if isinstance(value, list) and value else value
        terminalreporter.write_line(f"crash safety: {name}: {shown}")
