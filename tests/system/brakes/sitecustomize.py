"""Holds a child of the daemon still before its first own line, so that a test can look at that very moment.

On PYTHONPATH, Python imports this module at its start. The child holds where the folder named by LORAD_TEST_BRAKES has a
brake of its kind: it takes the brake by rename, so that one brake holds one child, and goes on once that file is gone.

Two more files are obeyed there: `no-deathsig` lets children outlive a killed daemon, and `<kind>.oom` lets one child of that
kind end as one that ran out of memory.
"""

import ctypes
import json
import os
import sys
import time


def kind_of(words: list[str]) -> str:
    """gate, link, pack, train, score-dev, score-gate, rank-order, rank-verdict; empty for any other process."""
    if words == ["validation"]:
        return "gate"
    if words[:2] == ["deploy", "link"]:
        return "link"
    try:
        with open(os.path.join(words[-1], "spec.json"), encoding="utf-8") as file:
            spec = json.load(file)
    except (OSError, ValueError, IndexError):
        return ""
    purpose = spec.get("split") or spec.get("purpose")
    return f"{spec['kind']}-{purpose}" if purpose else str(spec["kind"])


def hold(folder: str) -> None:
    """Take the brake of this process's kind, if there is one, and wait until it is let go."""
    kind = kind_of(sys.orig_argv[sys.orig_argv.index("-m") + 1 :])
    held = os.path.join(folder, f"{kind}.{os.getpid()}.held")
    try:
        os.rename(os.path.join(folder, kind), held)
    except OSError:
        return
    while os.path.exists(held):
        time.sleep(0.01)


def run_out_of_memory(folder: str) -> None:
    """Take the file `<kind>.oom`, if there is one, and end as the border of a child does."""
    words = sys.orig_argv[sys.orig_argv.index("-m") + 1 :]
    kind = kind_of(words)
    try:
        os.rename(os.path.join(folder, f"{kind}.oom"), os.path.join(folder, f"{kind}.oom.{os.getpid()}"))
    except OSError:
        return
    with open(os.path.join(words[-1], "exit.json"), "w", encoding="utf-8") as file:
        json.dump({"code": 20, "ended_at": "2026-03-01T00:00:00Z", "reason": "out of memory: so the test says"}, file)
    os._exit(20)


if "-m" in sys.orig_argv and os.environ.get("LORAD_TEST_BRAKES"):
    brakes = os.environ["LORAD_TEST_BRAKES"]
    if os.path.exists(os.path.join(brakes, "no-deathsig")):
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    run_out_of_memory(brakes)
    hold(brakes)
