"""F13, F38, F39: a GPU that somebody else holds, that is too hot; a clock that jumps."""

import json
import re
import subprocess
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from circle import Circle, chat_rows, read_json, read_lines
from processes import wait_until

from bench.faults import CannotRun, Outcome, Trial, fault
from bench.faults.trainings import LONG, progress

HOT_C, WARM_C, COOL_C = 92, 80, 70
LOOK_S = 6.0  # longer than a reading is kept, and than the slowest tick
FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")
EVERY_S = 3.0  # of the schedule's entry; in 30 days it would come 864,000 times
SETTLED_S = 5.0  # looked at after a jump


def sensors(circle: Circle, **gpu: Any) -> None:
    """What the machine says of its one GPU from now on."""
    path = circle.root / "sensors.json"
    circle.env["LORAD_SENSORS"] = str(path)
    known = {"uuid": "GPU-a", "name": "RTX 4090", "free_mb": 20000, "total_mb": 24564, "celsius": 60}
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps({"gpus": [known | gpu], "cpu": {}}))
    aside.replace(path)


@fault("F13", "GPU memory held by somebody else", guard="nothing starts on a device whose memory a stranger holds", without="foreign")
def foreign_process(trial: Trial) -> Outcome:
    """A process of another program, as the driver would list it; then it is killed."""
    circle = trial.circle()
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        sensors(circle, free_mb=10, holders=[{"pid": stranger.pid, "name": "sleep", "mb": 24000}])
        circle.start_daemon()
        circle.drop(chat_rows())
        began = time.monotonic()
        circle.wait(lambda: circle.jobs(), "the job is there")
        job = circle.job()
        named = f"pid {stranger.pid} (sleep) with 24000 MiB"
        try:
            circle.wait(lambda: named in _why(circle, job), "the job says why it waits", LOOK_S)
        except AssertionError:
            return Outcome(held=False, figure={"started": bool(circle.runs(job, "train"))}, note="nobody names the stranger")
        told_s = time.monotonic() - began
        wait_until(lambda: time.monotonic() - began > LOOK_S, "some looks pass", 2 * LOOK_S)
        started = bool(circle.runs(job, "train"))
    finally:
        stranger.kill()
        stranger.wait()
    sensors(circle)
    gone = time.monotonic()
    circle.wait(lambda: circle.runs(job, "train"), "it starts")
    figure = {"named_s": round(told_s, 1), "started_beside_it": started, "starts_after_s": round(time.monotonic() - gone, 1)}
    return Outcome(held=not started, figure=figure, note="a reading is kept for two seconds; `jobs list` names the pid")


def _why(circle: Circle, job: str) -> str:
    rows = (read_json(circle.home / "caches" / "listing.json") or {}).get("jobs", [])
    return next((str(row["reason"]) for row in rows if row["id"] == job), "")


@fault("F38", "GPU too hot", guard="training pauses between two steps above the mark", without="heat")
def too_hot(trial: Trial) -> Outcome:
    circle = trial.circle(training=LONG)
    sensors(circle)
    circle.start_daemon()
    circle.drop(chat_rows())
    job = circle.wait_state("training")
    circle.wait(lambda: len(progress(circle, job, 0)) > 1, "the trainer is at work")
    sensors(circle, celsius=HOT_C)
    hot = time.monotonic()
    try:
        circle.wait(lambda: _held_at(circle, job), "the trainer pauses", LOOK_S)
    except AssertionError:
        return Outcome(held=False, figure={"celsius": HOT_C}, note="it trains on")
    paused_s, step = time.monotonic() - hot, _held_at(circle, job)
    shown = circle.wait(lambda: (circle.status()["current"] or {}).get("held"), "status tells it")
    sensors(circle, celsius=WARM_C)
    warm = time.monotonic()
    wait_until(lambda: time.monotonic() - warm > LOOK_S / 2, "between the marks", LOOK_S)
    still = _held_at(circle, job) == step
    sensors(circle, celsius=COOL_C)
    cool = time.monotonic()
    circle.wait(lambda: progress(circle, job, 0)[-1]["step"] > step, "it goes on")
    figure = {"pauses_after_s": round(paused_s, 1), "goes_on_after_s": round(time.monotonic() - cool, 1), "steps_while_hot": 0 if still else None}
    held = still and f"{HOT_C} °C" in shown and len(circle.runs(job, "train")) == 1
    return Outcome(held=held, figure=figure, note=f"{HOT_C} °C, above 88; held at {WARM_C}; goes on below 78")


def _held_at(circle: Circle, job: str) -> int | None:
    """The step at which it last told that it is held."""
    lines = [line for line in read_lines(circle.runs(job, "train")[0] / "progress.jsonl") if line["stage"] == "hold"]
    return int(lines[-1]["step"]) if lines else None


# ---------------------------------------------------------------- clock


def faketime() -> Path:
    """libfaketime for threads. Raises CannotRun."""
    found = [path for pattern in FAKETIME for path in sorted(Path("/").glob(pattern.removeprefix("/")))]
    if not found:
        raise CannotRun("libfaketime is missing (Debian: apt-get install faketime)")
    return found[0]


@fault(
    "F39",
    "clock jumps by -1 day, then +30 days",
    guard="missed times are made up once; a new id is never before the last; silence is counted by the monotonic clock",
    without=("coalescing", "ids_in_order"),
)
def clock_jumps(trial: Trial) -> Outcome:
    library = faketime()
    schedule = {"entries": {"often": {"does": "gc", "every_s": EVERY_S}}}
    circle = trial.circle(without=("-sleep-by-select",), training=LONG | {"hang_s": 3.0}, schedule=schedule)
    now = trial.folder / "now"
    now.write_text("+0")
    circle.env |= {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    circle.start_daemon()
    began = time.monotonic()
    dropped: list[str] = []
    _drop_one_more(circle, dropped)
    circle.wait_state("training")
    clocks = [_seen_at(circle)]
    for jump in ("-1d", "+30d"):
        now.with_suffix(".part").write_text(jump)
        now.with_suffix(".part").replace(now)
        _drop_one_more(circle, dropped)
        time.sleep(SETTLED_S)
        clocks.append(_seen_at(circle))
    days = [round((after - before).total_seconds() / 86400) for before, after in pairwise(clocks)]
    if days != [-1, 31]:
        raise CannotRun(f"the daemon's clock did not follow libfaketime: it moved by {days} days")
    fired = sum(line["action"] == "schedule.fired" for line in read_lines(circle.home / "journal.jsonl"))
    most = int((time.monotonic() - began) / EVERY_S) + 2
    runs = sum(len(circle.runs(job, "train")) for job in dropped)
    figure = {"fired": fired, "at_most": most, "ids_sort": dropped == sorted(dropped), "lost": 3 - len(circle.jobs()), "trainings": runs}
    steady = runs == 1 and bool(circle.children("trainer")) and circle.daemon.lives()
    held = fired <= most and dropped == sorted(dropped) and len(dropped) == 3 and steady
    return Outcome(held=held, figure=figure, note="" if steady else "the training under way was disturbed")


def _drop_one_more(circle: Circle, dropped: list[str]) -> None:
    """Drop a file and wait for its job, which is added to `dropped`."""
    known = len(dropped)
    circle.drop(chat_rows(start=1000 * known), f"{known}.jsonl")
    circle.wait(lambda: len(circle.jobs()) > known, "the next job is there")
    dropped += [job for job in circle.jobs() if job not in dropped]


def _seen_at(circle: Circle) -> datetime:
    """What the daemon takes the time to be."""
    return datetime.fromisoformat(re.sub("Z$", "+00:00", circle.status()["at"]))
