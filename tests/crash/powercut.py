"""One power cut in the middle of the daemon's work: what a reader had been told must be found again."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from crashpoints import Crash, CrashPoints, Syncs
from homeaudit import check, states
from lonedaemon import LoneDaemon, rows
from loopdisk import LoopDisk

from core.errors import StateError
from core.records import ENDED, JobState

TICKS = 30
MOST_CHANGES = 600  # of the disk in those ticks
END_STATES = {state.value for state in ENDED}


@dataclass
class Told:
    """What a reader has seen: jobs acknowledged, and those whose end was told."""

    queued: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)

    def hear(self, action: str, fields: dict[str, object]) -> None:
        job, state = str(fields.get("job")), action.removeprefix("job.")
        if action == "job.queued":
            self.queued.append(job)
        elif state in END_STATES:
            self.ended[job] = state


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRound:
    """What came of one power cut."""

    acknowledged: int
    lost: int  # of those: not in their state, or not there
    recovered: bool  # the same daemon went on from the disk to the end of every job


def cut_once(disk: LoopDisk, number: int, syncs: Syncs = Syncs.ALL) -> CutRound:
    """Let the daemon work on a new home and cut the power: at any change of the disk, or right after it told of a job.

    Raises AssertionError where a record is torn or something lies twice.
    """
    chance = random.Random(number)  # noqa: S311 - which moment, not a secret
    root = disk.place / f"round-{number}-{syncs.value}"
    lone = LoneDaemon(root)
    told = Told()
    after = chance.randint(1, 3) if number % 2 else 0
    points = CrashPoints(0 if after else chance.randint(20, MOST_CHANGES), syncs=syncs, cut=disk.cut)

    def hear(action: str, fields: dict[str, object]) -> None:
        told.hear(action, fields)
        if after and len(told.queued) == after:
            points.at = points.count + 1  # before its next change of the disk

    lone.points, lone.on_told = points, hear
    files = _work(lone, points)
    if not points.dead:
        disk.cut()
    del lone
    disk.come_back()
    return _look(root, told, files)


def _work(lone: LoneDaemon, points: CrashPoints) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with points:
            for tick in range(TICKS):
                if tick % 6 == 0:
                    name, content = f"{tick}.jsonl", rows(tick)
                    lone.drop(content, name)
                    files[name] = content
                lone.serve()
                lone.tick()
                for job in list(lone.children.alive):
                    lone.finish(job)
    except (Crash, StateError):
        pass
    return files


def _look(root: Path, told: Told, files: dict[str, bytes]) -> CutRound:
    """What is on the disk, then what a new daemon makes of it."""
    from store.paths import Home

    found = states(Home(root / "home")) if (root / "home" / "jobs").is_dir() else {}
    lost = {job for job in told.queued if job not in found} | {job for job, state in told.ended.items() if found.get(job) != JobState(state)}
    kept = CutRound(acknowledged=len(told.queued), lost=len(lost), recovered=False)
    if lost:
        return kept
    again = LoneDaemon(root)
    check(again.home, files, told.queued)
    again.settle()
    ends = check(again.home, files, told.queued).values()
    return CutRound(acknowledged=kept.acknowledged, lost=0, recovered=set(ends) <= {JobState.RELEASED} and len(ends) == len(files))
