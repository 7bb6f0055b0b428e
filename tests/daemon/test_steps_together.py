"""Steps that are carried out together: what is wrong with one holds up no other."""

from datetime import UTC, datetime

import pytest

from core.steps import GateDrop, RejectDrop, Step
from daemon.apply import Applier

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Intake:
    """Knows claims and the like; one of them cannot be carried out."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.done = broken, list[str]()

    def apply_together(self, steps: list[Step], now: datetime) -> bool:
        if not all(isinstance(step, GateDrop) for step in steps):
            return False
        for step in steps:
            self.apply(step, now)
        return True

    def apply(self, step: Step, now: datetime) -> None:
        assert isinstance(step, GateDrop | RejectDrop)
        if step.drop == self.broken:
            raise OSError(13, "no")
        self.done.append(step.drop)


def applier(intake: Intake) -> Applier:
    made = Applier.__new__(Applier)
    made._intake = intake  # type: ignore[assignment]
    return made


STEPS = [GateDrop(drop=f"drop-{number}", crashes=0) for number in range(3)]


def test_they_are_done_once_and_in_order() -> None:
    intake = Intake()
    assert applier(intake).apply_together(STEPS, NOW) == []
    assert intake.done == ["drop-0", "drop-1", "drop-2"]


def test_after_an_error_each_is_tried_by_itself_and_the_broken_one_is_named(caplog: pytest.LogCaptureFixture) -> None:
    intake = Intake(broken="drop-1")
    [(step, error)] = applier(intake).apply_together(STEPS, NOW)
    assert (step, isinstance(error, OSError)) == (STEPS[1], True)
    assert intake.done == ["drop-0", "drop-0", "drop-2"], "every step may be repeated"
    assert "one by one" in caplog.text


def test_a_kind_that_shares_nothing_is_done_one_by_one() -> None:
    intake = Intake()
    assert applier(intake).apply_together([RejectDrop(drop="drop-1"), RejectDrop(drop="drop-2")], NOW) == []
    assert intake.done == ["drop-1", "drop-2"]
