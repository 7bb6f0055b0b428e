"""F44, F45: somebody reads while the daemon writes, or nobody reads what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from circle import Circle, chat_rows, read_lines
from processes import LORAD, wait_until

from bench.faults import Outcome, Trial, fault

READ_S = 6.0
READER = """
import json, sys, time
path, seconds = sys.argv[1], float(sys.argv[2])
reads, torn, oldest, inode, changes, end = 0, 0, 0.0, None, 0, time.monotonic() + seconds
while time.monotonic() < end:
    try:
        with open(path) as file:
            text = file.read()
    except FileNotFoundError:
        continue
    reads += 1
    try:
        beat = json.loads(text)["daemon"]["beat_s"]
    except ValueError:
        torn += 1
        continue
    changes += beat != inode
    inode = beat
    oldest = max(oldest, time.clock_gettime(time.CLOCK_BOOTTIME) - beat)
print(json.dumps({"reads": reads, "parse_errors": torn, "versions": changes, "oldest_s": round(oldest, 2)}))
"""
SLOW = """
import json, sys, time
end, torn, lines = time.monotonic() + float(sys.argv[2]), 0, 0
with open(sys.argv[1]) as file:
    while time.monotonic() < end:
        line = file.readline()
        if line.endswith(chr(10)):
            lines += 1
            json.loads(line)
        time.sleep(0.3)  # far slower than lines come
print(lines)
"""
STALE_S = 4.0  # four times as long as the daemon waits between two writes, on a machine that has more to do
BURST = 40

QUEUED_S = 20.0
LONG_KEY = 80_000  # characters of a config key that the log quotes
CALLS = 7
ROOM_S = 5.0


@fault("F44", "status is read mid-write, and by a reader that stalls", guard="status.json is replaced by rename", without="rename")
def read_mid_write(trial: Trial) -> Outcome:
    """A loop on status.json, a slow follower of status.jsonl, and a burst of drops that makes both change."""
    circle = trial.circle()
    circle.start_daemon()
    circle.wait((circle.home / "status.json").exists, "status is there")
    with circle.slot_taken():
        status, log = circle.home / "status.json", circle.home / "status.jsonl"
        readers = [
            subprocess.Popen([sys.executable, "-c", program, str(path), str(READ_S)], stdout=subprocess.PIPE)
            for program, path in ((READER, status), (SLOW, log))
        ]
        for number in range(BURST):
            circle.drop(chat_rows(3, start=100 * number), f"{number}.jsonl")
            time.sleep(READ_S / BURST / 2)
        answers = [reader.communicate(timeout=60)[0] for reader in readers]
        circle.wait(lambda: len(circle.jobs()) == BURST, "every drop is queued")
    read: dict[str, Any] = json.loads(answers[0])
    figure = read | {"slow_reader_lines": int(answers[1] or 0), "lines": len(read_lines(log))}
    held = read["parse_errors"] == 0 and read["reads"] > 100 and read["versions"] > 2 and read["oldest_s"] < STALE_S and int(answers[1]) > 0
    return Outcome(held=held, figure=figure, note="whoever reads has no connection that could stall the daemon")


# ---------------------------------------------------------------- nobody reads


@fault("F45", "nobody reads the log: its pipe is full, then gone", guard="no line is waited for; what nobody reads is dropped", without="log_without_blocking")
def log_unread(trial: Trial) -> Outcome:
    circle = trial.circle()
    reading, writing = os.pipe()
    words = [LORAD, "daemon", "--config", str(circle.config)]
    with open(trial.folder / "said.log", "wb") as said:
        daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=writing, env=circle.env, start_new_session=True)
    os.close(writing)
    try:
        wait_until(lambda: (circle.home / "status.json").exists() and (trial.folder / "said.log").read_text(), "it is ready", 60)
        try:
            _make_it_talk(circle, daemon.pid, CALLS)
            circle.configure()
            full_s = _queued_after(circle, "full.jsonl", 0)
            dropped = _dropped(circle)
            os.close(reading)
            reading = -1
            _make_it_talk(circle, daemon.pid, 2)
            circle.configure()
            gone_s = _queued_after(circle, "gone.jsonl", 1000)
            after = _dropped(circle)
        except AssertionError as error:
            return Outcome(held=False, figure={"blocked": daemon.poll() is None}, note=str(error))
        lives = daemon.poll() is None
    finally:
        if reading >= 0:
            os.close(reading)
        _end(daemon)
    figure = {"dropped_lines": {"full": dropped, "gone": after - dropped}, "queued_s": {"full": full_s, "gone": gone_s}}
    return Outcome(held=lives and 0 < dropped < after, figure=figure, note="log_lines_dropped in status.json and metrics.prom")


def _make_it_talk(circle: Circle, pid: int, calls: int) -> None:
    """Let it log far more than a pipe holds: each SIGHUP finds a config with a very long key, which the log quotes."""
    for number in range(calls):
        circle.config.write_text(json.dumps({"home": "home", f"{'k' * LONG_KEY}{number}": 1}))
        _call(circle, pid)


def _call(circle: Circle, pid: int) -> None:
    known = _refusals(circle)
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: _refusals(circle) > known, "it goes on after a line that nobody reads", ROOM_S)


def _refusals(circle: Circle) -> int:
    journal: Path = circle.home / "journal.jsonl"
    return journal.read_bytes().count(b'"config.refused"') if journal.exists() else 0


def _queued_after(circle: Circle, name: str, start: int) -> float:
    """Seconds until a file that is dropped now has its job."""
    known = len(circle.jobs())
    began = time.monotonic()
    circle.drop(chat_rows(start=start), name)
    wait_until(lambda: len(circle.jobs()) > known, "a drop is queued", QUEUED_S)
    return round(time.monotonic() - began, 1)


def _dropped(circle: Circle) -> int:
    time.sleep(1.5)  # until status is written anew
    return int(circle.status()["daemon"]["log_lines_dropped"])


def _end(daemon: "subprocess.Popen[bytes]") -> None:
    """Kill it; its children die with it."""
    if daemon.poll() is None:
        daemon.kill()
    daemon.wait()
