"""How long a person waits: for a command, for the queue, and from the verdict to the served release.

Start-up is a ratio against a bare interpreter, interleaved. Intake and the way to the box are absolute: best of three.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

LORAD = str(Path(sys.executable).with_name("lorad"))
ROWS = Path(__file__).parents[1] / "examples" / "devils_dictionary.jsonl"
ROUNDS = 15
TIMES = 3
PATIENCE_S = 600.0


def measure() -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents)."""
    with tempfile.TemporaryDirectory() as folder:
        startup, bare_s = start_up(Path(folder))
    intake = sorted(intake_s() for _ in range(TIMES))
    served = sorted(verdict_to_served_s() for _ in range(TIMES))
    figures = startup | {"intake_s": round(intake[0], 3), "intake_all_s": [round(value, 3) for value in intake]}
    figures |= {"confirmed_s": round(served[0], 2), "confirmed_all_s": [round(value, 2) for value in served]}
    return figures, {"bare interpreter": f"python -c pass, median {bare_s * 1000:.1f} ms"}


def start_up(folder: Path) -> tuple[dict[str, Any], float]:
    """help_ratio and status_ratio against `python -c pass`, interleaved rounds, medians."""
    home(folder, backend="stub")
    with running(folder, "daemon"):
        wait(lambda: (folder / "var" / "status.json").exists())
        words = {"bare": [sys.executable, "-c", "pass"], "help": [LORAD, "--help"], "status": [LORAD, "status", "--config", str(folder / "config.json")]}
        taken: dict[str, list[float]] = {name: [] for name in words}
        for _ in range(ROUNDS):
            for name, command in words.items():
                started = time.perf_counter()
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
                taken[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    figures = {f"{name}_ms": round(middle[name] * 1000, 1) for name in ("help", "status")}
    return figures | {f"{name}_ratio": round(middle[name] / middle["bare"], 2) for name in ("help", "status")}, middle["bare"]


def intake_s() -> float:
    """From the rename into inbox/ to the job queued, by the journal's own clock."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home(folder, backend="stub")
        with running(folder, "daemon"):
            wait(lambda: (folder / "var" / "status.json").exists())
            hidden = folder / "var" / "inbox" / ".rows"
            hidden.write_bytes(b"".join(ROWS.read_bytes().splitlines(keepends=True)[:300]))
            started = time.time()
            os.rename(hidden, folder / "var" / "inbox" / "rows.jsonl")
            wait(lambda: entry(folder, "job.queued") is not None)
            queued = next((folder / "var" / "jobs").glob("*/job-*/job.json"), None) or next((folder / "var" / "jobs").glob("*/*/job-*/job.json"))
            return queued.stat().st_mtime - started


def verdict_to_served_s() -> float:
    """From the verdict's file to the box's own ledger line, with the real model after a few steps of training."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home(folder, backend="auto", learning_rate=4e-4, training={"max_steps": 6, "checkpoints": 1})
        with running(folder, "serve"), running(folder, "daemon"):
            wait(lambda: (folder / "var" / "status.json").exists())
            shutil.copyfile(ROWS, folder / "var" / "inbox" / ".rows")
            os.rename(folder / "var" / "inbox" / ".rows", folder / "var" / "inbox" / "rows.jsonl")
            wait(lambda: entry(folder, "job.released") is not None)
            verdict = next((folder / "var" / "runs").glob("*/*/verdict.json")).stat().st_mtime
            ledger = (folder / "var" / "serving" / "out" / "activations.jsonl").read_text().splitlines()
            return datetime.fromisoformat(json.loads(ledger[0])["at"]).timestamp() - verdict


def home(folder: Path, **config: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.json").write_text(json.dumps({"home": "var", "serving": {"port": port}, **config}))


def entry(folder: Path, action: str) -> dict[str, Any] | None:
    path = folder / "var" / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = (json.loads(line) for line in lines)
    return next((line for line in found if line["action"] == action), None)


def wait(condition: Any, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.01)


@contextmanager
def running(folder: Path, verb: str) -> Iterator[None]:
    with open(folder / f"{verb}.log", "wb") as log:
        process = subprocess.Popen([LORAD, verb, "--config", str(folder / "config.json")], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
