"""F01, F02, F10, F18: the daemon is killed, the power goes, the disk breaks."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from circle import chat_rows, read_json
from crashpoints import SYNCS, CrashPoints, Syncs
from loopdisk import KINDS, made
from operations import OPERATIONS, walk_to
from powercut import cut_once
from processes import lives, wait_until
from randomkills import kill_at_random

from bench.faults import CannotRun, Outcome, Trial, fault

KILLS, DROPS = 6, 2
CUTS = 5  # on each kind of file system
WALKED = ("submit", "start", "finish", "release", "cancel", "retry")
LONG_STEPS = {"epochs": 60, "checkpoints": 20}  # some ten seconds of stub training


def _rename_first() -> AbstractContextManager[Any]:
    """A transition whose rename comes before what it says is written."""
    from store import jobs

    def move_job(home: Any, before: Any, after: Any) -> None:
        destination = jobs.job_folder(home, after)
        source = jobs.job_folder(home, before)
        destination.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, destination)
        jobs.write(destination / f"{after.state.value}.json", after.facts)

    return patch.object(jobs, "move_job", move_job)


@fault("F01", "daemon kill -9 at any instant", guard="a transition writes its state file before the rename that decides")
def killed_at_any_instant(trial: Trial) -> Outcome:
    from lonedaemon import LoneDaemon

    walked, wrong = 0, []
    without_syncs = [patch.object(os, name, lambda fd: None) for name in SYNCS]
    for one in without_syncs:
        one.start()
    try:
        with nullcontext() if trial.guarded else _rename_first():
            for name in WALKED:
                template = trial.folder / name
                OPERATIONS[name].before(LoneDaemon(template))
                wanted, count = walk_to(OPERATIONS[name], template, trial.folder / "whole", CrashPoints())
                for number in range(1, count + 1):
                    found, _ = walk_to(OPERATIONS[name], template, trial.folder / f"{name}-{number}", CrashPoints(number))
                    walked += 1
                    if found != wanted:
                        wrong.append(f"{name} change {number}")
    finally:
        for one in without_syncs:
            one.stop()
    if not trial.guarded:
        return Outcome(held=not wrong, figure=None)
    kills = kill_at_random(trial.circle(), KILLS, DROPS)
    taken = sorted(kills.ready_s)
    recovery = {"recovery_p50_s": round(taken[len(taken) // 2], 2), "recovery_max_s": round(taken[-1], 2)}
    figure = {"lost": kills.lost, "duplicated": kills.duplicated, "crash_points": walked, "kills": kills.kills, **recovery}
    held = not wrong and (kills.lost, kills.duplicated) == (0, 0)
    return Outcome(held=held, figure=figure, note=f"another end after: {wrong[:3]}" if wrong else "`scripts/test --full` kills 200 times")


@fault("F02", "power cut", guard="a folder is synced after a rename in it")
def power_cut(trial: Trial) -> Outcome:
    figure: dict[str, int] = {"cuts": 0, "acknowledged": 0, "lost": 0}
    left_undone = []
    missing = [kind for kind in KINDS if shutil.which(KINDS[kind][0]) is None]
    for kind in KINDS.keys() - set(missing):
        with made(trial.folder, kind) as disk:
            for number in range(CUTS):
                one = cut_once(disk, number, Syncs.ALL if trial.guarded else Syncs.FILES)
                figure["cuts"] += 1
                figure["acknowledged"] += one.acknowledged
                figure["lost"] += one.lost
                if not one.lost and not one.recovered:
                    left_undone.append(f"{kind} {number}")
    if len(missing) == len(KINDS):
        raise CannotRun(f"{' and '.join(missing)} cannot be made here")
    note = f"not run on {missing[0]}" if missing else "ext4 and XFS images; nothing torn"
    return Outcome(held=figure["lost"] == 0 and figure["acknowledged"] > 0 and not left_undone, figure=figure, note=note)


@fault("F10", "daemon dies, trainer lives", guard="orphans are ended, and their slot's lock is theirs, before the next training", without="orphans")
def orphaned_trainer(trial: Trial) -> Outcome:
    """Children do not die with the daemon here, as on a system without that signal: the next daemon must see to them."""
    circle = trial.circle(without=("tether",), training=LONG_STEPS)
    circle.start_both()
    circle.drop(chat_rows())
    job = circle.wait_state("training")
    circle.wait(lambda: circle.resume_point(job), "a resume point is sealed")
    (orphan,) = circle.children("trainer")
    circle.daemon.kill()
    circle.daemon.children = []  # they outlive it on purpose
    assert lives(orphan), "the trainer outlives the daemon: else nothing is shown"
    started = time.monotonic()
    circle.start_daemon()
    try:
        overlap = _overlap(circle, orphan, time.monotonic)
    finally:
        if lives(orphan):
            orphan.kill()
    figure = {"overlap_s": round(overlap, 2), "ready_s": round(time.monotonic() - started, 2)}
    return Outcome(held=overlap == 0, figure=figure, note="with PR_SET_PDEATHSIG the trainer is gone with the daemon; here it is taken away")


def _overlap(circle: Any, orphan: psutil.Process, clock: Callable[[], float]) -> float:
    """Seconds in which the orphan and a trainer of the new daemon lived at once."""
    began = circle.wait(lambda: circle.children("trainer") and clock(), "the next trainer starts", 60)
    if not lives(orphan):
        return 0.0
    wait_until(lambda: not lives(orphan) or clock() - began > 2, "two seconds of two trainers", 10)
    return clock() - began


@fault("F18", "fsync answers EIO", guard="an error of fsync ends the daemon: what a second fsync says is not believed", without="broken_disk")
def sync_error(trial: Trial) -> Outcome:
    if shutil.which("strace") is None:
        raise CannotRun("strace is missing")
    circle = trial.circle()
    circle.configure(serving={"port": circle.port, "home": str(circle.root / "box")})
    circle.start_serving()
    circle.prefix = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=20+")
    daemon = circle.start("daemon")
    daemon.ends = True
    circle.wait(lambda: "lorad watches" in daemon.said or not daemon.lives(), "the daemon is ready")
    if "ptrace" in daemon.said:
        raise CannotRun("strace may not trace here")
    started = time.monotonic()
    for number in range(8):
        circle.drop(chat_rows(start=1000 * number), f"{number}.jsonl")
    try:
        wait_until(lambda: not daemon.lives(), "the daemon ends", 20 if trial.guarded else 8)
    except AssertionError:
        daemon.kill()
        return Outcome(held=False, figure=None, note="the daemon went on after an fsync that failed")
    ended_s = time.monotonic() - started
    status = daemon.exit_status()
    told = _told(circle.root / "home", daemon.said)
    serves = circle.is_ready()
    acknowledged = [line.split('"job": "')[1].split('"')[0] for line in _lines(circle.root / "home" / "status.jsonl") if '"job.queued"' in line]
    lost = [job for job in acknowledged if job not in circle.job_folders()]
    figure = {"exit": status, "ended_s": round(ended_s, 1), "lost": len(lost), "serves_on": serves}
    return Outcome(held=status not in (0, -9) and told and serves and not lost, figure=figure, note="DISK_BROKEN is told; serving goes on")


def _told(home: Path, said: str) -> bool:
    status = read_json(home / "status.json") or {}
    return "DISK_BROKEN" in said or (status.get("error") or {}).get("code") == "DISK_BROKEN"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
