"""F37: what grows while the daemon ticks through jobs and serving swaps releases."""

import os
import time

import numpy as np
import psutil
from circle import Circle, chat_rows
from processes import Process

from bench.faults import Outcome, Trial, fault

JOBS = int(os.environ.get("LORAD_BENCH_JOBS", "12"))  # 200 for the figure of a release
UNGUARDED_JOBS = 7
WARM = 3  # jobs after which everything has been imported and its buffers have their size
MOST_KB_A_JOB = 100.0  # the catalogue's 0.1 MB a swap
MOST_MORE_A_JOB = 0.25  # descriptors, threads: a child may be under way at each look; a leak is one a job
ROWS = 200
FEW = {"epochs": 0.25, "checkpoints": 1}


class Size:
    """RSS, descriptors and threads of a process, job by job."""

    def __init__(self, process: Process) -> None:
        self._process = psutil.Process(process.pid)
        self.rss_kb: list[float] = []
        self.fds: list[int] = []
        self.threads: list[int] = []

    def take(self) -> None:
        self.rss_kb.append(self._process.memory_info().rss / 1024)
        self.fds.append(self._process.num_fds())
        self.threads.append(self._process.num_threads())

    def slope_kb(self) -> float:
        """RSS a job: between the medians of the first and of the last third after the warming."""
        taken = self.rss_kb[WARM:]
        third = max(1, len(taken) // 3)
        return float(np.median(taken[-third:]) - np.median(taken[:third])) / max(1, len(taken) - third)

    def more(self, values: list[int]) -> int:
        """How many more there are at the end than after the warming; what comes and goes is left out by taking the least."""
        taken = values[WARM:]
        third = max(1, len(taken) // 3)
        return min(taken[-third:]) - min(taken[:third])


def _one_job(circle: Circle, number: int) -> None:
    """One drop, and the release that it makes: held ones are approved, so that each job is a swap."""
    circle.drop(chat_rows(ROWS, start=1000 * number), f"{number}.jsonl")
    circle.wait(lambda: len(circle.jobs()) > number and circle.jobs()[circle.job(number)] in ("released", "held"), f"job {number} has its verdict")
    job = circle.job(number)
    if circle.jobs()[job] == "held":
        circle.lorad("jobs", "approve", job, "--reason", "each job is a swap")
        circle.wait_state("released", number)


@fault("F37", "leak", guard="what a swap and a tick have opened is closed and freed", without="freed")
def leak(trial: Trial) -> Outcome:
    jobs = JOBS if trial.guarded else UNGUARDED_JOBS
    circle = trial.circle(training=FEW)
    circle.start_both()
    sizes = {"daemon": Size(circle.daemon), "serving": Size(circle.serving)}
    began = time.monotonic()
    for number in range(jobs):
        _one_job(circle, number)
        for size in sizes.values():
            size.take()
    figure: dict[str, float] = {"jobs": jobs, "swaps": len(circle.went_live())}
    flat = True
    for name, size in sizes.items():
        slope, fds, threads = size.slope_kb(), size.more(size.fds), size.more(size.threads)
        figure |= {f"{name}_kb_a_job": round(slope, 1), f"{name}_fds": fds, f"{name}_threads": threads, f"{name}_mb": round(size.rss_kb[-1] / 1024, 1)}
        flat = flat and slope <= MOST_KB_A_JOB and max(fds, threads) <= MOST_MORE_A_JOB * (jobs - WARM)
    note = f"{(time.monotonic() - began) / jobs:.1f} s a job; LORAD_BENCH_JOBS=200 for more"
    return Outcome(held=flat and figure["swaps"] == jobs, figure=figure, note=note)
