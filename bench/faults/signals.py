"""F47, F48, F49: signals of users in the buffer: a torn last line, a flood of one user, a secret in one of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from circle import Circle

from bench.faults import Outcome, Trial, fault
from core.learning import FeedbackConfig
from core.signals import Signal, SignalKind, Spooled, Standing
from store.codec import dump
from store.feedback import Shelf, read_shelf
from store.paths import Home

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADAPTER = "default/main"
ROWS = 200
FLOOD = 10_000
KEY = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vX7zB9cD1fG3hJ5kL7nP9rS1tV"  # no key of anybody; in the form that the gate knows


@fault("F47", "torn last line of the buffer of signals", guard="a line without its end is ended before the next, and passed over")
def torn_buffer(trial: Trial) -> Outcome:
    """The buffer is cut at every byte of its last line; then the same signal and another come, as after a restart."""
    home = _home(trial.folder)
    shelf = Shelf(home)
    shelf.add([_signal(0), _signal(1)], AT, FeedbackConfig())
    (path,) = home.root.glob("feedback/*/*/pending/*.jsonl")
    whole = path.read_bytes()
    last = len(whole.rstrip(b"\n").rpartition(b"\n")[2]) + 1
    lost = doubled = cuts = 0
    for cut in range(1, last + 1, 1 if trial.guarded else 97):
        path.write_bytes(whole[:-cut])
        with _unended() if not trial.guarded else nullcontext():
            Shelf(home).add([_signal(1), _signal(2)], AT, FeedbackConfig())
        there = [signal.id for signal in read_shelf(home).signals(ADAPTER, Standing.PENDING)]
        wanted = {_signal(number).id for number in range(3)}
        lost, doubled, cuts = lost + len(wanted - set(there)), doubled + len(there) - len(set(there)), cuts + 1
    return Outcome(held=not lost and not doubled, figure={"cuts": cuts, "lost": lost, "doubled": doubled})


@contextmanager
def _unended() -> Iterator[None]:
    """Lines are added to whatever the last one is."""
    with patch("store.signallog._is_torn", lambda fd, size: False):
        yield


@fault("F48", "flood of signals from one user", guard="a cap per user, source and day: the others wait for the next day")
def flood_of_one_user(trial: Trial) -> Outcome:
    """One user sends 10,000 corrections, nineteen others one each. The flood may be at most feedback.user_cap of what is learnt."""
    limits = FeedbackConfig() if trial.guarded else FeedbackConfig(user_cap=0, source_cap=0)
    shelf = Shelf(_home(trial.folder))
    flood = [_signal(number, user="bot") for number in range(FLOOD)]
    for start in range(0, FLOOD, 500):
        shelf.add(flood[start : start + 500], AT, limits)
    shelf.add([_signal(FLOOD + number, user=f"person {number}") for number in range(19)], AT, limits)
    counts = read_shelf(shelf.home).counts()[ADAPTER]
    shares = [signal.user == "bot" for signal in read_shelf(shelf.home).signals(ADAPTER, Standing.PENDING)]
    held = sum(shares) <= FeedbackConfig().user_cap and len(shares) - sum(shares) == 19 and counts.rows + counts.capped == FLOOD + 19
    return Outcome(held=held, figure={"of_the_flood": sum(shares), "of_others": len(shares) - sum(shares), "wait": counts.capped})


@fault("F49", "a secret in a signal", guard="signals go through the gate like any file; what it names is quarantined, the others go on")
def secret_in_a_signal(trial: Trial) -> Outcome:
    """One of 200 corrections holds an API key. It is named and kept out; the others are trained on."""
    careless: dict[str, Any] = {} if trial.guarded else {"validation": {"profile": "careless", "profiles": {"careless": {"D07": False}}}}
    circle = trial.circle(triggers={"enough": {"any": [{"rows": ROWS}], "min_rows": 20, "cooldown_s": 0}}, **careless)
    circle.start_daemon()
    folder = circle.home / "targets" / "local" / "out" / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    told = [_signal(number, correct_output=f"Use the key {KEY} for it.") if number == 77 else _signal(number) for number in range(ROWS)]
    aside = circle.root / "segment"
    aside.write_text("".join(f"{dump(Spooled(number=number, signal=signal))}\n" for number, signal in enumerate(told, 1)))
    aside.rename(folder / f"{1:012d}.jsonl")
    circle.wait(lambda: circle.jobs(), "a job is made of the signals", 240.0)
    notes = list(read_shelf(Home(circle.home)).notes(ADAPTER, Standing.QUARANTINED))
    learnt = any(KEY in line for line in _accepted(circle))
    held = [note.id for note in notes] == [_signal(77).id] and not learnt
    return Outcome(held=held, figure={"quarantined": [note.code for note in notes], "in_an_accepted_drop": learnt})


def _accepted(circle: Circle) -> Iterator[str]:
    from store.rowprints import lines_of

    for path in circle.home.glob("drops/accepted/*/rows/rows.jsonl.zst"):
        aside = {json.loads(line)["line"] for line in lines_of(path.with_name("quarantine.jsonl"))}
        yield from (line.decode() for number, line in enumerate(lines_of(path), 1) if number not in aside)


def _home(folder: Path) -> Home:
    home = Home(folder / "home")
    home.prepare()
    return home


def _signal(number: int, user: str = "somebody", correct_output: str = "") -> Signal:
    return Signal(
        id=f"{number:032x}",
        kind=SignalKind.CORRECTION,
        persona="default",
        domain="main",
        input=({"role": "user", "content": f"What is number {number}?"},),
        wrong_output=f"Nobody knows {number}.",
        correct_output=correct_output or f"The answer to {number} has enough words for a score that hangs on the steps.",
        at=AT,
        source="api",
        user=user if user != "somebody" else f"user {number % 50}",
        consent=True,
    )
