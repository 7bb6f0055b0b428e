"""A power cut on real file systems: acknowledged jobs are found again, nothing is torn, the work goes on to its end."""

from pathlib import Path

import pytest
from crashfigures import Figures
from crashpoints import Syncs
from loopdisk import CannotRun, LoopDisk, made
from powercut import cut_once


def disk_of(kind: str, folder: Path):  # type: ignore[no-untyped-def]
    try:
        with made(folder, kind) as disk:
            yield disk
    except CannotRun as reason:
        pytest.skip(str(reason))


@pytest.fixture
def ext4(tmp_path: Path):  # type: ignore[no-untyped-def]
    yield from disk_of("ext4", tmp_path)


@pytest.fixture
def xfs(tmp_path: Path):  # type: ignore[no-untyped-def]
    yield from disk_of("xfs", tmp_path)


def cut_again_and_again(disk: LoopDisk, rounds: int, figures: Figures) -> None:
    done = [cut_once(disk, number) for number in range(rounds)]
    figures.add(f"power cuts on {disk.kind}", rounds)
    figures.add(f"jobs acknowledged before a power cut on {disk.kind}", sum(one.acknowledged for one in done))
    figures.add(f"of those lost by a power cut on {disk.kind}", sum(one.lost for one in done))
    assert sum(one.lost for one in done) == 0
    assert all(one.recovered for one in done)


def test_acknowledged_jobs_survive_a_power_cut(ext4: LoopDisk, figures: Figures) -> None:
    cut_again_and_again(ext4, 3, figures)


@pytest.mark.full
def test_acknowledged_jobs_survive_fifty_power_cuts_on_ext4(ext4: LoopDisk, figures: Figures) -> None:
    cut_again_and_again(ext4, 50, figures)


@pytest.mark.full
def test_acknowledged_jobs_survive_fifty_power_cuts_on_xfs(xfs: LoopDisk, figures: Figures) -> None:
    cut_again_and_again(xfs, 50, figures)


@pytest.mark.parametrize("syncs", [Syncs.FILES, Syncs.NOTHING])
def test_without_the_syncs_acknowledged_jobs_are_lost(ext4: LoopDisk, syncs: Syncs) -> None:
    """The test bites: a cut right after a job was told finds what was not synced."""
    assert any(breaks_its_word(ext4, number, syncs) for number in (1, 3, 5, 7))


def breaks_its_word(disk: LoopDisk, number: int, syncs: Syncs) -> bool:
    try:
        return cut_once(disk, number, syncs).lost > 0
    except AssertionError:  # torn
        return True
