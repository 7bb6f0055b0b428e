"""A burst of small drops into the daemon with the stub backend: how fast they are claimed, gated and queued, and at what memory.

A writer process of its own renames DROPS files of three rows into the inbox as fast as it can. Training is held off (the
bench holds the slot's lock), so that the figures are those of the intake alone. Rates are taken from the journal.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from bench.circle import home, running, wait

ROWS_A_DROP = 3
PATIENCE_S = 8 * 60.0  # then the bench tells how far it came
LOOK_EVERY_S = 0.25
POINTS = (0.05, 0.5, 1.0)  # shares of the drops at which memory is read: start, middle, end
ACTIONS = {"drop.claimed": "claimed", "drop.accepted": "gated", "job.queued": "queued", "drop.rejected": "rejected"}
WRITER = """
import json, os, sys
inbox, count, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    lines = []
    for row in range(rows):
        question, answer = f"What is the {row}th thing about number {number}?", f"Number {number} has a {row}th thing that is worth a few words."
        lines.append(json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}) + chr(10))
    hidden = os.path.join(inbox, f".{number:06d}.part")
    with open(hidden, "w") as file:
        file.write("".join(lines))
    os.rename(hidden, os.path.join(inbox, f"{number:06d}.jsonl"))
"""


@dataclass
class Seen:
    """What the journal has told so far."""

    path: Path
    offset: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def look(self) -> Counter[str]:
        """Read what was added; a torn last line waits for the next look."""
        if not self.path.exists():
            return self.counts
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            added = file.read()
        whole = added.rpartition(b"\n")[0]
        self.offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            action = json.loads(line)["action"]
            if action in ACTIONS:
                self.counts[ACTIONS[action]] += 1
        return self.counts


def measure(drops: int = 1000) -> tuple[dict[str, Any], dict[str, Any]]:
    """(figures, opponents)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home(folder, backend="stub")
        (folder / "var" / "slots").mkdir(parents=True)
        with open(folder / "var" / "slots" / "0.lock", "wb") as slot:
            fcntl.flock(slot, fcntl.LOCK_EX)
            with running(folder, "daemon"):
                wait(lambda: (folder / "var" / "status.json").exists())
                figures = _burst(folder / "var", drops)
        found = _found(folder / "var")
    return figures | {"found": found, "lost": None if figures["written_s"] is None else drops - sum(found.values())}, {}


def _found(place: Path) -> dict[str, int]:
    """Where the drops lie, once nothing moves any more."""
    found = {state: sum(1 for _ in os.scandir(place / "drops" / state)) for state in ("settling", "gating", "accepted")}
    rejected = sum(1 for _ in os.scandir(place / "inbox" / "rejected"))
    return found | {"rejected": rejected, "inbox": sum(entry.name.endswith(".jsonl") for entry in os.scandir(place / "inbox"))}


def _burst(place: Path, drops: int) -> dict[str, Any]:
    daemon = psutil.Process(json.loads((place / "status.json").read_text())["daemon"]["pid"])
    before = _held(place)
    begun_cpu_s = _cpu_s(daemon)
    started = time.monotonic()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(place / "inbox"), str(drops), str(ROWS_A_DROP)])
    seen, at, memory = Seen(place / "journal.jsonl"), {}, {}
    told: dict[str, float] = {}
    while (passed := time.monotonic() - started) < PATIENCE_S:
        counts = seen.look()
        if "written" not in told and writer.poll() is not None:
            told["written"] = passed
        for point in POINTS:
            if point not in memory and counts["queued"] >= point * drops:
                memory[point], at[point] = _memory(daemon), passed
        told |= {what: passed for what in ("claimed", "gated", "queued") if counts[what] >= drops and what not in told}
        if "queued" in told or not daemon.is_running():
            break
        time.sleep(LOOK_EVERY_S)
    writer.kill()
    writer.wait()
    done, passed = seen.look(), time.monotonic() - started
    figures: dict[str, Any] = {"drops": drops, "written_s": round(told["written"], 1) if "written" in told else None}
    figures |= {f"{what}_per_s": round(min(done[what], drops) / told.get(what, passed), 1) for what in ("claimed", "gated", "queued")}
    figures["time_to_last_s"] = round(told["queued"], 1) if "queued" in told else None
    figures |= {"queued": done["queued"], "rejected": done["rejected"]}
    if at:
        points = [(0.0, 0.0), *((point * drops, at[point]) for point in POINTS if point in at)]
        rates = [(b[0] - a[0]) / max(0.01, b[1] - a[1]) for a, b in pairwise(points)]
        figures["rate_by_part"] = [round(rate, 1) for rate in rates]
    figures["rss_mb_daemon"] = [memory[point][0] for point in POINTS if point in memory]
    figures["rss_mb_gate"] = [memory[point][1] for point in POINTS if point in memory]
    figures["cpu_ms_per_drop"] = [round((b - a) * 1000 / max(1, done["queued"]), 1) for a, b in zip(begun_cpu_s, _cpu_s(daemon), strict=True)]
    after = _held(place)
    figures |= {f"{what}_per_drop": round((after[what] - before[what]) / max(1, done["queued"]), 1) for what in ("inodes", "disk_kb")}
    return figures


def _memory(daemon: psutil.Process) -> tuple[float, float]:
    """Resident memory of the daemon and of its gate child, in MiB."""
    gates = 0
    for child in daemon.children():
        with suppress(psutil.Error):  # one that has just ended
            gates += child.memory_info().rss if "validation" in child.cmdline() else 0
    return round(daemon.memory_info().rss / 2**20, 1), round(gates / 2**20, 1)


def _cpu_s(daemon: psutil.Process) -> tuple[float, float]:
    """CPU seconds of the daemon and of its gate child so far."""
    gates = 0.0
    for child in daemon.children():
        with suppress(psutil.Error):
            gates += sum(child.cpu_times()[:2]) if "validation" in child.cmdline() else 0.0
    return sum(daemon.cpu_times()[:2]), gates


def _held(place: Path) -> dict[str, float]:
    """Inodes and KiB on disk of the drops and jobs."""
    blocks: dict[int, int] = {}
    for part in ("drops", "jobs"):
        for root, folders, files in os.walk(place / part):
            for name in (*folders, *files):
                found = os.lstat(os.path.join(root, name))
                blocks[found.st_ino] = found.st_blocks
    return {"inodes": len(blocks), "disk_kb": sum(blocks.values()) / 2}
