"""kill -9 of the daemon, and now and then of its trainer, at random moments beside a stream of drops; real processes, stub backend."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from circle import Circle, chat_rows, read_json
from processes import wait_until

IN_START = 4  # one kill in so many hits the daemon while it starts
OF_TRAINER = 0.3  # share of the kills that also hit the trainer, where there is one
LONGEST_S = 2.5  # from ready to the kill; a start takes about as long


@dataclass
class KillFigures:
    """What came of all the kills."""

    kills: int = 0
    trainers: int = 0
    drops: int = 0
    jobs: int = 0
    lost: int = 0  # files that are no job, and jobs that were told and are not there
    duplicated: int = 0  # second jobs for a file, second releases of the same rows, releases that went live twice
    ready_s: list[float] = field(default_factory=list)  # from the start after a kill to ready


def kill_at_random(circle: Circle, kills: int, drops: int, seed: int = 5) -> KillFigures:
    """Drop files and kill until both are used up, then let everything come to its end and count."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    figures = KillFigures(drops=drops)
    circle.start_serving()
    names: list[str] = []
    for number in range(kills):
        if len(names) * kills <= number * drops and len(names) < drops:
            names.append(f"{len(names)}.jsonl")
            circle.drop(chat_rows(start=1000 * len(names)), names[-1])
        started = time.monotonic()
        if number % IN_START == IN_START - 1:
            circle.daemon = circle.start("daemon")
            _let_pass(chance.uniform(0, LONGEST_S))
        else:
            circle.start_daemon()
            figures.ready_s.append(time.monotonic() - started)
            _let_pass(chance.uniform(0, LONGEST_S))
        trainers = _trainers(circle)
        if trainers and chance.random() < OF_TRAINER:
            trainers[0].kill()
            figures.trainers += 1
        circle.daemon.kill()
        figures.kills += 1
    started = time.monotonic()
    circle.start_daemon()
    figures.ready_s.append(time.monotonic() - started)
    circle.wait(lambda: _is_done(circle, drops), "every file has come to its end", 60.0 + 30.0 * drops)
    _count(circle, names, figures)
    return figures


def _let_pass(seconds: float) -> None:
    """The daemon is at work meanwhile; when the kill comes is the point of the test."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, "the moment has come", seconds + 60)


def _trainers(circle: Circle) -> list[psutil.Process]:
    try:
        return circle.children("trainer")
    except psutil.Error:
        return []


def _is_done(circle: Circle, drops: int) -> bool:
    states = list(circle.jobs().values())
    return len(states) >= drops and set(states) <= {"released", "held", "cancelled", "failed", "refused"}


def _count(circle: Circle, names: list[str], figures: KillFigures) -> None:
    cards = {job: read_json(folder / "job.json") for job, folder in circle.job_folders().items()}
    files = Counter(card["file"] for card in cards.values())
    told = told_jobs(circle.home)
    figures.jobs = len(cards)
    figures.lost = len(set(names) - files.keys()) + len(told - cards.keys())
    identities = Counter(card["identity"] for job, card in cards.items() if circle.jobs()[job] == "released")
    live = Counter(circle.went_live())
    figures.duplicated = sum(count - 1 for counts in (files, identities, live) for count in counts.values() if count > 1)


def told_jobs(home: Path) -> set[str]:
    """Jobs whose "queued" the status log has told."""
    from store.rotation import all_lines

    lines = [line for line in all_lines(home / "status.jsonl") if '"job.queued"' in line]
    return {line.split('"job": "')[1].split('"')[0] for line in lines}
