"""From the order to the end of a training's first step, warm and cold, on the real base with the rows of `bench.train`.

The order is the daemon's own: `daemon.children.Children` starts the child, through a warm trainer or without. The end of
the first step is the first line of stage train in progress.jsonl. The CPU seconds, those of the child up to there, are
what a busy machine stretches less.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.train import ROWS, say, write_task
from core.config import Config
from core.records import ChildRef, Kind
from daemon.children import TRAINER, Children
from daemon.clock import now
from daemon.warming import Wanted
from store.bases import base_folder, read_base
from store.paths import Home

TURNS = 3
PATIENCE_S = 300.0
LOOK_EVERY_S = 0.02
JOB = "bench"


def first_step_s(turns: int = TURNS) -> dict[str, Any]:
    """Medians of seconds and of CPU seconds, warm and cold in turn; what the warm trainer takes while it waits; the load."""
    with tempfile.TemporaryDirectory() as folder:
        homes = {kind: Home(Path(folder) / kind) for kind in ("warm", "cold")}
        for home in homes.values():
            home.prepare()
        children = {kind: Children(home, 1) for kind, home in homes.items()}
        taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in homes}
        try:
            ready = _ready(children["warm"])
            for turn in range(turns):
                for kind, home in homes.items():
                    taken[kind].append(_first_step(children[kind], home, f"{turn + 1:02d}-train"))
                    say(f"{kind}: first step after {taken[kind][-1][0]:.1f} s, {taken[kind][-1][1]:.1f} s of CPU")
        finally:
            for one in children.values():
                one.kill_all()
                one.warm.close()
    medians = {kind: [sorted(values)[turns // 2] for values in zip(*taken[kind], strict=True)] for kind in homes}
    figures = {f"first_step{name}_s": round(medians[kind][0], 1) for kind, name in (("warm", ""), ("cold", "_cold"))}
    figures |= {f"first_step{name}_cpu_s": round(medians[kind][1], 1) for kind, name in (("warm", ""), ("cold", "_cold"))}
    return figures | ready | {"load": [round(load, 1) for load in os.getloadavg()]}


def _ready(children: Children) -> dict[str, Any]:
    """A warm trainer for the real base: how long it took to load, and its memory, all and its own."""
    base = base_folder(Config())
    key = Wanted(backend="peft", base=str(base), sha256=read_base(base).source_sha256)
    began = time.monotonic()
    while not children.warm.is_ready:
        children.warm.keep(key)
        if time.monotonic() - began > PATIENCE_S or children.warm.pid is None:
            raise SystemExit("the warm trainer was not made ready: its log is warm.log")
        time.sleep(LOOK_EVERY_S)
    memory = psutil.Process(children.warm.pid).memory_full_info()
    return {"warm_ready_s": round(time.monotonic() - began, 1), "warm_rss_mb": memory.rss >> 20, "warm_uss_mb": memory.uss >> 20}


def _first_step(children: Children, home: Home, name: str) -> tuple[float, float]:
    """(seconds, CPU seconds of the child) from the order until its first step is done; it is stopped then."""
    run = home.runs(JOB) / name
    run.mkdir(parents=True)
    write_task(run, base_folder(Config()), ROWS)
    ref = ChildRef(run=name, kind=Kind.TRAIN, instance="bench", slot=0, started_at=now())
    began = time.monotonic()
    children.start(JOB, run, TRAINER, 0, 0)
    child = psutil.Process(json.loads(home.slot_lock(0).read_text())["pid"])
    while not _has_stepped(run):
        if not children.look(JOB, ref).alive or time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"the training made no step: {(run / 'log.txt').read_text()[-500:]}")
        time.sleep(LOOK_EVERY_S)
    seconds, times = time.monotonic() - began, child.cpu_times()
    children.kill_all()
    while children.look(JOB, ref).alive:
        time.sleep(LOOK_EVERY_S)
    return seconds, times.user + times.system


def _has_stepped(run: Path) -> bool:
    try:
        return '"stage": "train"' in (run / "progress.jsonl").read_text()
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    print(json.dumps(first_step_s(), indent=1))
