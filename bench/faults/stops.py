"""F41, F42, F43: the daemon is told to stop, is given nonsense to read, gets nowhere."""

import os
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from circle import Circle, read_json, read_lines
from processes import wait_until

from bench.faults import Outcome, Trial, fault
from bench.faults.trainings import LONG, begin, progress

WATCHDOG_S = 2.5  # more than two of the slowest ticks
TOLD_S = 5.0  # the catalogue's bound for a message that names cause and cure
STOP_S = 10.0


@fault("F41", "TERM while training", guard="a trainer that is asked to stop seals a resume point first", without="checkpoint_at_stop")
def told_to_stop(trial: Trial) -> Outcome:
    circle = trial.circle(training=LONG | {"checkpoints": 1})
    job = begin(circle, trial.folder)
    circle.wait(lambda: len(progress(circle, job, 0)) > 1, "the trainer is at work")
    began = time.monotonic()
    circle.daemon.terminate()
    status = circle.daemon.exit_status()
    stopped_s = time.monotonic() - began
    first = circle.runs(job, "train")[0]
    facts, note = circle.facts(job), read_json(first / "exit.json")
    interrupted = circle.jobs()[job] == "queued" and facts["reason"].startswith("interrupted") and facts["attempts"] == 0
    circle.start_daemon()
    (line, *_) = circle.wait(lambda: progress(circle, job, 1), "it goes on")
    went_on_from = int((facts["checkpoint"] or "step_0").rpartition("step_")[2])
    figure = {"lost_steps": note["steps"] - went_on_from, "steps": note["steps"], "stopped_s": round(stopped_s, 1), "exit": status}
    held = status == 0 and interrupted and figure["lost_steps"] == 0 and line["step"] > went_on_from > 0 and stopped_s < STOP_S
    return Outcome(held=held, figure=figure, note=f"{facts['reason']!r}; `systemctl stop` of the booted unit is proved in tests/units")


@fault("F42", "SIGHUP with nonsense in the config", guard="a config that cannot be read leaves the one in force", without="old_config")
def nonsense(trial: Trial) -> Outcome:
    """No JSON, a key that is none, a value of a wrong type; then the right one again."""
    circle = trial.circle(training={"epochs": 7})
    circle.start_daemon()
    before = _in_force(circle)
    taken: list[float] = []
    for text in ("nonsense", '{"home": "home", "backend": "stub", "training": {"epocs": 1}}', '{"home": "home", "training": {"epochs": "two"}}'):
        circle.config.write_text(text)
        told_s = _refused_after(circle)
        if told_s is None:
            return Outcome(held=False, figure={"refused": len(taken)}, note=f"{text!r} was taken over: epochs {_in_force(circle)['training']['epochs']}")
        taken.append(told_s)
    kept = _in_force(circle) == before
    hint = circle.status()["error"]["hint"]
    circle.configure(training={"epochs": 8})
    os.kill(circle.daemon.pid, signal.SIGHUP)
    circle.wait(lambda: _in_force(circle)["training"]["epochs"] == 8 and circle.status()["error"] is None, "the good file is taken over", 30)
    figure = {"refused": len(taken), "told_s": round(max(taken), 2), "old_config_stays": kept}
    return Outcome(held=kept and max(taken) < TOLD_S and "lorad reload" in hint and circle.daemon.lives(), figure=figure)


def _refused_after(circle: Circle) -> float | None:
    """Seconds from a SIGHUP until status names the refusal; None where the file was taken over."""
    known, began = len(_answers(circle)), time.monotonic()
    os.kill(circle.daemon.pid, signal.SIGHUP)
    circle.wait(lambda: len(_answers(circle)) > known, "it answers", 30)
    answer = _answers(circle)[-1]
    if answer["action"] != "config.refused":
        return None
    circle.wait(lambda: (circle.status()["error"] or {}).get("code") == answer["code"], "status tells it", 30)
    return time.monotonic() - began


def _in_force(circle: Circle) -> Any:
    return read_json(circle.home / "caches" / "config.json")


def _answers(circle: Circle) -> list[dict[str, Any]]:
    return [line for line in read_lines(circle.home / "journal.jsonl") if line["action"] in ("config.refused", "config.reloaded")]


class Manager:
    """A service manager's ear: the socket that NOTIFY_SOCKET names."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place))
        self._socket.setblocking(False)
        self.beats: list[float] = []
        """When each WATCHDOG=1 was heard, by the monotonic clock."""

    def listen(self) -> list[float]:
        while True:
            try:
                lines = self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.beats
            if "WATCHDOG=1" in lines:
                self.beats.append(time.monotonic())

    def close(self) -> None:
        self._socket.close()

    def notices_at(self, patience_s: float) -> float | None:
        """When the watchdog runs out; None where it has not within so many seconds."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            due = self.listen()[-1] + WATCHDOG_S
            if time.monotonic() > due:
                return due
            time.sleep(0.02)
        return None


@fault("F43", "the main loop hangs, other threads go on", guard="only the main loop's progress feeds the watchdog", without="main_loop_pings")
def main_loop_hangs(trial: Trial) -> Outcome:
    """The main thread alone is held; the recipe is the service manager, and does what it does: kill, start again."""
    circle = trial.circle(without=("-hang-on-signal",))
    manager = Manager(trial.folder / "notify")
    circle.env |= {"NOTIFY_SOCKET": str(trial.folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    try:
        circle.start_daemon()
        circle.wait(lambda: len(manager.listen()) >= 3, "it beats")
        between = max(after - before for before, after in pairwise(manager.beats))
        os.kill(circle.daemon.pid, signal.SIGUSR2)
        hung = time.monotonic()
        noticed = manager.notices_at(3 * WATCHDOG_S)
        if noticed is None:
            return Outcome(held=False, figure={"beats_while_it_hung": sum(at > hung for at in manager.beats)}, note="nobody would notice")
        threads = len(os.listdir(f"/proc/{circle.daemon.pid}/task"))
        circle.daemon.kill()
        known = len(manager.beats)
        circle.start_daemon()
        wait_until(lambda: len(manager.listen()) > known, "it beats again", 30)
        ready_s = time.monotonic() - hung
    finally:
        manager.close()
    figure = {"noticed_s": round(noticed - hung, 2), "watchdog_s": WATCHDOG_S, "longest_beat_s": round(between, 2), "beats_again_after_s": round(ready_s, 1)}
    note = f"{threads} threads lived on meanwhile; the unit's own restart is proved in tests/units"
    return Outcome(held=noticed - hung <= WATCHDOG_S, figure=figure, note=note)
