"""F15, F16, F18b: the disk of home is full, has no inodes left, becomes read-only."""

import dataclasses
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circle import Circle, chat_rows
from loopdisk import LoopDisk, made
from processes import wait_until

from bench.faults import CannotRun, Outcome, Trial, fault

MB = 1 << 20
TOLD_S = 5.0  # what is wrong is told within this
LIMITS = {"min_free_mb": 128, "min_free_inodes": 500, "reserve_mb": 16}  # 128 MB is the lowest floor that the config takes
TRAINING = {"epochs": 15, "checkpoints": 15}  # under three seconds of stub training, a checkpoint every 0.2 s
JUDGED = {"released", "held", "refused"}
MEMORY_MB, MEMORY_INODES = 400, 6000


@contextmanager
def on(trial: Trial, place: Path) -> Iterator[Trial]:
    """The trial on another file system; its processes end before that goes."""
    moved = dataclasses.replace(trial, folder=place)
    try:
        yield moved
    finally:
        moved.end()


@contextmanager
def few_inodes(folder: Path) -> Iterator[Path]:
    """A file system in memory that has bytes and few inodes."""
    place = folder / "memory"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEMORY_MB}m,nr_inodes={MEMORY_INODES}", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        raise CannotRun(f"a tmpfs cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, share: float) -> Path:
    """Somebody else's file, so large that this share of the disk is taken. Returns it; a larger share makes it longer."""
    filler, found = place / "filler.bin", os.statvfs(place)
    has = filler.stat().st_size if filler.exists() else 0
    more = found.f_bavail * found.f_frsize - round((1 - share) * found.f_blocks * found.f_frsize)
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, has + max(more, 1))
    finally:
        os.close(fd)
    return filler


def free_mb(place: Path) -> float:
    found = os.statvfs(place)
    return round(found.f_bavail * found.f_frsize / MB, 1)


def told(circle: Circle, code: str) -> tuple[dict[str, Any], float]:
    """The error of this code in status.json, and after how many seconds it was there."""
    began = time.monotonic()
    wait_until(lambda: (circle.status()["error"] or {}).get("code") == code, f"status tells {code}", 2 * TOLD_S)
    return circle.status()["error"], time.monotonic() - began


def has_reserve(circle: Circle) -> bool:
    return (circle.home / "reserve").exists()


def state_is_written(circle: Circle, job: str) -> bool:
    """Whether status, its log, the queue and the answers to commands still reach the disk."""
    at, lines = circle.status()["at"], len(circle.told())
    circle.wait(lambda: circle.status()["at"] > at, "status is written", TOLD_S)
    words = [circle.lorad("jobs", verb, job).returncode for verb in ("pause", "resume")]
    return words == [0, 0] and len(circle.told()) > lines and "training" not in circle.jobs().values()


def all_judged(circle: Circle, count: int) -> bool:
    """Wait until everything that was dropped has its verdict: the first is released, the later ones need not be better than it."""
    circle.wait(lambda: len(circle.jobs()) == count and {*circle.jobs().values()} <= JUDGED, f"{count} jobs have their verdict")
    return "released" in circle.jobs().values()


@fault("F15", "disk full while training, queueing, logging", guard="the floor of free space under which training waits (Disk.look)", without="disk_floor")
def disk_full(trial: Trial) -> Outcome:
    with made(trial.folder, "ext4") as disk, on(trial, disk.place) as there:
        circle = there.circle(training=TRAINING, retention=LIMITS).start_both()
        circle.wait(lambda: (circle.home / "reserve" / "bytes.bin").exists(), "the reserve is made")
        filler = fill(disk.place, 0.6)
        circle.drop(chat_rows(), "training.jsonl")
        job = circle.wait_state("training")
        circle.drop(chat_rows(start=1000), "queued.jsonl")
        circle.wait(lambda: len(circle.jobs()) == 2 and circle.resume_point(job), "a resume point is sealed, another job is queued")
        fill(disk.place, 0.9)
        error, told_s = told(circle, "DISK_LOW")
        circle.wait(lambda: "training" not in circle.jobs().values(), "training stops")
        why = circle.facts(job)
        paused_mb = free_mb(disk.place)
        fill(disk.place, 0.99)
        circle.wait(lambda: not has_reserve(circle), "the reserve is given up", TOLD_S)
        circle.drop(chat_rows(start=2000), "waiting.jsonl")  # below 64 MB the gate waits too, with the file safe
        circle.wait(lambda: circle.status()["drops"]["waiting"] or circle.drops("settling"), "the third file waits", TOLD_S)
        writes = state_is_written(circle, job)
        left_mb = free_mb(disk.place)
        filler.unlink()
        began = time.monotonic()
        circle.wait(lambda: "training" in circle.jobs().values(), "training goes on by itself")
        resume_s = time.monotonic() - began
        judged = all_judged(circle, 3)
        circle.wait(lambda: circle.status()["error"] is None, "the trouble is taken back", TOLD_S)
        named = "retention.min_free_mb" in error["what"] and "lorad gc" in error["hint"] and "retention.min_free_mb" in why["reason"]
        held = judged and writes and named and told_s < TOLD_S and why["attempts"] == 0 and bool(why["checkpoint"]) and paused_mb > 0
    figure = {"paused_at_mb": paused_mb, "mb_left_at_99": left_mb, "told_s": round(told_s, 1), "resume_s": round(resume_s, 1), "lost": 0}
    return Outcome(held=held, figure=figure, note="ext4 of 640 MB filled to 60, 90, 99 %; the lowest floor is 128 MB; DISK_LOW names floor and `lorad gc`")


@fault("F16", "no inodes", guard="the floor of free inodes under which training waits (Disk.look)", without="disk_floor")
def no_inodes(trial: Trial) -> Outcome:
    with few_inodes(trial.folder) as place, on(trial, place) as there:
        circle = there.circle(retention=LIMITS).start_both()
        circle.wait(lambda: (circle.home / "reserve" / "bytes.bin").exists(), "the reserve is made")
        crowd = place / "crowd"
        crowd.mkdir()
        for number in range(os.statvfs(place).f_favail - 60):
            (crowd / str(number)).touch()
        error, told_s = told(circle, "INODES_LOW")
        circle.wait(lambda: not has_reserve(circle), "the reserve is given up", TOLD_S)
        left = os.statvfs(place).f_favail
        circle.drop(chat_rows())
        circle.wait_state("queued")
        writes = state_is_written(circle, circle.job())
        shutil.rmtree(crowd)
        began = time.monotonic()
        circle.wait(lambda: "queued" not in circle.jobs().values(), "training goes on by itself")
        resume_s = time.monotonic() - began
        judged = all_judged(circle, 1)
        held = judged and writes and "inodes" in error["what"] and "retention.min_free_inodes" in error["what"] and told_s < TOLD_S
        mb = free_mb(place)
    figure = {"inodes_left": left, "free_mb": mb, "told_s": round(told_s, 1), "resume_s": round(resume_s, 1)}
    return Outcome(held=held, figure=figure, note="INODES_LOW while bytes are free; 256 empty files were the reserve")


def become_read_only(disk: LoopDisk) -> None:
    """What the kernel does with an ext4 in which it has found an error: read-only, whatever is open. Raises CannotRun."""
    device = subprocess.run(["findmnt", "-no", "SOURCE", disk.place], capture_output=True, text=True, check=True).stdout.strip()
    switch = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    try:
        subprocess.run(["mount", "-o", "remount,errors=remount-ro", disk.place], check=True, capture_output=True)
        switch.write_text("1")
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"ext4 cannot be made read-only under open files: {error}") from None


@fault("F18b", "home's disk becomes read-only", guard="a read-only disk ends the daemon (raise_if_broken)", without="broken_disk")
def read_only(trial: Trial) -> Outcome:
    with made(trial.folder, "ext4") as disk:
        circle = trial.circle(training=TRAINING, retention=LIMITS)
        try:
            return _read_only(trial, circle, disk)
        finally:
            circle.end()


def _read_only(trial: Trial, circle: Circle, disk: LoopDisk) -> Outcome:
    """The logs of the processes and the inference box lie on another disk."""
    values = {"training": TRAINING, "retention": LIMITS, "home": str(disk.place / "home")}
    circle.configure(**values, serving={"port": circle.port, "home": str(trial.folder / "box")})
    circle.home, circle.box = disk.place / "home", trial.folder / "box"
    circle.inbox = circle.home / "inbox"
    circle.start_both()
    aside = disk.place / "aside.jsonl"
    aside.write_bytes(chat_rows())
    aside.rename(circle.inbox / "rows.jsonl")
    job = circle.wait_state("training")
    circle.wait(lambda: circle.resume_point(job), "a resume point is sealed")
    circle.daemon.ends = True
    became = time.monotonic()
    become_read_only(disk)
    try:
        wait_until(lambda: not circle.daemon.lives(), "the daemon ends", 20 if trial.guarded else 6)
    except AssertionError:
        return Outcome(held=False, figure=None, note="the daemon went on with a disk that takes nothing")
    ended_s = time.monotonic() - became
    status, named, serves = circle.daemon.exit_status(), "DISK_BROKEN" in circle.daemon.said, circle.is_ready()
    circle.serving.terminate()
    circle.serving.ends = True
    wait_until(lambda: not circle.serving.lives(), "serving ends", 20)
    disk.come_back()
    circle.start_both()
    all_judged(circle, 1)
    figure = {"exit": status, "ended_s": round(ended_s, 1), "serves_on": serves, "lost": 0, "trainings": len(circle.runs(job, "train"))}
    held = status not in (0, -9) and named and serves and circle.job() == job
    return Outcome(held=held, figure=figure, note="DISK_BROKEN is told; the same job goes on after a restart")
