"""F08, F09: one daemon a home, and no stale number keeps it from starting."""

import os
import subprocess
import time

import psutil
from circle import Circle
from processes import LORAD, pause, wait_until

from bench.faults import Outcome, Trial, fault

AT_ONCE = 20
UNGUARDED_AT_ONCE = 3
REFUSED = 75


def _start_many(circle: Circle, count: int) -> list[subprocess.Popen[bytes]]:
    started = []
    for number in range(count):
        with open(circle.root / f"many-{number}.log", "wb") as log:
            words = [LORAD, "daemon", "--config", str(circle.config)]
            started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=circle.env, start_new_session=True))
    return started


def _said(circle: Circle, number: int) -> str:
    return (circle.root / f"many-{number}.log").read_text()


@fault("F08", "two daemons", guard="flock on the home, held for life", without="home_lock")
def many_daemons(trial: Trial) -> Outcome:
    """Twenty at once; then the lock file is deleted under the one that runs, which is held still, and another is started."""
    count = AT_ONCE if trial.guarded else UNGUARDED_AT_ONCE
    circle = trial.circle()
    many = _start_many(circle, count)
    try:
        wait_until(lambda: sum(one.poll() is None for one in many) <= 1 or (not trial.guarded and _ready(circle, count) > 1), "all but one have ended", 120)
        winners = [one for one in many if one.poll() is None]
        if len(winners) != 1:
            return Outcome(held=False, figure={"winners": len(winners)})
        wait_until(lambda: _ready(circle, count) == 1, "the winner is ready", 60)
        losers = [(number, one) for number, one in enumerate(many) if one is not winners[0]]
        named = sum(one.returncode == REFUSED and f"pid {winners[0].pid}" in _said(circle, number) for number, one in losers)
        pause(psutil.Process(winners[0].pid))  # it cannot notice and leave
        (circle.home / "lorad.lock").unlink()
        refused = circle.lorad("daemon").returncode == REFUSED
    finally:
        for one in many:
            if one.poll() is None:
                one.kill()
            one.wait()
    figure = {"started": count, "winners": 1, "refused_with_the_holder": named, "second_after_the_file_was_deleted": "refused" if refused else "runs"}
    return Outcome(held=named == count - 1 and refused, figure=figure, note="exit 75 names the holder's pid")


def _ready(circle: Circle, count: int) -> int:
    return sum("lorad watches" in _said(circle, number) for number in range(count))


@fault("F09", "stale pid file, reused pid", guard="the lock decides; a number counts only with its start time and boot", without="process_identity")
def stale_pid(trial: Trial) -> Outcome:
    """The text of a dead daemon's lock names a number that belongs to somebody else by now."""
    circle = trial.circle()
    circle.home.mkdir(parents=True)
    (circle.home / "lorad.lock").write_text(f'{{"pid": {os.getpid()}, "started": 1, "boot": "of another day"}}')
    (circle.home / "slots").mkdir()
    (circle.home / "slots" / "0.lock").write_text(f'{{"pid": {os.getpid()}, "started": 1, "boot": "of another day", "run": "x"}}')
    started = time.monotonic()
    daemon = circle.daemon = circle.start("daemon")
    daemon.ends = True
    wait_until(lambda: circle.daemon_is_ready() or not daemon.lives(), "it starts or ends", 60)
    taken = time.monotonic() - started
    return Outcome(held=daemon.lives(), figure={"start_s": round(taken, 2)}, note="the number was this process's own, which is left alone")
