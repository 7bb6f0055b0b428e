"""The same walk by the kernel: strace kills a real process at the n-th system call of each kind, for every n until none is left."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crashfigures import Figures
from homeaudit import check, check_memory, outcome
from lonedaemon import LoneDaemon, copy_of
from operations import OPERATIONS, go_on
from randomkills import told_jobs

PROGRAM = Path(__file__).with_name("walkedprocess.py")
CALLS = ("rename", "fsync", "unlink", "link", "mkdir", "rmdir,unlinkat")  # torn writes are walked in test_crash_walk.py


@pytest.mark.full
@pytest.mark.parametrize("name", ["submit", "start", "finish", "cancel"])
def test_a_process_killed_at_any_system_call_of_an_operation_is_followed_by_one_that_ends_it(name: str, quick_disk: Path, figures: Figures) -> None:
    if shutil.which("strace") is None or strace(["signal=KILL", "rename"], 1, ["true"]) is None:
        pytest.skip("strace is missing, or may not trace here")
    operation = OPERATIONS[name]
    template = quick_disk / "template"
    operation.before(LoneDaemon(template))
    wanted = follow(name, template, quick_disk / "whole", "", 0)
    assert wanted is not None
    for call in CALLS:
        number = 1
        while (found := follow(name, template, quick_disk / f"{call}-{number}", call, number)) is not None:
            assert found == wanted, f"killed at {call} number {number}"
            figures.add("processes killed at a system call", 1)
            number += 1


def strace(inject: list[str], number: int, words: list[str]) -> int | None:
    """The exit status of WORDS, killed at the n-th call; None where nothing can be traced."""
    what, call = inject
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}", *words], capture_output=True, check=False
    )
    return None if b"ptrace" in done.stderr else done.returncode


def follow(name: str, template: Path, place: Path, call: str, number: int) -> dict[str, object] | None:
    """How things stand after a process that was killed at the n-th call and one that went on; None where there is no n-th call."""
    operation = OPERATIONS[name]
    operation.begin(LoneDaemon(copy_of(template, place)))
    if call:
        status = strace(["signal=KILL", call], number, [sys.executable, str(PROGRAM), str(place), name])
        if status == 0:
            return None
        assert status in (-9, 137), status
    lone = LoneDaemon(place)
    check(lone.home, dict(operation.files), told_jobs(lone.home.root))
    go_on(lone, operation)
    check(lone.home, dict(operation.files), told_jobs(lone.home.root))
    check_memory(lone.index)
    found = outcome(lone.home)
    shutil.rmtree(place)
    return found
