"""F03, F04, F40: more drops at once than any queue of events holds, and no events at all."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from circle import ENDS, Circle, chat_rows, read_lines
from processes import command_line, wait_until

from bench.burst import ROWS_A_DROP, WRITER
from bench.faults import CannotRun, Outcome, Trial, fault
from core.signals import Signal, SignalKind, Spooled
from store.codec import dump

DROPS = int(os.environ.get("LORAD_BENCH_DROPS", "2000"))
UNGUARDED_DROPS = 60
EARLY = 3  # one part in so many is there before the daemon is
PER_DROP_S = 0.5  # patience
SCANS_S = 5.0  # two scans and more
STORM_ROWS, STORM_S = 10_000, 10
COOLDOWN_S = 5
STORM_PATIENCE_S = 240.0
UNGUARDED_STORM_S = 40.0
NO_EVENTS = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@fault("F03", "burst of drops", guard="the inbox itself is scanned; an event is only a reason to look", without="scan")
def burst(trial: Trial) -> Outcome:
    """A writer renames small files in as fast as it can; the first third lies there before the daemon does. Training is held off."""
    count = DROPS if trial.guarded else UNGUARDED_DROPS
    circle = trial.circle()
    circle.start_daemon()  # once, to make home and keys
    circle.daemon.stop()
    _write(circle, "early", count // EARLY).wait(300)
    began = time.monotonic()
    with circle.slot_taken():
        circle.start_daemon()
        writer = _write(circle, "late", count - count // EARLY)
        peak: Counter[str] = Counter()
        patience_s = 60 + PER_DROP_S * count if trial.guarded else 12
        with suppress(AssertionError):
            wait_until(lambda: _look(circle, peak) and writer.poll() is not None and _queued(circle) >= count, "all are queued", patience_s)
        last_s = time.monotonic() - began
        writer.kill()
        writer.wait()
        queued = len(circle.jobs())
    told = [line["action"] for line in read_lines(circle.home / "status.jsonl")]
    lost = count - queued - told.count("drop.rejected")
    figure = {"drops": count, "lost": lost, "time_to_last_s": round(last_s, 1), "rss_mb_daemon": peak["daemon"] >> 20, "rss_mb_gate": peak["gate"] >> 20}
    return Outcome(held=lost == 0 and queued == count, figure=figure, note="LORAD_BENCH_DROPS=100000 takes the catalogue's own number")


def _write(circle: Circle, name: str, count: int) -> "subprocess.Popen[bytes]":
    """Drops of a few rows into an adapter's folder of its own."""
    folder = circle.inbox / name
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(count), str(ROWS_A_DROP)])


def _look(circle: Circle, peak: Counter[str]) -> bool:
    """Note the most memory so far. Always true; costs a quarter of a second."""
    time.sleep(0.25)
    with suppress(psutil.Error):
        daemon = psutil.Process(circle.daemon.pid)
        peak["daemon"] = max(peak["daemon"], daemon.memory_info().rss)
        gates = sum(child.memory_info().rss for child in daemon.children() if "validation" in command_line(child))
        peak["gate"] = max(peak["gate"], gates)
    return True


def _queued(circle: Circle) -> int:
    """Jobs that wait, by the count in status.json."""
    return int(circle.status()["queue"]["queued"])


# ---------------------------------------------------------------- no events


@fault("F04", "inotify instances used up; its queue overflows", guard="the inbox is scanned where events fail", without="scan")
def no_events(trial: Trial) -> Outcome:
    """In a user namespace that may have no instance at all; then a daemon held still while more happens than the queue holds."""
    used_up = trial.circle()
    used_up.prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", NO_EVENTS, "sh")
    if subprocess.run([*used_up.prefix, "true"], capture_output=True, check=False).returncode:
        raise CannotRun("no user namespace can be made here, in which inotify could be taken away")
    used_up.start_daemon()
    watch = used_up.wait(lambda: _watch(used_up), "status tells how the inbox is watched")
    says = watch["watch"] == "poll" and "max_user_instances" in watch["reason"] and "the inbox is watched by poll" in used_up.daemon.said
    polled_s = _delay(used_up)
    used_up.daemon.stop()
    circle = trial.circle()
    circle.start_daemon()
    events = _watch(circle)["watch"] == "events"
    overflown_s = _delay_after_overflow(circle)
    said = _says_lost(circle)
    figure = {"delay_s": {"used up": polled_s, "overflow": overflown_s}, "says_so": says and said}
    held = says and said and events and None not in (polled_s, overflown_s)
    return Outcome(held=held, figure=figure, note="a delay of null: never found")


def _watch(circle: Circle) -> dict[str, Any]:
    wait_until((circle.home / "status.json").exists, "status is there", 30)
    found: dict[str, Any] = circle.status()["inbox"]
    return found


def _delay(circle: Circle) -> float | None:
    """Seconds from a drop to its claim; None where it is not claimed."""
    began = time.monotonic()
    circle.drop(chat_rows(3))
    return _claimed(circle, began)


def _claimed(circle: Circle, began: float) -> float | None:
    try:
        circle.wait(lambda: "drop.claimed" in circle.told(), "it is claimed", SCANS_S)
    except AssertionError:
        return None
    return round(time.monotonic() - began, 1)


def _says_lost(circle: Circle) -> bool:
    """Whether the log tells that events were lost, soon."""
    with suppress(AssertionError):
        circle.wait(lambda: "events were lost: the inbox is scanned" in circle.daemon.said, "it says so", SCANS_S)
        return True
    return False


def _delay_after_overflow(circle: Circle) -> float | None:
    """Seconds from the moment at which a daemon goes on whose queue has run over, to the claim of what came last."""
    busy = circle.inbox / ".busy"
    busy.touch()
    circle.daemon.pause()
    for number in range(int(QUEUE.read_text()) * 2 // 3):  # two events each, of which the daemon hears both
        target = circle.inbox / f".busy-{number}"
        busy.rename(target)
        busy = target
    busy.unlink()
    circle.drop(chat_rows(3))
    circle.daemon.popen.send_signal(signal.SIGCONT)
    return _claimed(circle, time.monotonic())


# ---------------------------------------------------------------- feedback


@fault("F40", "storm of feedback, retraining in a loop", guard="one retraining, a cool-down, a cap per day", without="brakes_of_triggers")
def storm_of_feedback(trial: Trial) -> Outcome:
    """10,000 corrections within 10 s into the mirror of a box; then, as soon as that training is judged, two smaller storms, of which
    the cap of two a day lets through one."""
    trigger = {"any": [{"rows": 500}], "cooldown_s": COOLDOWN_S, "per_day": 2}
    circle = trial.circle(triggers={"storm": trigger}, feedback={"source_cap": 0, "user_cap": 0})
    circle.start_daemon()
    sent = 0
    for _ in range(STORM_S if trial.guarded else 3):
        sent = _corrections(circle, sent, STORM_ROWS // STORM_S)
        time.sleep(1)
    if not trial.guarded:
        circle.wait(lambda: len(_fired(circle)) > 1, "it fires again at once", UNGUARDED_STORM_S)
        return Outcome(held=False, figure={"trainings": len(_fired(circle))})
    circle.wait(lambda: "job.queued" in circle.told(), "the storm has led to a training", STORM_PATIENCE_S)
    after_storm = circle.told().count("job.queued")
    circle.wait(lambda: set(circle.jobs().values()) <= {*ENDS, "releasing"}, "it is judged", STORM_PATIENCE_S)  # no box is there to serve it
    for number in (2, 3):
        sent = _corrections(circle, sent, 600)
        with suppress(AssertionError):
            circle.wait(
                lambda number=number: circle.told().count("job.queued") == number, "another training", STORM_PATIENCE_S if number == 2 else 3 * COOLDOWN_S
            )
    trainings = circle.told().count("job.queued")
    figure = {"corrections": sent, "trainings_of_the_storm": after_storm, "trainings": trainings}
    return Outcome(held=(after_storm, trainings) == (1, 2) and len(_fired(circle)) == 2, figure=figure)


def _corrections(circle: Circle, sent: int, count: int) -> int:
    """So many more corrections, as a link brings them: a whole segment of a box's spool. Returns how many there are now."""
    folder = circle.home / "targets" / "local" / "out" / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [dump(Spooled(number=number, signal=_correction(number))) for number in range(sent + 1, sent + count + 1)]
    aside = circle.root / "segment"
    aside.write_text("".join(f"{line}\n" for line in lines))
    aside.rename(folder / f"{sent + 1:012d}.jsonl")
    return sent + count


def _correction(number: int) -> Signal:
    asked = ({"role": "user", "content": f"What is number {number}?"},)
    right = f"The answer to {number} has enough words for a score that hangs on the steps."
    known: dict[str, Any] = {"persona": "support", "domain": "tone", "source": "api", "user": f"user{number % 100}", "consent": True}
    at = datetime.now(UTC)
    return Signal(id=f"{number:032x}", kind=SignalKind.CORRECTION, input=asked, wrong_output="No idea.", correct_output=right, at=at, **known)


def _fired(circle: Circle) -> list[dict[str, Any]]:
    """What triggers have told of."""
    return [line for line in read_lines(circle.home / "status.jsonl") if line["action"] == "trigger.fired"]
