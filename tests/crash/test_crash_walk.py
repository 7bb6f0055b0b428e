"""Each operation of the queue, ended at every change of the disk that it makes, one after the other until none is left.

Killed there, or refused by the disk (EIO for a sync, ENOSPC for the rest): what people dropped lies in one place, every
acknowledged job in one state; a new start and the same ticks lead to the same end as if nothing had happened.
"""

import os
from pathlib import Path

import pytest
from crashfigures import Figures
from crashpoints import CrashPoints
from lonedaemon import LoneDaemon
from operations import OPERATIONS, walk_to


@pytest.fixture(params=[False, True], ids=["killed", "refused by the disk"])
def fail(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


LONG = ("judge", "hold")  # the same few transitions again and again


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.full] if name in LONG else []) for name in OPERATIONS])
def test_an_operation_broken_off_at_any_change_of_the_disk_goes_on_to_its_end(name: str, fail: bool, quick_disk: Path, figures: Figures) -> None:
    operation = OPERATIONS[name]
    template = quick_disk / "template"
    operation.before(LoneDaemon(template))
    wanted, total = walk_to(operation, template, quick_disk / "whole", CrashPoints())
    assert total > 3, "the operation changes the disk"
    number = 0
    while True:
        number += 1
        points = CrashPoints(number, fail=fail)
        found, count = walk_to(operation, template, quick_disk / str(number), points)
        if not points.met:
            break
        assert found == wanted, f"after {points.met} (change {number} of {count})"
    figures.add("crash points walked", number - 1)


def test_the_walk_finds_a_transition_that_renames_before_it_writes(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk bites: with the order of the two steps of a transition turned round it finds a torn job."""
    from store import jobs

    def rename_first(home, before, after):  # type: ignore[no-untyped-def]
        destination = jobs.job_folder(home, after)
        os.rename(jobs.job_folder(home, before), destination)
        jobs.write(destination / f"{after.state.value}.json", after.facts)

    template = quick_disk / "template"
    OPERATIONS["finish"].before(LoneDaemon(template))
    monkeypatch.setattr(jobs, "move_job", rename_first)
    with pytest.raises(AssertionError, match="torn"):
        walk_on(template, quick_disk)


def walk_on(template: Path, folder: Path) -> None:
    for number in range(1, 40):
        walk_to(OPERATIONS["finish"], template, folder / str(number), CrashPoints(number))
