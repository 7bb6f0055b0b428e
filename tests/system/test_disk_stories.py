"""A disk that fills up, runs out of inodes, or breaks, on a file system of the test's own: told with cause and cure, and gone through."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from circle import Circle, read_lines
from processes import wait_until
from stages import CONTENT, MANY_STEPS

TOLD_S = 5.0  # what is wrong is told within this
LIMITS = {"min_free_mb": 128, "min_free_inodes": 500, "reserve_mb": 16}
MB = 1 << 20


def mounted(image: Path, folder: Path, size_mb: int, *words: str) -> bool:
    """Mount a fresh ext4 of this size; False where that is impossible here."""
    with image.open("wb") as file:
        file.truncate(size_mb * MB)
    folder.mkdir()
    made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", *words, image], capture_output=True, check=False)
    return made.returncode == 0 and subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, check=False).returncode == 0


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Iterator[Callable[..., Circle]]:
    """Makes a circle whose home, and whose logs too, lie on a small ext4."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount a small file system, with mkfs.ext4")
    folder, made = tmp_path / "disk", list[Circle]()

    def make(size_mb: int, *words: str, **config: Any) -> Circle:
        if not mounted(tmp_path / "disk.img", folder, size_mb, *words):
            pytest.skip("a loop device cannot be mounted here")
        made.append(Circle(folder, **config))
        return made[-1]

    yield make
    for circle in made:
        circle.end()
    if os.path.ismount(folder):
        wait_until(lambda: subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0, "the small disk is unmounted", 20)


@contextmanager
def filled(folder: Path, leave_bytes: int) -> Iterator[None]:
    """Somebody else's file takes all but so many bytes of the disk."""
    filler = folder / "filler.bin"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    found = os.statvfs(folder)
    os.posix_fallocate(fd, 0, found.f_bavail * found.f_frsize - leave_bytes)
    os.close(fd)
    yield
    filler.unlink()


def told(circle: Circle, code: str) -> tuple[dict[str, Any], float]:
    """The error of this code in status, and after how many seconds it was there."""
    began = time.monotonic()
    circle.wait(lambda: (circle.status()["error"] or {}).get("code") == code, f"status tells {code}", 20)
    return circle.status()["error"], time.monotonic() - began


def released(circle: Circle) -> str:
    """Wait until the one job is released and served; its release."""
    job = circle.wait_state("released")
    assert circle.jobs() == {job: "released"}
    release: str = circle.facts(job)["release"]
    assert circle.went_live() == [release]
    assert circle.ask().headers["x-lorad-release"] == release
    return release


def test_a_training_waits_while_the_disk_is_full_and_goes_on_by_itself(on_small_disk: Callable[..., Circle]) -> None:
    circle = on_small_disk(400)
    circle.configure(training=MANY_STEPS, retention=LIMITS)
    circle.start_both()
    circle.wait(lambda: (circle.home / "reserve" / "bytes.bin").exists(), "the reserve is made")
    circle.drop(CONTENT)
    job = circle.wait_state("training")
    circle.wait(lambda: circle.resume_point(job), "a resume point is sealed")
    with filled(circle.root, 100 * MB):
        error, after_s = told(circle, "DISK_LOW")
        assert after_s < TOLD_S
        assert "of the 128 MB floor (retention.min_free_mb)" in error["what"]
        assert "lorad gc" in error["hint"]
        circle.wait_state("queued")
        facts = circle.facts(job)
        assert "retention.min_free_mb" in facts["reason"], "the job says why it waits"
        assert facts["attempts"] == 0, "it is not a failed attempt"
        assert facts["checkpoint"]
        with filled(circle.home, MB):  # next to nothing: the reserve is given up
            circle.wait(lambda: not (circle.home / "reserve").exists(), "the reserve is given up", TOLD_S)
            before = circle.status()["at"]
            circle.wait(lambda: circle.status()["at"] > before, "status is still written", TOLD_S)
            assert circle.lorad("jobs", "pause", job).returncode == 0, "commands still work"
            assert circle.lorad("jobs", "resume", job).returncode == 0
            assert circle.jobs() == {job: "queued"}
    released(circle)
    assert len(circle.runs(job, "train")) == 2
    circle.wait(lambda: circle.status()["error"] is None, "the trouble is taken back")
    circle.wait(lambda: (circle.home / "reserve" / "bytes.bin").exists(), "the reserve is made again")
    actions = circle.told()
    assert actions.index("disk.low") < actions.index("disk.ok")


@pytest.mark.full
def test_without_inodes_drops_and_jobs_wait_and_the_cause_is_named(on_small_disk: Callable[..., Circle]) -> None:
    circle = on_small_disk(400, "-N", "6000")
    circle.configure(retention=LIMITS)
    circle.start_both()
    circle.wait(lambda: (circle.home / "reserve" / "bytes.bin").exists(), "the reserve is made")
    crowd = circle.root / "crowd"
    crowd.mkdir()
    for number in range(os.statvfs(circle.home).f_favail - 150):
        (crowd / str(number)).touch()
    error, after_s = told(circle, "INODES_LOW")
    assert after_s < TOLD_S
    assert "inodes free of the floor of 500 (retention.min_free_inodes)" in error["what"]
    circle.wait(lambda: not (circle.home / "reserve").exists(), "the reserve is given up", TOLD_S)
    assert os.statvfs(circle.home).f_favail > 250, "its empty files were the reserve of inodes"
    circle.drop(CONTENT)
    circle.wait(lambda: circle.jobs() or circle.status()["drops"]["waiting"], "the drop is seen")
    assert "training" not in circle.jobs().values()
    shutil.rmtree(crowd)
    released(circle)


def test_a_failed_fsync_ends_the_daemon_and_serving_lives_on(circle: Circle) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    circle.start_both()
    fault = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    with subprocess.Popen(["strace", "-q", "-o", "/dev/null", "-p", str(circle.daemon.pid), *fault], stderr=subprocess.DEVNULL) as tracer:
        if wait_until(lambda: tracer.poll() is not None or _is_traced(circle.daemon.pid), "the daemon is traced") and tracer.poll() is not None:
            pytest.skip("processes cannot be traced here")
        circle.daemon.ends = True
        circle.drop(CONTENT)
        assert circle.daemon.exit_status() == 1
    assert "DISK_BROKEN" in circle.daemon.said
    assert "Input/output error" in circle.daemon.said
    assert "start the daemon again" in circle.daemon.said
    assert "Traceback" not in circle.daemon.said.rpartition("error DISK_BROKEN")[2]
    assert circle.jobs() == {}, "nothing was acknowledged"
    assert circle.is_ready(), "serving lives on"
    circle.start_daemon()
    released(circle)


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.full
def test_gc_while_the_daemon_runs_keeps_what_counts(circle: Circle) -> None:
    circle.configure(retention={"keep_jobs": 0})
    circle.start_both()
    circle.drop(CONTENT)
    release = released(circle)
    job = circle.job()
    checkpoints = [path.name for path in sorted(circle.runs(job, "train")[0].glob("checkpoints/*"))]
    planned = json.loads(circle.lorad("gc", "--dry-run", "--format", "json").stdout)
    assert planned["report"]["parts"]["checkpoint"] == len(checkpoints) - 1, "the newest is the best one here"
    assert [path.name for path in sorted(circle.runs(job, "train")[0].glob("checkpoints/*"))] == checkpoints, "nothing went"
    done = circle.lorad("gc")
    assert done.returncode == 0
    assert done.stdout.startswith("freed")
    assert [path.name for path in circle.runs(job, "train")[0].glob("checkpoints/*")] == checkpoints[-1:]
    assert not list((circle.home / "runs" / job).glob("*/resume"))
    assert json.loads(circle.lorad("jobs", "show", job, "--format", "json").stdout)["verdict"], "how it ended can still be read"
    assert circle.ask().headers["x-lorad-release"] == release
    assert [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] == "gc.done"][-1]["items"] >= 3
    # A second time there is nothing to do; with a damaged ledger nothing is done.
    ledger = circle.home / "targets" / "local" / "out" / "activations.jsonl"
    circle.daemon.stop()
    ledger.write_text("{}\n" + ledger.read_text())
    refused = circle.lorad("gc")
    assert refused.returncode == 2
    assert "line 1 of the ledger" in refused.stderr
